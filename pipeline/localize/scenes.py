"""Scenes of the shapes study with what is known of every shape: its kind, its box, the pixels that it covers.

A shard's record of a scene (data/shapes) gives the shapes in drawing order, lengths in canvas units. Here lengths
are in 0..1 of the canvas, x to the right and y down from its upper left corner.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.localize.paths import SHAPES
from pipeline.shards import read_shard
from pipeline.stage import UserError

KINDS = ("square", "circle")
BACKGROUND, SQUARE, CIRCLE = range(3)  # labels, as torchvision's detectors and per-pixel classes have them
CLASSES = 1 + len(KINDS)  # and background


@dataclass(frozen=True)
class Shapes:
    """The shapes of one scene in drawing order, all [n]. label: SQUARE or CIRCLE. x, y: centre.

    half: radius of a circle, half the side of a square.
    """

    label: np.ndarray
    x: np.ndarray
    y: np.ndarray
    half: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def counts(self) -> np.ndarray:
        """How many squares, and circles: int64 [2]."""
        return np.bincount(self.label, minlength=3)[1:]

    @property
    def boxes(self) -> np.ndarray:
        """x0, y0, x1, y1, cut off at the border: float32 [n, 4]."""
        corners = [self.x - self.half, self.y - self.half, self.x + self.half, self.y + self.half]
        return np.stack(corners, axis=1).clip(0, 1).astype(np.float32)

    def owners(self, side: int) -> np.ndarray:
        """Which shape each pixel of side x side shows: int64 [side, side], -1 for background.

        A pixel is a shape's where its centre is; of several, it shows the one drawn last.
        """
        owner = np.full((side, side), -1)
        centres = (np.arange(side) + 0.5) / side
        for i, (label, x, y, half) in enumerate(zip(self.label, self.x, self.y, self.half, strict=True)):
            columns = slice(*np.searchsorted(centres, [x - half, x + half]))
            rows = slice(*np.searchsorted(centres, [y - half, y + half]))
            part = owner[rows, columns]
            if label == CIRCLE:
                part[np.hypot(centres[columns] - x, centres[rows, None] - y) <= half] = i
            else:
                part[:] = i
        return owner

    def mask(self, side: int) -> np.ndarray:
        """What each pixel of side x side shows: int64 [side, side], BACKGROUND, SQUARE or CIRCLE."""
        return np.append(self.label, BACKGROUND)[self.owners(side)]


@dataclass(frozen=True)
class Scenes:
    """Images of one set in memory. pixels: uint8 [N, H, W], 0..255; keys, shapes: one an image."""

    keys: list[str]
    pixels: np.ndarray
    shapes: list[Shapes]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> Scenes:
        return Scenes(self.keys[part], self.pixels[part], self.shapes[part])

    @property
    def counts(self) -> np.ndarray:
        """Squares and circles of each image: int64 [N, 2]."""
        return np.stack([shapes.counts for shapes in self.shapes])


def parse(record: dict, canvas: int) -> Shapes:
    """The shapes of a scene's record. Raises KeyError or ValueError where it is none."""
    shapes = record["shapes"]
    label = np.array([1 + KINDS.index(kind) for kind in shapes["kind"]], dtype=np.int64)
    x, y, size = (np.asarray(shapes[name], dtype=float) / canvas for name in ("x", "y", "size"))
    return Shapes(label, x, y, np.where(label == CIRCLE, size, size / 2))


def shard_path(name: str) -> Path:
    """The shapes study's images of this name, e.g. 'test/density-50'."""
    return SHAPES / f"{name}.tar"


def load(name: str, canvas: int, limit: int | None = None) -> Scenes:
    """The images of a set, at most `limit`. Raises UserError naming the sample that cannot be read."""
    path = shard_path(name)
    keys, pixels, shapes = [], [], []
    for sample in read_shard(path):
        image = cv2.imdecode(np.frombuffer(sample.get("png", b"\0"), np.uint8), cv2.IMREAD_GRAYSCALE)
        try:
            parsed = parse(json.loads(sample.get("json", b"{}")), canvas)
        except (KeyError, ValueError, TypeError):
            parsed = None
        if image is None or parsed is None:
            lacks = ".png" if image is None else ".json of its shapes"
            raise UserError(f"{path}: sample {sample['__key__']} lacks a readable {lacks}; delete it, run 'dvc repro'")
        keys.append(str(sample["__key__"]))
        pixels.append(image)
        shapes.append(parsed)
        if len(keys) == limit:
            break
    if limit is not None and len(keys) < limit:
        raise UserError(
            f"{path}: {len(keys)} images, but {limit} are asked for; lower scales.*.localize, or raise "
            f"scales.*.shapes.images"
        )
    return Scenes(keys, np.stack(pixels), shapes)
