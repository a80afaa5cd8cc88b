"""Put one network before its test sets and all margin sets, and record each decision.

python -m pipeline.shapes.predict --density 50
python -m pipeline.shapes.predict --density 50 --architecture regnet_y_400mf --run 2
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.dataset import Images, load_images
from pipeline.shapes.network import build_network, predict_logits
from pipeline.shapes.paths import ARCHITECTURE, Network, margin_names, shard_path, split_name
from pipeline.shapes.scenes import KINDS
from pipeline.stage import run

TIE = "tie"


def conditions(trained: Network, params: Params) -> list[str]:
    """Every set of images that a network is tested on: test sets, then margin sets.

    The paper's networks see the test sets of all densities, variants that of their own.
    """
    tests = params.densities if trained.group == "paper" else [trained.density]
    return [
        *(split_name(density, "test") for density in tests),
        *margin_names(params.shapes),
    ]


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


def main(density: int, architecture: str = ARCHITECTURE, run: int = 0) -> str:
    params = load_params()
    trained = Network(density, architecture, run)
    name = f"shapes/predict/{trained.name}"
    training.configure(params.seed, name, params.threads)
    device = training.device()
    network = build_network(architecture)
    training.load_weights(trained.weights, network)
    network.to(device)

    sets = conditions(trained, params)
    checkpoint = training.Checkpoint(
        stage=name.replace("/", "."),
        settings=[params.threads, params.precision],
        inputs=[trained.weights, *map(shard_path, sets)],
    )
    logits: dict[str, torch.Tensor] = checkpoint.load() or {}  # [N, 2] by condition
    tables = []
    for condition in tqdm(sets, name, unit="set", disable=None, leave=False):
        images = load_images(condition)
        if condition not in logits:
            with training.autocast(params.precision, device):
                logits[condition] = predict_logits(network, torch.from_numpy(images.pixels))
            checkpoint.save_if_due(lambda: logits)
        tables.append(trials(trained.name, condition, images, logits[condition].numpy(), params.shapes.target))
    decisions = pd.concat(tables, ignore_index=True)
    write_predictions(trained.decisions, decisions.assign(**dataclasses.asdict(trained)))
    checkpoint.discard()
    return f"{len(decisions):,} decisions"


if __name__ == "__main__":
    run(main, density=int, architecture=str, run=int)
