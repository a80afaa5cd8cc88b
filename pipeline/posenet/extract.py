"""Feature maps of one frozen backbone, in every variant, for all images (posenet, section 2.1).

    python -m pipeline.posenet.extract --backbone vgg16

Once to disk, in the form that position is read from: training never runs the backbone again. A variant is
'trained-zeros', 'random-circular' and so on; of the pixels alone, 'raw' (0..255, as the reproduction's code) or
'normalised'. Rows are the images to train on, those held out, the same without texture, and the tests. A run that was
killed continues at the image where it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn
from tqdm import tqdm

from pipeline import training
from pipeline.padding import pad_with
from pipeline.params import Params, load_params
from pipeline.posenet import backbones
from pipeline.posenet.paths import IMAGES, features_path, layers_path
from pipeline.posenet.variants import variants_of, weights_of
from pipeline.stage import run, write_json

SPLITS = ("train", "held_out", "smooth", "test")
CALIBRATION = 32  # images that give a random network's batch normalisations their statistics
AT_ONCE = {"cpu": 16, "cuda": 64, "mps": 32}

Read = Callable[[Tensor], Tensor]


@cache
def unpadded(name: str, weights: str | None, seed: int, threads: int) -> nn.Module:
    """A backbone, with random weights for None, that all padding modes are made from."""
    training.configure(seed, f"posenet/{name}", threads)
    return backbones.load(name, weights) if weights else backbones.build(name)


def prepare(name: str, variant: str, params: Params, train: np.ndarray, device: torch.device) -> tuple[Read, dict]:
    """What turns pixels uint8 [B, 3, H, W] into features, and {layer: channels}."""
    size, how = params.posenet.map_size, params.posenet.readout
    if name == backbones.PIXELS:
        channels = partial(backbones.channels_of_pixels, size=size, normalised=variant == "normalised")
        return channels, {backbones.PIXELS: 3}
    state, padding = variant.split("-")
    weights = weights_of(name, params) if state == "trained" else None
    network = copy.deepcopy(unpadded(name, weights, params.seed, params.threads))
    network = pad_with(network, padding)
    network = network.to(device, memory_format=torch.channels_last)
    sample = torch.from_numpy(train[:CALIBRATION]).to(device)
    if state == "random":
        backbones.calibrate(name, network, sample)
    layers = backbones.node_names(name, params.posenet.layers.get(name))
    extractor: nn.Module = backbones.Extractor(name, network, layers, how, size)
    return extractor, extractor.channels(sample)


def extract(read: Read, pixels: np.ndarray, out: np.ndarray, first: int, done: Callable[[int], None]) -> None:
    """Write the features of images uint8 [N, 3, H, W] from number `first` on; `done(n)` after each batch."""
    device = training.device()
    at_once = AT_ONCE[device.type]
    for start in range(first, len(pixels), at_once):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + at_once])).to(device)
        with torch.inference_mode():
            out[start : start + at_once] = read(batch).cpu().numpy()
        done(start + len(batch))


def main(backbone: str) -> str:
    params = load_params()
    settings, device = params.posenet, training.device()
    parts = [np.load(IMAGES / f"{split}.npy") for split in SPLITS]
    train, pixels = parts[0], np.concatenate(parts)
    variants, weights = variants_of(backbone, params), weights_of(backbone, params)
    training.configure(params.seed, f"posenet/{backbone}", params.threads)
    checkpoint = training.Checkpoint(
        stage=f"posenet.extract.{backbone}",
        settings=[params.seed, params.threads, params.precision, settings, str(weights)],
        inputs=[*(IMAGES / f"{split}.npy" for split in SPLITS), Path(weights or "")],
    )
    state = checkpoint.load()
    # a run that was killed when it had begun to hand over its files has not all of them
    if state is None or not all(checkpoint.beside(f"{v}.npy").exists() for v in variants[: state["variant"] + 1]):
        state = {"variant": 0, "next": 0}
    dtype = np.float32 if settings.readout == "slices" else np.float16
    for place, variant in enumerate(tqdm(variants, f"posenet/{backbone}", disable=None, leave=False)):
        if place < state["variant"]:
            continue
        read, channels = prepare(backbone, variant, params, train, device)
        first = state["next"] if place == state["variant"] else 0
        partial_file = checkpoint.beside(f"{variant}.npy")
        partial_file.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(pixels), sum(channels.values()), settings.map_size, settings.map_size)
        out = open_memmap(partial_file, "r+" if first else "w+", dtype, shape)

        def done(number: int, place: int = place, out: np.memmap = out) -> None:
            if checkpoint.due:
                out.flush()
                checkpoint.save({"variant": place, "next": number})

        with training.autocast(params.precision, device):
            extract(read, pixels, out, first, done)
        out.flush()
    for variant in variants:
        features_path(backbone, variant).parent.mkdir(parents=True, exist_ok=True)
        checkpoint.beside(f"{variant}.npy").replace(features_path(backbone, variant))
    write_json(layers_path(backbone), channels)
    checkpoint.discard()
    return f"features of {len(pixels):,} images, {len(variants)} variants of {backbone}"


if __name__ == "__main__":
    run(main, backbone=str)
