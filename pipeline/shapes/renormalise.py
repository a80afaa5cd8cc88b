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

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.dataset import load_images
from pipeline.shapes.epochs import re_estimated
from pipeline.shapes.network import build_network, predict_logits
from pipeline.shapes.paths import Network, margin_name, split_name
from pipeline.shapes.predict import trials
from pipeline.shapes.readings import OWN, TESTED, renormalised
from pipeline.stage import run


def sets_of(density: int, params: Params) -> list[str]:
    """The test set and the margin sets of one density."""
    margins = params.shapes.margins if density in params.shapes.margin_densities else []
    return [split_name(density, "test"), *(margin_name(density, margin) for margin in margins)]


def main(density: int) -> str:
    params = load_params()
    training.configure(params.seed, f"shapes/renormalise/M{density}", params.threads)
    device, batch_size = training.device(), params.at_scale.shapes.training.batch_size
    first = params.at_scale.shapes.readings.statistics_images
    statistics, images = {}, {}
    for of in params.densities:
        statistics[of] = torch.from_numpy(load_images(split_name(of, "train"), first=first).pixels)
        images |= {condition: load_images(condition) for condition in sets_of(of, params)}
    tables = []
    for number in params.shapes.runs:
        trained = Network(density, run=number)
        network = build_network()
        training.load_weights(trained.weights, network)
        network.to(device)
        for reading, of in [(OWN, density), *((TESTED, of) for of in params.densities)]:
            adapted = re_estimated(network, statistics[of], batch_size=batch_size, precision=params.precision)
            for condition in images if reading == OWN else sets_of(of, params):
                with training.autocast(params.precision, device):
                    logits = predict_logits(adapted, torch.from_numpy(images[condition].pixels)).numpy()
                name = f"{trained.name}, {reading}"
                table = trials(name, condition, images[condition], logits, params.shapes.target)
                tables.append(table.assign(reading=reading, density=density, run=number))
    decisions = pd.concat(tables, ignore_index=True)
    write_predictions(renormalised(density), decisions)
    return f"{len(decisions):,} decisions"


if __name__ == "__main__":
    run(main, density=int)
