"""Images rendered a second, against the obvious loops.

    python -m benchmarks.rendering

All draw the same scenes of density 50 at 256 x 256. References: NumPy masks over the whole canvas,
shape by shape (hard edges); Pillow on a canvas four times as wide, averaged down (anti-aliased, as
ours); and each of them with what follows in practice, a PNG file an image, against our stage: the
same images, drawn by all cores, PNG in one shard. The methods take turns, so that a machine that
slows down slows all; the ratio is that of the medians.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.common import COUNTS, SCENE, draw_scenes, seconds
from pipeline.shapes.dataset import draw_sample
from pipeline.shapes.scenes import CIRCLE, Shapes, render
from pipeline.shards import cores, process_pool, write_shard

RESOLUTION, IMAGES, ROUNDS = 256, 200, 5
STAGE_IMAGES = 4000


def with_numpy(shapes: Shapes) -> np.ndarray:
    image = np.zeros((RESOLUTION, RESOLUTION), np.uint8)
    rows, columns = np.mgrid[:RESOLUTION, :RESOLUTION] + 0.5
    for kind, x, y, size in zip(shapes.kind, shapes.x, shapes.y, shapes.size, strict=True):
        if kind == CIRCLE:
            image[(columns - x) ** 2 + (rows - y) ** 2 <= size**2] = 255
        else:
            image[(abs(columns - x) <= size / 2) & (abs(rows - y) <= size / 2)] = 255
    return image


def with_pillow(shapes: Shapes) -> np.ndarray:
    factor = 4
    image = Image.new("L", (RESOLUTION * factor, RESOLUTION * factor))
    canvas = ImageDraw.Draw(image)
    for kind, x, y, size in zip(shapes.kind, shapes.x, shapes.y, shapes.size, strict=True):
        half = size if kind == CIRCLE else size / 2
        box = [factor * (x - half), factor * (y - half), factor * (x + half), factor * (y + half)]
        (canvas.ellipse if kind == CIRCLE else canvas.rectangle)(box, fill=255)
    return np.asarray(image.resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX))


def with_ours(shapes: Shapes) -> np.ndarray:
    return render(shapes, RESOLUTION, SCENE)


def to_files(method: Callable[[Shapes], np.ndarray], scenes: list[Shapes], folder: Path) -> None:
    for i, shapes in enumerate(scenes):
        Image.fromarray(method(shapes)).save(folder / f"{i}.png")


def report(title: str, times: dict[str, list[float]], images: dict[str, int]) -> None:
    rates = {name: images[name] / median(values) for name, values in times.items()}
    print(f"\n{title}")
    for name, rate in rates.items():
        print(f"  {name:<44}{rate:>9,.0f} images/s   ours / this: {rates['ours'] / rate:6.1f}x")


def main() -> None:
    scenes = draw_scenes(IMAGES)
    methods = {"ours": with_ours, "NumPy masks": with_numpy, "Pillow, 4x and averaged": with_pillow}
    for method in methods.values():
        method(scenes[0])
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            times[name].append(seconds(lambda method=method: [method(shapes) for shapes in scenes]))
    report(f"Rendering alone, one process ({IMAGES} images, {ROUNDS} rounds)", times, dict.fromkeys(methods, IMAGES))

    with tempfile.TemporaryDirectory() as folder, process_pool() as parallel_map:
        sample = partial(draw_sample, name="benchmark", seed=0, counts=COUNTS, scene=SCENE, resolution=RESOLUTION)
        shard = Path(folder) / "images.tar"
        list(parallel_map(sample, range(128)))  # processes started
        chains: dict[str, Callable[[], object]] = {
            "ours": lambda: write_shard(shard, parallel_map(sample, range(STAGE_IMAGES))),
            "NumPy masks, a PNG file each": lambda: to_files(with_numpy, scenes, Path(folder)),
            "Pillow, a PNG file each": lambda: to_files(with_pillow, scenes, Path(folder)),
        }
        times = {name: [] for name in chains}
        for _ in range(ROUNDS):
            for name, chain in chains.items():
                times[name].append(seconds(chain))
        made = {name: STAGE_IMAGES if name == "ours" else IMAGES for name in chains}
        report(f"Drawn and stored; ours on {cores()} cores, sampling of the scenes included", times, made)


if __name__ == "__main__":
    main()
