"""Train one network to choose the majority shape (implicit-counting, Method; Fig. 1).

    python -m pipeline.shapes.train --density 50
    python -m pipeline.shapes.train --density 50 --run 1
    python -m pipeline.shapes.train --density 50 --architecture regnet_y_400mf --run 2

The first is the paper's: a ResNet-18. The second varies all that chance decides in training (initial weights, order of
the images), the third the architecture too. At `scale: paper` as published: 12 epochs, batch
64, learning rate 2e-4, cross entropy. Every epoch's answers are recorded (pipeline/shapes/epochs.py).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline import stage, training
from pipeline.params import load_params
from pipeline.shapes.dataset import load_images
from pipeline.shapes.epochs import EpochRecord
from pipeline.shapes.network import as_input, build_network, credit, majority_targets
from pipeline.shapes.paths import ARCHITECTURE, Network, margin_names, shard_path, split_name
from pipeline.shards import item_rng
from pipeline.stage import write_bytes, write_json


def update(
    network: nn.Module, optimizer: torch.optim.Optimizer, pixels: Tensor, targets: Tensor, precision: str
) -> dict[str, Tensor]:
    """One training step on a batch. pixels: uint8 [B, H, W]; targets: class probabilities [B, 2]."""
    with training.autocast(precision, pixels.device):
        logits = network(as_input(pixels)).float()
        loss = cross_entropy(logits, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss, "accuracy": credit(logits, targets).mean()}


def main(density: int, architecture: str = ARCHITECTURE, run: int = 0) -> str:
    params = load_params()
    settings, readings = params.at_scale.shapes.training, params.at_scale.shapes.readings
    trained = Network(density, architecture, run)
    name = f"shapes/train/{trained.name}"
    training.configure(params.seed, name, params.threads)
    device = training.device()

    train, test = (load_images(split_name(density, split)) for split in ("train", "test"))
    pixels = torch.from_numpy(train.pixels).to(device)
    targets = torch.from_numpy(majority_targets(train.margins, params.shapes.target)).to(device)
    chosen = item_rng(params.seed, f"{name}/statistics").permutation(len(pixels))[: readings.statistics_images]
    margins = margin_names(params.shapes)
    record = EpochRecord(
        {
            split_name(density, "test"): test,
            **{name: load_images(name, first=readings.margin_images) for name in margins},
        },
        targets=torch.from_numpy(majority_targets(test.margins, params.shapes.target)),
        statistics=pixels[chosen],
        batch_size=settings.batch_size,
        precision=params.precision,
    )

    network = build_network(architecture).to(device)
    precision = training.learning_precision(params.precision, network, device)
    look = training.compiled(network, device)
    epoch_steps = len(pixels) // settings.batch_size  # a last, smaller batch is left out
    steps = settings.epochs * epoch_steps
    optimizer, schedule = training.build_optimizer(network.parameters(), settings, steps)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return torch.from_numpy(item_rng(params.seed, f"{name}/epoch-{epoch}").permutation(len(pixels))).to(device)

    def step(i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, epoch_steps)
        batch = order(epoch)[place * settings.batch_size :][: settings.batch_size]
        values = update(look, optimizer, pixels[batch], targets[batch], precision)
        schedule.step()
        return values

    checkpoint = training.Checkpoint(
        stage=name.replace("/", "."),
        settings=[params.seed, params.threads, params.precision, params.shapes.target, settings, readings],
        inputs=[*(shard_path(split_name(density, split)) for split in ("train", "test")), *map(shard_path, margins)],
    )
    history = training.fit(
        step,
        steps=steps,
        state={"network": network, "optimizer": optimizer, "schedule": schedule, "record": record},
        checkpoint=checkpoint,
        evaluate=lambda: record.read(network),
        evaluate_every=epoch_steps,
        label=name,
    )

    record.write(trained.epochs)
    training.save_weights(trained.weights, network)
    curve = training.learning_curve(history.steps)
    curve.insert(0, "network", density)
    curve.insert(1, "architecture", architecture)
    curve.insert(2, "run", run)
    curve.insert(3, "images_seen", curve.pop("step") * settings.batch_size)
    write_bytes(trained.curve, curve.to_csv(index=False).encode())
    epochs = history.evaluations
    write_json(trained.training_metrics, {**epochs[-1], "epochs": epochs})
    checkpoint.discard()
    return f"{steps:,} steps of {settings.batch_size} images, test accuracy {epochs[-1]['test_accuracy']:.3f},"


if __name__ == "__main__":
    stage.run(main, density=int, architecture=str, run=int)
