"""PosENet: feature extraction, and training the grid, against how the original code does it, on the CPU.

    python -m benchmarks.position

Extraction: five layers in one forward pass over batches, against a forward pass for each layer, image by image.
Grid: all cells on one backbone's features trained together, against one cell after another (torch's Conv2d and
Adam, a DataLoader over a TensorDataset), both on the same features in memory; a cell after another is timed on some
of the cells and scaled to all.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import seconds
from pipeline.params import load_params
from pipeline.posenet.backbones import Extractor, as_input, build, node_names
from pipeline.posenet.extract import AT_ONCE
from pipeline.posenet.network import ALL, Cell, PosENets, errors, grid, targets
from pipeline.posenet.patterns import pattern

STOPS = [5, 10, 17, 24, 31]  # of VGG16's modules, as the original code cuts them


@torch.inference_mode()
def layer_by_layer(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The reference: a network cut after each layer, run from the start for every image."""
    modules, images = list(network.features), []
    for image in pixels:
        maps = [nn.Sequential(*modules[:stop])(as_input("vgg16", image[None])) for stop in STOPS]
        volumes = [interpolate(m[None], size=[3, 28, 28], mode="trilinear", align_corners=False) for m in maps]
        images.append(torch.cat([volume.view(3, 28, 28) for volume in volumes]))
    return torch.stack(images)


@torch.inference_mode()
def at_once(extractor: Extractor, pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([extractor(batch) for batch in pixels.split(AT_ONCE["cpu"])])


def extraction(images: int, size: int) -> None:
    network = build("vgg16")
    plain = build("vgg16")
    plain.load_state_dict(network.state_dict())
    network = network.to(memory_format=torch.channels_last)
    extractor = Extractor("vgg16", network, node_names("vgg16", None), "slices", 28)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (images, 3, size, size), dtype=np.uint8))
    at_once(extractor, pixels[:8])
    layer_by_layer(plain, pixels[:1])
    found: dict[str, torch.Tensor] = {}
    ours = seconds(lambda: found.update(ours=at_once(extractor, pixels)))
    theirs = seconds(lambda: found.update(theirs=layer_by_layer(plain, pixels[: images // 3])))
    apart = (found["ours"][: images // 3] - found["theirs"]).abs().max().item()
    rates = images / ours, images // 3 / theirs
    print(f"features of VGG16, {size} x {size}, {images} and {images // 3} images; at most {apart:.1e} apart")
    report(rates, "images/s")
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, found["ours"].numpy())
        print(f"  read back from disk     {images / seconds(lambda: np.load(file.name)):>9.0f} images/s")


def report(rates: tuple[float, float], unit: str) -> None:
    for name, rate in zip(("ours", "the original's way"), rates, strict=True):
        print(f"  {name:<24}{rate:>9.2f} {unit}")
    print(f"  ratio {rates[0] / rates[1]:.1f}x")


def alone(cell: Cell, features: torch.Tensor, epochs: int, batch_size: int, rate: float) -> None:
    """The reference: one position network, as the original code trains it."""
    side = features.shape[-1] - cell.kernel + 1 + 2 * cell.padding
    target = torch.from_numpy(pattern(cell.pattern, side))[None, None]
    network = nn.Conv2d(features.shape[1], 1, cell.kernel, padding=cell.padding)
    optimizer = torch.optim.Adam(network.parameters(), rate, weight_decay=1e-4)
    for _ in range(epochs):
        for (batch,) in DataLoader(TensorDataset(features), batch_size, shuffle=True, drop_last=True):
            loss = mse_loss(network(batch), target.expand(len(batch), -1, -1, -1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def together(cells: list[Cell], features: torch.Tensor, epochs: int, batch_size: int, rate: float) -> None:
    network = PosENets(cells, {"conv1": features.shape[1]}, 0)
    optimizer = torch.optim.Adam(network.parameters(), rate, weight_decay=1e-4, fused=True)
    with torch.no_grad():
        wanted = targets(network(features[:1]))
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(batch_size):
            if len(batch) == batch_size:
                loss = errors(network(features[batch]), wanted).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def training(images: int, epochs: int) -> None:
    params = load_params()
    settings, batch_size, rate = params.posenet, 4, 1e-3
    features = torch.rand(images, 15, settings.map_size, settings.map_size)
    cells = grid(["conv1"], settings.patterns, settings.kernel_sizes, settings.paddings, runs=1)
    sample = [cell for cell in cells if cell.pattern == "H" and cell.inputs == ALL]
    together(cells, features[:8], 1, batch_size, rate)
    ours = seconds(lambda: together(cells, features, epochs, batch_size, rate))
    theirs = seconds(lambda: [alone(cell, features, epochs, batch_size, rate) for cell in sample])
    theirs *= len(cells) / len(sample)
    print(f"grid of {len(cells)} cells, {images} images, {epochs} epochs, batches of {batch_size}, 15 channels")
    report((len(cells) / ours, len(cells) / theirs), "cells/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--training-images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(load_params().threads)
    torch.manual_seed(0)
    extraction(options.images, options.size)
    training(options.training_images, options.epochs)


if __name__ == "__main__":
    main()
