"""The shapes study's shards: named, drawn in parallel, and read into memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.shapes.params import Scene
from pipeline.shapes.paths import shard_path
from pipeline.shapes.scenes import draw_shapes, render
from pipeline.shards import Sample, item_rng, read_shard, write_shard
from pipeline.stage import UserError

# Run-length matching suits flat greys: smaller and faster than zlib's default on these images.
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]

DrawCounts = Callable[[np.random.Generator], tuple[int, int]]


@dataclass(frozen=True)
class Images:
    """A shard in memory. pixels: uint8 [N, H, W]; keys: [N]; circles, squares: int64 [N]."""

    keys: list[str]
    pixels: np.ndarray
    circles: np.ndarray
    squares: np.ndarray

    @property
    def margins(self) -> np.ndarray:
        """circles - squares, int64 [N]."""
        return self.circles - self.squares


def draw_sample(number: int, *, name: str, seed: int, counts: DrawCounts, scene: Scene, resolution: int) -> Sample:
    """Image `number` of the set `name` as PNG, with its shapes as JSON."""
    rng = item_rng(seed, f"{name}/{number}")
    shapes = draw_shapes(rng, *counts(rng), scene)
    encoded, png = cv2.imencode(".png", render(shapes, resolution, scene), PNG)
    assert encoded
    record = json.dumps(shapes.record(), separators=(",", ":"))
    return {"__key__": f"{number:06d}", "png": png.tobytes(), "json": record.encode()}


def draw_shard(
    parallel_map: Callable[[Callable, Iterable], Iterable],
    *,
    name: str,
    images: int,
    seed: int,
    counts: DrawCounts,
    scene: Scene,
    resolution: int,
) -> int:
    """Draw a set of images into its shard; `counts(rng)` gives each one's circles and squares."""
    sample = partial(draw_sample, name=name, seed=seed, counts=counts, scene=scene, resolution=resolution)
    samples = parallel_map(sample, range(images))
    return write_shard(shard_path(name), tqdm(samples, name, images, unit="image", disable=None, leave=False))


def load_images(name: str, first: int | None = None) -> Images:
    """The images of a set, or so many from its beginning. Raises UserError for a damaged shard or mixed sizes."""
    path = shard_path(name)
    keys, pixels, counts = [], [], []
    for sample in islice(read_shard(path), first):
        key = sample["__key__"]
        png = np.frombuffer(sample.get("png", b""), np.uint8)
        image = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE) if png.size else None
        if image is None or "json" not in sample:
            raise UserError(f"{path}: sample {key} lacks a readable .png or a .json; delete it and run 'dvc repro'")
        record = json.loads(sample["json"])
        keys.append(key)
        pixels.append(image)
        counts.append((record["circles"], record["squares"]))
    if len({image.shape for image in pixels}) != 1:
        sizes = sorted({image.shape for image in pixels})
        raise UserError(f"{path}: images should be of one size, found {sizes}; delete it and run 'dvc repro'")
    circles, squares = np.array(counts, dtype=np.int64).T
    return Images(keys=keys, pixels=np.stack(pixels), circles=circles, squares=squares)
