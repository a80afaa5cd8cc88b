"""Train a guest as the paper's networks are trained, on the images of shapes.variants.density; or take it as it is.

    python -m pipeline.shapes.train_guest --name blob

With `train: true` it begins from its `weights`, if there are any. Of a guest that comes as it is, the weights are
written as they came.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pipeline import training
from pipeline.params import load_params
from pipeline.shapes.dataset import load_images
from pipeline.shapes.epochs import EpochRecord
from pipeline.shapes.guests import Places, blamed, load_weights, open_guest, save_weights
from pipeline.shapes.network import majority_targets
from pipeline.shapes.paths import shard_path, split_name
from pipeline.shapes.train import update
from pipeline.shards import item_rng
from pipeline.stage import run, write_json


def main(name: str) -> str:
    params, places, device = load_params(), Places(name), training.device()
    settings, readings = params.at_scale.shapes.training, params.at_scale.shapes.readings
    guest, seated, _ = open_guest(name, params, device)
    if guest.weights:
        load_weights(guest.weights, seated)
    if not guest.train:
        save_weights(places.weights, seated)
        write_json(places.training, {"trained": False})
        return "taken as it is"

    density, label = params.shapes.variants.density, f"shapes/train_guest/{name}"
    train, test = (load_images(split_name(density, split)) for split in ("train", "test"))
    pixels = torch.from_numpy(train.pixels).to(device)
    targets = torch.from_numpy(majority_targets(train.margins, params.shapes.target)).to(device)
    chosen = item_rng(params.seed, f"{label}/statistics").permutation(len(pixels))[: readings.statistics_images]
    record = EpochRecord(
        {split_name(density, "test"): test},
        targets=torch.from_numpy(majority_targets(test.margins, params.shapes.target)),
        statistics=pixels[chosen],
        batch_size=settings.batch_size,
        precision=params.precision,
    )
    precision = training.learning_precision(params.precision, seated, device)
    epoch_steps = len(pixels) // settings.batch_size  # a last, smaller batch is left out
    steps = settings.epochs * epoch_steps
    learning = [parameter for parameter in seated.network.parameters() if parameter.requires_grad]
    optimizer, schedule = training.build_optimizer(learning, settings, steps)
    seated.train()

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return torch.from_numpy(item_rng(params.seed, f"{label}/epoch-{epoch}").permutation(len(pixels))).to(device)

    def step(i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, epoch_steps)
        batch = order(epoch)[place * settings.batch_size :][: settings.batch_size]
        with blamed(guest.build, "training"):
            values = update(seated, optimizer, pixels[batch], targets[batch], precision)
        schedule.step()
        return values

    checkpoint = training.Checkpoint(
        stage=label.replace("/", "."),
        settings=[params.seed, params.threads, params.precision, params.shapes.target, settings, readings],
        inputs=[places.found, *(shard_path(split_name(density, split)) for split in ("train", "test"))],
    )
    history = training.fit(
        step,
        steps=steps,
        state={"network": seated, "optimizer": optimizer, "schedule": schedule, "record": record},
        checkpoint=checkpoint,
        evaluate=lambda: record.read(seated),
        evaluate_every=epoch_steps,
        label=label,
    )
    epochs = history.evaluations
    save_weights(places.weights, seated)
    write_json(places.training, {"trained": True, "density": density, **epochs[-1], "epochs": epochs})
    checkpoint.discard()
    return f"{steps:,} steps of {settings.batch_size} images, test accuracy {epochs[-1]['test_accuracy']:.3f},"


if __name__ == "__main__":
    run(main, name=str)
