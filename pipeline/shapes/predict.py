"""Put every network before every test set and margin set, and record each decision.

python -m pipeline.shapes.predict
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.dataset import Images, load_images
from pipeline.shapes.network import build_network, predict_logits
from pipeline.shapes.paths import margin_name, observer, predictions_path, shard_path, split_name, weights_path
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


def main() -> str:
    params = load_params()
    training.configure(params.seed, "shapes/predict", params.threads)
    device = training.device()
    networks = []
    for density in params.densities:
        networks.append(build_network())
        training.load_weights(weights_path(density), networks[-1])
        networks[-1].to(device)

    checkpoint = training.Checkpoint(
        stage="shapes.predict",
        settings=[params.threads, params.precision, str(params.densities)],
        inputs=[*map(weights_path, params.densities), *map(shard_path, conditions(params))],
    )
    logits: dict[str, torch.Tensor] = checkpoint.load() or {}  # [networks, N, 2] by condition
    tables: dict[int, list[pd.DataFrame]] = {density: [] for density in params.densities}
    for condition in tqdm(conditions(params), "shapes/predict", unit="set", disable=None, leave=False):
        images = load_images(condition)
        if condition not in logits:
            pixels = torch.from_numpy(images.pixels)
            with training.autocast(params.precision, device):
                logits[condition] = torch.stack([predict_logits(network, pixels) for network in networks])
            checkpoint.save_if_due(logits)
        for density, answers in zip(params.densities, logits[condition].numpy(), strict=True):
            tables[density].append(trials(observer(density), condition, images, answers, params.shapes.target))
    for density, parts in tables.items():
        write_predictions(predictions_path(density), pd.concat(parts, ignore_index=True))
    checkpoint.discard()
    decisions = sum(answers.shape[0] * answers.shape[1] for answers in logits.values())
    return f"{decisions:,} decisions of {len(networks)} networks"


if __name__ == "__main__":
    run(main)
