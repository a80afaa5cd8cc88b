"""Training images a second, against the obvious loop, and peak memory.

    python -m benchmarks.training --resolution 256
    python -m benchmarks.training --memory          peak memory of training at `scale: paper`

Reference: fp32, NCHW, a DataLoader (no workers, as is its default) over one PNG file an image,
Adam as PyTorch sets it up. Ours: the step of pipeline.shapes.train, and the same without
pipeline.tiny_maps. Same network, batch and images; steps take turns, so that a machine that slows
down slows all; ratios are of medians.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, ToTensor

from benchmarks.common import SCENE, draw_scenes, seconds
from pipeline import training
from pipeline.localize.network import resnet18
from pipeline.params import load_params
from pipeline.shapes.network import build_network, majority_targets
from pipeline.shapes.scenes import render
from pipeline.shapes.train import update

OURS = "ours"


def draw(images: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, H, W] and margins [N]."""
    scenes = draw_scenes(images)
    pixels = np.stack([render(shapes, resolution, SCENE) for shapes in scenes])
    return pixels, np.array([shapes.circles - shapes.squares for shapes in scenes])


def reference_steps(folder: Path, batch_size: int) -> Iterator[None]:
    """One training step at each `next`."""
    transform = Compose([Grayscale(), ToTensor()])
    loader = DataLoader(ImageFolder(str(folder), transform), batch_size, shuffle=True, drop_last=True)
    network = resnet18().to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    while True:
        for x, y in loader:
            loss = nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def our_steps(network: nn.Module, pixels: np.ndarray, margins: np.ndarray, batch_size: int) -> Iterator[None]:
    """One training step at each `next`."""
    params = load_params()
    images, targets = torch.from_numpy(pixels), torch.from_numpy(majority_targets(margins, "hard"))
    settings = params.scales.paper.shapes.training
    optimizer, schedule = training.build_optimizer(network.parameters(), settings, 1000)
    while True:
        for batch in torch.randperm(len(images)).split(batch_size):
            update(network, optimizer, images[batch], targets[batch], params.precision)
            schedule.step()
            yield


def throughput(resolution: int, batch_size: int, rounds: int) -> None:
    torch.set_num_threads(load_params().threads)
    pixels, margins = draw(4 * batch_size, resolution)
    with tempfile.TemporaryDirectory() as folder:
        for i, (image, margin) in enumerate(zip(pixels, margins, strict=True)):
            path = Path(folder) / ("circle" if margin > 0 else "square") / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path)
        steps = {
            OURS: our_steps(build_network(), pixels, margins, batch_size),
            "without tiny_maps": our_steps(resnet18(), pixels, margins, batch_size),
            "fp32, NCHW, DataLoader over files": reference_steps(Path(folder), batch_size),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for i in range(rounds + 1):
            for name, step in steps.items():
                elapsed = seconds(lambda step=step: next(step))
                if i:  # the first is a warm-up
                    times[name].append(elapsed)
    rates = {name: batch_size / median(values) for name, values in times.items()}
    bf16 = "bf16" if training.multiplies_bf16(torch.device("cpu")) else "fp32: bf16 is not faster on this CPU"
    print(f"ResNet-18 on the CPU, {resolution} x {resolution}, batch {batch_size}, medians of {rounds} steps")
    for name, rate in rates.items():
        label, ratio = (f"{OURS} ({bf16})", "") if name == OURS else (name, f", ratio {rates[OURS] / rate:.2f}x")
        print(f"  {label:<52}{rate:>8.1f} images/s{ratio}")


def paper_memory() -> None:
    """Peak resident memory of a process that holds the paper's training images and makes three steps."""
    paper = load_params().scales.paper.shapes
    torch.set_num_threads(load_params().threads)
    pixels, margins = draw(64, paper.resolution)
    repeats = paper.images // 64 + 1
    pixels = np.tile(pixels, (repeats, 1, 1))[: paper.images]  # training and test images, as the stage holds them
    steps = our_steps(build_network(), pixels, np.tile(margins, repeats)[: paper.images], paper.training.batch_size)
    for _ in range(3):
        next(steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory at `scale: paper`, {len(pixels):,} images of {paper.resolution} px in memory: {peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        paper_memory()
    else:
        throughput(options.resolution, options.batch_size, options.rounds)


if __name__ == "__main__":
    main()
