"""Put every network before its test sets and all margin sets, and record each decision.

python -m pipeline.shapes.predict --group paper       the paper's networks, one a density
python -m pipeline.shapes.predict --group variants    other architectures, and further training runs
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
from pipeline.shapes.paths import Network, margin_name, shard_path, split_name
from pipeline.shapes.scenes import KINDS
from pipeline.stage import run

TIE = "tie"


def members(group: str, params: Params) -> list[Network]:
    """The networks of a group, 'paper' or 'variants'."""
    if group == "paper":
        return [Network(density) for density in params.densities]
    variants = params.shapes.variants
    return [
        Network(variants.density, architecture, run) for architecture in variants.architectures for run in variants.runs
    ]


def conditions(group: str, params: Params) -> list[str]:
    """Every set of images that a group's networks are tested on: test sets, then margin sets."""
    study = params.shapes
    densities = params.densities if group == "paper" else [study.variants.density]
    tests = [split_name(density, "test") for density in densities]
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


def main(group: str) -> str:
    params = load_params()
    training.configure(params.seed, "shapes/predict", params.threads)
    device = training.device()
    observers = members(group, params)
    networks = []
    for trained in observers:
        networks.append(build_network(trained.architecture))
        training.load_weights(trained.weights, networks[-1])
        networks[-1].to(device)

    checkpoint = training.Checkpoint(
        stage=f"shapes.predict.{group}",
        settings=[params.threads, params.precision, *(trained.name for trained in observers)],
        inputs=[*(trained.weights for trained in observers), *map(shard_path, conditions(group, params))],
    )
    logits: dict[str, torch.Tensor] = checkpoint.load() or {}  # [networks, N, 2] by condition
    tables: dict[Network, list[pd.DataFrame]] = {trained: [] for trained in observers}
    for condition in tqdm(conditions(group, params), f"shapes/predict {group}", unit="set", disable=None, leave=False):
        images = load_images(condition)
        if condition not in logits:
            pixels = torch.from_numpy(images.pixels)
            with training.autocast(params.precision, device):
                logits[condition] = torch.stack([predict_logits(network, pixels) for network in networks])
            checkpoint.save_if_due(lambda: logits)
        for trained, answers in zip(observers, logits[condition].numpy(), strict=True):
            rows = trials(trained.name, condition, images, answers, params.shapes.target)
            tables[trained].append(rows.assign(**dataclasses.asdict(trained)))
    for trained, parts in tables.items():
        write_predictions(trained.predictions, pd.concat(parts, ignore_index=True))
    checkpoint.discard()
    decisions = sum(answers.shape[0] * answers.shape[1] for answers in logits.values())
    return f"{decisions:,} decisions of {len(networks)} networks"


if __name__ == "__main__":
    run(main, group=str)
