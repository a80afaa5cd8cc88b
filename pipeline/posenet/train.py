"""Train every position network: patterns x kernel sizes x paddings x layers, on every backbone's features.

    python -m pipeline.posenet.train

As published (section 2.4): Adam, learning rate 1e-3, weight decay 1e-4, 15 epochs, mean squared error; batches of
4, as in the reproduction's code. Several runs of each cell, which differ in their first weights, because the
document has one.

And each cell's optimum in closed form, the least squares on the same images. Training as published may not come near
it: Adam's steps are of one size whatever the scale of the features, which differs between networks by a factor of 30
and more. What features hold, and what this training reads from them, are two questions.

The networks of Table 2 are also trained by stochastic gradient descent, as the original's authors did (section 2.4),
from the same first weights and on the same batches: at Adam's learning rate, and at that of the authors' own code
(github.com/SenJia/Position-Information, train_network.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.posenet.network import PosENets, errors, grid, solve, targets
from pipeline.posenet.paths import (
    ADAM,
    ALL,
    COUNTER,
    DESCENTS,
    FIRST,
    IMAGES,
    METRICS,
    OPTIMUM,
    PLOTS,
    SGD,
    features_path,
    layers_path,
    weights_path,
)
from pipeline.posenet.variants import variants_of
from pipeline.shards import item_rng
from pipeline.stage import run, write_bytes, write_json

MOST_INPUTS = 2500  # of a cell that is solved; the sums of more would take gigabytes


def variants(params: Params) -> list[tuple[str, str]]:
    """(backbone, variant) of all features, in order."""
    backbones = [*params.posenet.backbones, COUNTER]
    return [(backbone, variant) for backbone in backbones for variant in variants_of(backbone, params)]


def has_zeros(variant: str) -> bool:
    """Whether a variant is padded as its backbone was trained; pixels have no padding."""
    return not variant.endswith(("reflect", "circular"))


def build(backbone: str, variant: str, reading: str, params: Params) -> PosENets:
    """The position networks of a backbone, as they begin; reading: 'adam', or 'optimum', which has one run.

    The whole grid as the document has it, on features with zero padding; on those with another, which only the
    comparison with zeros needs, and for gradient descent, all layers by 3 x 3 kernels without padding.
    """
    settings, runs = params.posenet, 1 if reading == OPTIMUM else params.at_scale.posenet.runs
    channels = json.loads(layers_path(backbone).read_text())
    if reading in (FIRST, *DESCENTS) or not has_zeros(variant):
        cells = grid([], settings.patterns, [3], [0], runs)
    else:
        cells = grid(channels, settings.patterns, settings.kernel_sizes, settings.paddings, runs)
    if reading == OPTIMUM:
        read = {**channels, ALL: sum(channels.values())}
        cells = [cell for cell in cells if read[cell.inputs] * cell.kernel**2 <= MOST_INPUTS]
    return PosENets(cells, channels, params.seed)


def learning_rates(reading: str, params: Params) -> list[float]:
    """Of gradient descent, one an epoch."""
    settings, scale = params.posenet.training.sgd, params.at_scale.posenet
    if reading == SGD:
        return [scale.learning_rate] * scale.epochs
    return [settings.learning_rate * (1 if epoch < settings.tenth_after else 0.1) for epoch in range(scale.epochs)]


def descend(
    network: PosENets, features: Tensor, rates: list[float], order: Callable[[int], Tensor], params: Params
) -> None:
    """Train by stochastic gradient descent on features [N, channels, S, S]; order: of an epoch's images [N].

    Where it diverges, the weights are not finite.
    """
    settings, batch_size = params.posenet.training, params.at_scale.posenet.batch_size
    momentum = settings.sgd.momentum
    optimizer = torch.optim.SGD(network.parameters(), rates[0], momentum, weight_decay=settings.weight_decay)
    with torch.no_grad():
        wanted = targets(network(features[:1].float()))
    for epoch, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        for batch in range(max(len(features) // batch_size, 1)):
            chosen = order(epoch)[batch * batch_size :][:batch_size]
            optimizer.zero_grad()
            errors(network(features[chosen].float()), wanted).sum().backward()
            optimizer.step()


def main() -> str:
    params = load_params()
    settings, scale = params.posenet.training, params.at_scale.posenet
    training.configure(params.seed, "posenet/train", params.threads)
    device = training.device()
    names = variants(params)
    networks = nn.ModuleList(build(*name, ADAM, params) for name in names).to(device)
    images = len(np.load(IMAGES / "train.npy", mmap_mode="r"))
    epoch_steps = max(images // scale.batch_size, 1)  # a last, smaller batch is left out
    steps = scale.epochs * epoch_steps
    # a network's parameters have a gradient, and are touched, in its own steps only
    optimizer = torch.optim.Adam(
        networks.parameters(), scale.learning_rate, weight_decay=settings.weight_decay, fused=True
    )

    @lru_cache(maxsize=1)
    def features(place: int) -> Tensor:
        return torch.from_numpy(np.load(features_path(*names[place]), mmap_mode="r")[:images].copy()).to(device)

    @lru_cache(maxsize=1)
    def wanted(place: int) -> list[Tensor]:
        with torch.no_grad():
            return targets(networks[place](features(place)[:1].float()))

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return torch.from_numpy(item_rng(params.seed, f"posenet/epoch-{epoch}").permutation(images)).to(device)

    def step(i: int) -> dict[str, Tensor]:
        place, own = divmod(i, steps)
        epoch, batch = divmod(own, epoch_steps)
        chosen = order(epoch)[batch * scale.batch_size :][: scale.batch_size]
        found = errors(networks[place](features(place)[chosen].float()), wanted(place))
        optimizer.zero_grad()
        found.sum().backward()
        optimizer.step()
        return {"loss": found.detach().mean()}

    checkpoint = training.Checkpoint(
        stage="posenet.train",
        settings=[params.seed, params.threads, params.posenet, scale],
        inputs=[*(features_path(*name) for name in names), IMAGES / "train.npy"],
    )
    history = training.fit(
        step,
        steps=len(names) * steps,
        state={"networks": networks, "optimizer": optimizer},
        checkpoint=checkpoint,
        evaluate=dict,
        evaluate_every=len(names) * steps,
        label="posenet/train",
    )
    curves = []
    for place, ((backbone, variant), network) in enumerate(zip(names, networks, strict=True)):
        training.save_weights(weights_path(backbone, variant, ADAM), network)
        curve = training.learning_curve(history.steps[place * steps : (place + 1) * steps])
        curves.append(curve.assign(backbone=backbone, variant=variant))
    write_bytes(PLOTS / "training.csv", pd.concat(curves).to_csv(index=False).encode())
    for place, (backbone, variant) in enumerate(tqdm(names, "posenet/optimum, sgd", disable=None, leave=False)):
        best = build(backbone, variant, OPTIMUM, params).to(device)
        solve(best, features(place).float())
        training.save_weights(weights_path(backbone, variant, OPTIMUM), best)
        for reading in DESCENTS if has_zeros(variant) else ():
            descended = build(backbone, variant, reading, params).to(device)
            descend(descended, features(place), learning_rates(reading, params), order, params)
            training.save_weights(weights_path(backbone, variant, reading), descended)
    cells = sum(weight.shape[0] for network in networks for weight in network.weights.values())
    last = {"/".join(name): curve["loss"].iloc[-1] for name, curve in zip(names, curves, strict=True)}
    write_json(METRICS / "training.json", {"cells": cells, "steps": steps, "images": images, "loss": last})
    checkpoint.discard()
    return f"{cells:,} position networks, {steps:,} steps each,"


if __name__ == "__main__":
    run(main)
