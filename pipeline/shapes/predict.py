"""Put one network before every test set and margin set, and record each decision.

python -m pipeline.shapes.predict --density 50
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.dataset import Images, load_images
from pipeline.shapes.network import build_network, predict_logits
from pipeline.shapes.paths import margin_name, observer, predictions_path, split_name, weights_path
from pipeline.shapes.scenes import KINDS
from pipeline.stage import run

TIE = "tie"


def conditions(params: Params) -> list[str]:
    """Every set of images that a network is tested on."""
    study = params.shapes
    tests = [split_name(density, "test") for density in params.densities]
    return tests + [margin_name(density, margin) for density in study.margin_densities for margin in study.margins]


def trials(name: str, condition: str, images: Images, logits: np.ndarray, target: str) -> pd.DataFrame:
    """One row an image. A tie's category is 'square' where `target` is 'hard'; else 'tie', and no answer is right."""
    margins = images.margins
    tie = KINDS[0] if target == "hard" else TIE
    category = np.select([margins > 0, margins < 0], [KINDS[1], KINDS[0]], tie)
    response = np.array(KINDS)[logits.argmax(axis=1)]
    return pd.DataFrame(
        {
            "observer": name,
            "condition": condition,
            "image": images.keys,
            "category": category,
            "response": response,
            "correct": pd.array(category == response, dtype="boolean").copy(),
            "circles": images.circles,
            "squares": images.squares,
            "logit_square": logits[:, 0],
            "logit_circle": logits[:, 1],
        }
    ).assign(correct=lambda rows: rows["correct"].mask(rows["category"] == TIE))


def main(density: int) -> str:
    params = load_params()
    training.configure(params.seed, f"shapes/predict/density-{density}", params.threads)
    device = training.device()
    network = build_network()
    training.load_weights(weights_path(density), network)
    network.to(device)

    tables = []
    for condition in conditions(params):
        images = load_images(condition)
        with training.autocast(params.precision, device):
            logits = predict_logits(network, torch.from_numpy(images.pixels)).numpy()
        tables.append(trials(observer(density), condition, images, logits, params.shapes.target))
    table = pd.concat(tables, ignore_index=True)
    write_predictions(predictions_path(density), table)
    return f"{len(table):,} decisions"


if __name__ == "__main__":
    run(main, density=int)
