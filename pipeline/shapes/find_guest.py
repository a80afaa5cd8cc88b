"""Look at a guest before it takes the test: is it there, does it answer, and of what code and weights is it?

    python -m pipeline.shapes.find_guest --name blob

Runs at every `dvc repro`, since DVC does not know a guest's files. What it writes changes only where they do, so that
training, answers and comparison follow only then.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline import training
from pipeline.params import load_params
from pipeline.shapes.guests import Places, build_guest, check, code_of, digest, load_weights, named
from pipeline.shards import item_rng
from pipeline.stage import run, write_json

NOISE = 2  # images, beside a black one and a white one


def main(name: str) -> str:
    params = load_params()
    guest = named(params, name)
    training.configure(params.seed, f"shapes/guests/{name}", params.threads)
    seated = build_guest(guest)
    if guest.weights:
        load_weights(guest.weights, seated)
    side = params.at_scale.shapes.resolution
    noise = item_rng(params.seed, "shapes/find_guest").integers(256, size=(NOISE, side, side), dtype="uint8")
    black, white = torch.zeros(1, side, side, dtype=torch.uint8), torch.full((1, side, side), 255, dtype=torch.uint8)
    parameters = sum(parameter.numel() for parameter in seated.network.parameters())
    check(seated, torch.cat([torch.from_numpy(noise), black, white]), guest.train)
    if parameters and not guest.weights and not guest.train:
        print(
            f"warning: {name}: no weights and train: false: its {parameters:,} parameters are as {guest.build} set them"
        )
    write_json(
        Places(name).found,
        {
            "guest": guest.model_dump(),
            "parameters": parameters,
            "code": code_of(guest),
            "weights": {guest.weights: digest(Path(guest.weights))} if guest.weights else {},
        },
    )
    return f"{guest.build}, {parameters:,} parameters, found"


if __name__ == "__main__":
    run(main, name=str)
