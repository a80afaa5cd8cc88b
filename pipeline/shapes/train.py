"""Train one ResNet-18 to choose the majority shape (implicit-counting, Method; Fig. 1).

    python -m pipeline.shapes.train --density 50

At `scale: paper` as published: 12 epochs, batch 64, learning rate 2e-4, cross entropy.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from pipeline import training
from pipeline.params import load_params
from pipeline.shapes.dataset import load_images
from pipeline.shapes.network import as_input, build_network, credit, majority_targets, predict_logits
from pipeline.shapes.paths import curve_path, shard_path, split_name, training_metrics_path, weights_path
from pipeline.shards import item_rng
from pipeline.stage import run, write_bytes, write_json

CURVE_POINTS = 40  # of a loss curve, each the mean of as many steps


def learning_curve(steps: list[dict[str, float]], density: int, batch_size: int) -> pd.DataFrame:
    """Loss and accuracy over training, averaged over stretches of about equal length."""
    rows = [
        {
            "network": density,
            "images_seen": int(stretch[-1] + 1) * batch_size,
            "loss": np.mean([steps[i]["loss"] for i in stretch]),
            "accuracy": np.mean([steps[i]["accuracy"] for i in stretch]),
        }
        for stretch in np.array_split(np.arange(len(steps)), min(CURVE_POINTS, len(steps)))
    ]
    return pd.DataFrame(rows).round(6)


def main(density: int) -> str:
    params = load_params()
    settings = params.at_scale.shapes.training
    name = f"shapes/train/density-{density}"
    training.configure(params.seed, name, params.threads)
    device = training.device()

    train, test = (load_images(split_name(density, split)) for split in ("train", "test"))
    pixels, test_pixels = (torch.from_numpy(images.pixels).to(device) for images in (train, test))
    targets = torch.from_numpy(majority_targets(train.margins, params.shapes.target)).to(device)
    test_targets = torch.from_numpy(majority_targets(test.margins, params.shapes.target))

    network = build_network().to(device)
    epoch_steps = len(pixels) // settings.batch_size  # a last, smaller batch is left out
    steps = settings.epochs * epoch_steps
    optimizer, schedule = training.build_optimizer(network.parameters(), settings, steps)

    def step(i: int) -> dict[str, torch.Tensor]:
        epoch, place = divmod(i, epoch_steps)
        order = item_rng(params.seed, f"{name}/epoch-{epoch}").permutation(len(pixels))
        batch = torch.from_numpy(order[place * settings.batch_size :][: settings.batch_size]).to(device)
        with training.autocast(params.precision, device):
            logits = network(as_input(pixels[batch])).float()
            loss = cross_entropy(logits, targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss, "accuracy": credit(logits, targets[batch]).mean()}

    def evaluate() -> dict[str, float]:
        with training.autocast(params.precision, device):
            logits = predict_logits(network, test_pixels)
        loss = cross_entropy(logits, test_targets).item()
        return {"test_loss": loss, "test_accuracy": credit(logits, test_targets).mean().item()}

    checkpoint = training.Checkpoint(
        stage=name.replace("/", "."),
        settings=[params.seed, params.threads, params.precision, params.shapes.target, settings],
        inputs=[shard_path(split_name(density, split)) for split in ("train", "test")],
    )
    history = training.fit(
        step,
        steps=steps,
        state={"network": network, "optimizer": optimizer, "schedule": schedule},
        checkpoint=checkpoint,
        evaluate=evaluate,
        evaluate_every=epoch_steps,
        label=name,
    )

    training.save_weights(weights_path(density), network)
    curve = learning_curve(history.steps, density, settings.batch_size)
    write_bytes(curve_path(density), curve.to_csv(index=False).encode())
    epochs = [{name: round(value, 6) for name, value in row.items()} for row in history.evaluations]
    write_json(training_metrics_path(density), {**epochs[-1], "epochs": epochs})
    checkpoint.discard()
    return f"{steps:,} steps of {settings.batch_size} images, test accuracy {epochs[-1]['test_accuracy']:.3f},"


if __name__ == "__main__":
    run(main, density=int)
