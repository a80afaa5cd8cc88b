"""Put a guest before every test set and margin set, as the paper's networks are, and record each decision.

    python -m pipeline.shapes.predict_guest --name blob

A guest that was trained here answers in the precision of params.yaml, as the others do. One that comes as it is does so
in fp32.
"""

from __future__ import annotations

import pandas as pd
import torch
from tqdm import tqdm

from pipeline import training
from pipeline.params import load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.dataset import load_images
from pipeline.shapes.guests import Places, blamed, finite, load_weights, open_guest
from pipeline.shapes.network import predict_logits
from pipeline.shapes.paths import Network
from pipeline.shapes.predict import conditions, trials
from pipeline.stage import run


def main(name: str) -> str:
    params, places, device = load_params(), Places(name), training.device()
    guest, seated, _ = open_guest(name, params, device)
    load_weights(places.weights, seated)
    precision = params.precision if guest.train else "fp32"
    tables = []
    sets = conditions(Network(params.densities[0]), params)
    for condition in tqdm(sets, f"shapes/predict_guest/{name}", unit="set", disable=None, leave=False):
        images = load_images(condition)
        with blamed(guest.build, f"its network, on {condition},"), training.autocast(precision, device):
            logits = predict_logits(seated, torch.from_numpy(images.pixels))
        finite(guest.build, logits, f"images of {condition}")
        tables.append(trials(name, condition, images, logits.numpy(), params.shapes.target))
    decisions = pd.concat(tables, ignore_index=True)
    if len(answers := decisions["response"].unique()) == 1:
        print(f"warning: {name}: answers '{answers[0]}' to all {len(decisions):,} images; its bias is undefined")
    write_predictions(places.decisions, decisions)
    return f"{len(decisions):,} decisions on {len(sets)} sets of images"


if __name__ == "__main__":
    run(main, name=str)
