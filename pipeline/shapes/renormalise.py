"""What a density's network answers once batch normalisation has seen other images (no document; see below).

    python -m pipeline.shapes.renormalise --density 50

The weights stay. Batch normalisation's running statistics are estimated anew on training images, without their labels,
by forward passes only (pipeline/shapes/epochs.py):

own density       on images of the density that the network was trained on
tested density    on images of the density that it is tested on, each test set with statistics of its own

That networks adapt so to images that differ from their training images is known as AdaBN (Li et al., 2016,
arXiv:1603.04779), on corrupted images Schneider et al. (2020, arXiv:2006.16971). Test sets and margin sets of densities
that have training images are answered, by every training run.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.answers import OWN, TESTED, renormalised
from pipeline.shapes.dataset import load_images
from pipeline.shapes.epochs import re_estimated
from pipeline.shapes.network import build_network, predict_logits
from pipeline.shapes.paths import Network, margin_name, split_name
from pipeline.shapes.predict import trials
from pipeline.stage import run


def sets_of(density: int, params: Params) -> list[str]:
    """The test set and the margin sets of one density."""
    margins = params.shapes.margins if density in params.shapes.margin_densities else []
    return [split_name(density, "test"), *(margin_name(density, margin) for margin in margins)]


def answers(network: nn.Module, sets: list[str], statistics: Tensor, params: Params) -> dict[str, Tensor]:
    """Logits [N, 2] of each set, with statistics of these images, uint8 [M, H, W]."""
    batch_size = params.at_scale.shapes.training.batch_size
    adapted = re_estimated(network, statistics, batch_size=batch_size, precision=params.precision)
    with training.autocast(params.precision, training.device()):
        return {of: predict_logits(adapted, torch.from_numpy(load_images(of).pixels)) for of in sets}


def main(density: int) -> str:
    params = load_params()
    training.configure(params.seed, f"shapes/renormalise/M{density}", params.threads)
    first = params.at_scale.shapes.readings.statistics_images
    statistics = {
        of: torch.from_numpy(load_images(split_name(of, "train"), first=first).pixels) for of in params.densities
    }
    tables = []
    for number in params.shapes.runs:
        trained = Network(density, run=number)
        network = build_network()
        training.load_weights(trained.weights, network)
        network.to(training.device())
        found = {(OWN, of): answers(network, sets_of(of, params), statistics[density], params) for of in statistics}
        found |= {(TESTED, of): answers(network, sets_of(of, params), statistics[of], params) for of in statistics}
        for (reading, _), logits_of in found.items():
            for condition, logits in logits_of.items():
                name = f"{trained.name}, {reading}"
                table = trials(name, condition, load_images(condition), logits.numpy(), params.shapes.target)
                tables.append(table.assign(reading=reading, density=density, run=number))
    decisions = pd.concat(tables, ignore_index=True)
    write_predictions(renormalised(density), decisions)
    return f"{len(decisions):,} decisions"


if __name__ == "__main__":
    run(main, density=int)
