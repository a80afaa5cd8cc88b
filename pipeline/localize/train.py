"""Train one counter on purpose: by regression, detection or segmentation (convnets-in-vision, 'Object Detection').

    python -m pipeline.localize.train --counter ssd
    python -m pipeline.localize.train --counter ssd --run 1

Each learns from the images that one network of the shapes study was trained on; some are held out, to choose the
threshold from which a box, or a component, counts as a shape. Another run varies all that chance decides in training:
initial weights, order of the images.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline import stage, training
from pipeline.localize.counter import Counter
from pipeline.localize.counters import build, choose_threshold, find
from pipeline.localize.network import count_flops
from pipeline.localize.paths import curve_path, training_metrics, weights_path
from pipeline.localize.scenes import Scenes, load, shard_path
from pipeline.params import load_params
from pipeline.shards import item_rng
from pipeline.stage import write_bytes, write_json
from pipeline.tiny_maps import quicken


def cost(network: Counter, scenes: Scenes, device: torch.device) -> dict[str, float]:
    """Parameters, and floating-point operations for one image: to look at it, and to learn from it.

    The network's batch normalisations are changed.
    """
    looking = count_flops(lambda: find(network, scenes, device))
    pixels = torch.from_numpy(scenes.pixels).to(device)
    network.train()
    learning = count_flops(lambda: network.loss(pixels, scenes.shapes)["loss"].backward())
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflops_to_look": looking / len(scenes) / 1e9,
        "gflops_to_learn": learning / len(scenes) / 1e9,
    }


def main(counter: str, run: int = 0) -> str:
    params = load_params()
    study, scale = params.localize, params.at_scale.localize
    if counter not in study.counters:
        raise stage.UserError(f"params.yaml: localize.counters has no '{counter}', only {', '.join(study.counters)}")
    settings = scale.training[counter]
    name, images = f"localize/train/{counter}", f"train/density-{study.density}"
    if run:  # run 0 has the random numbers of the time before there were others
        name = f"{name}/run-{run}"
    training.configure(params.seed, name, params.threads)
    device = training.device()

    scenes = load(images, params.shapes.scene.canvas, settings.images + scale.held_out)
    train, held_out = scenes[: settings.images], scenes[settings.images :]
    network = build(counter, params)
    network.prepare(train.counts)
    quicken(network).to(device)
    pixels = torch.from_numpy(train.pixels).to(device)
    epoch_steps = len(train) // settings.batch_size  # a last, smaller batch is left out
    steps = settings.epochs * epoch_steps
    optimizer, schedule = training.build_optimizer(network.parameters(), settings, steps)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return item_rng(params.seed, f"{name}/epoch-{epoch}").permutation(len(train))

    def step(i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, epoch_steps)
        batch = order(epoch)[place * settings.batch_size :][: settings.batch_size]
        # of every device, which a checkpoint does not hold: dropout, and Faster R-CNN's sampling
        torch.manual_seed(int(item_rng(params.seed, f"{name}/step-{i}").integers(2**63)))
        with training.autocast(params.precision, device):
            losses = network.loss(pixels[batch], [train.shapes[k] for k in batch])
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        schedule.step()
        return losses

    def evaluate() -> dict[str, float]:
        with training.autocast(params.precision, device):
            threshold, error = choose_threshold(network, find(network, held_out, device), held_out.counts)
        return {"held_out_error": error, "threshold": threshold}

    checkpoint = training.Checkpoint(
        stage=name.replace("/", "."),
        settings=[params.seed, params.threads, params.precision, study, scale, settings],
        inputs=[shard_path(images)],
    )
    network.train()
    history = training.fit(
        step,
        steps=steps,
        state={"network": network, "optimizer": optimizer, "schedule": schedule},
        checkpoint=checkpoint,
        evaluate=evaluate,
        evaluate_every=epoch_steps,
        label=name,
    )

    training.save_weights(weights_path(counter, run), network)
    curve = training.learning_curve(history.steps)
    curve.insert(0, "counter", counter)
    curve.insert(1, "run", run)
    curve.insert(2, "images_seen", curve.pop("step") * settings.batch_size)
    write_bytes(curve_path(counter, run), curve.to_csv(index=False).encode())
    last = history.evaluations[-1]
    plain = build(counter, params).to(device)
    plain.load_state_dict(network.state_dict())
    write_json(
        training_metrics(counter, run),
        {
            "threshold": last["threshold"],
            "held_out_error": last["held_out_error"],
            "images_seen": steps * settings.batch_size,
            **cost(plain, train[: settings.batch_size], device),
            "epochs": history.evaluations,
        },
    )
    checkpoint.discard()
    return f"{steps:,} steps of {settings.batch_size} images, counts off by {last['held_out_error']:.2f},"


if __name__ == "__main__":
    stage.run(main, counter=str, run=int)
