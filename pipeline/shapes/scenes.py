"""Scenes of circles and squares: how many, where, how large, and how they are drawn.

Source: 'Do Convolutional Neural Networks Implicitly Count?', section Method.

Lengths are in canvas units (the paper's pixels: the canvas is 256 x 256 whatever the resolution),
x to the right and y down from the canvas' upper left corner. A scene is laid out and drawn on a grid
at least as fine, and then averaged down to the resolution that a scale asks for, so canvas and
shapes shrink together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from pipeline.shapes.params import Scene
from pipeline.stage import UserError

KINDS = ("square", "circle")  # index = class index of the networks
SQUARE, CIRCLE = range(2)

# OpenCV fills a polygon and then strokes its outline, which adds a rim. Shrinking the polygon by
# this many grid cells brings the drawn area back to the geometric one, as tests/shapes/test_scenes.py
# verifies. An outline along the grid (squares) gets a wider rim than an oblique one (circles).
RIM = {True: (0.7, 0.6), False: (0.5, 0.5)}  # by anti-aliasing: (square, circle)
FRACTION_BITS = 8  # OpenCV's fixed-point vertices: 1/256 of a grid cell
ONE = 1 << FRACTION_BITS
MAX_PLACEMENTS = 10_000  # tries for one shape before 'no overlap' counts as impossible


@dataclass(frozen=True)
class Shapes:
    """The shapes of one scene in drawing order; all arrays have shape [n].

    kind: int, index into KINDS. x, y: centre. size: radius of a circle, side of a square.
    grey: 0..255.
    """

    kind: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    grey: np.ndarray

    @property
    def circles(self) -> int:
        return int((self.kind == CIRCLE).sum())

    @property
    def squares(self) -> int:
        return int((self.kind == SQUARE).sum())

    def record(self) -> dict:
        """What is stored beside the image: counts, and each shape in drawing order."""
        return {
            "circles": self.circles,
            "squares": self.squares,
            "shapes": {
                "kind": [KINDS[k] for k in self.kind],
                **{name: getattr(self, name).tolist() for name in ("x", "y", "size", "grey")},
            },
        }

    @classmethod
    def from_record(cls, record: dict) -> Shapes:
        """The inverse of `record`."""
        columns = {name: np.asarray(values) for name, values in record["shapes"].items() if name != "kind"}
        return cls(kind=np.array([KINDS.index(k) for k in record["shapes"]["kind"]], dtype=int), **columns)


def draw_counts(rng: np.random.Generator, density: int, scene: Scene, max_margin: int | None = None) -> tuple[int, int]:
    """Number of circles and of squares: n ~ Normal(density, density_sd), share ~ Normal(mean, sd).

    Both are standard deviations; n is rounded and at least 1, the share is clipped to [0, 1].
    With `max_margin`, from the same law given that |circles - squares| <= max_margin.
    """
    while True:
        total = max(1, round(rng.normal(density, scene.density_sd)))
        share = np.clip(rng.normal(scene.circle_share_mean, scene.circle_share_sd), 0, 1)
        circles = round(total * share)
        if max_margin is None or abs(2 * circles - total) <= max_margin:
            return circles, total - circles


def draw_shapes(rng: np.random.Generator, circles: int, squares: int, scene: Scene) -> Shapes:
    """Sizes, centres and greys of a scene with these counts, in random drawing order.

    Coordinates and sizes are rounded to 1/1000, so that the stored record is what was drawn.
    Raises UserError where `overlap: false` leaves no room.
    """
    n = circles + squares
    kind = rng.permutation(np.repeat([CIRCLE, SQUARE], [circles, squares]))
    low, high = np.array([scene.square_side, scene.circle_radius]).T  # [2], by kind
    size = rng.uniform(low[kind], high[kind]).round(3)
    grey = rng.integers(scene.grey[0], scene.grey[1], size=n, endpoint=True)
    if scene.overlap:
        x, y = rng.uniform(0, scene.canvas, size=(2, n)).round(3)
    else:
        x, y = _place_apart(rng, np.where(kind == CIRCLE, size, size / 2), scene.canvas)
    return Shapes(kind=kind, x=x, y=y, size=size, grey=grey)


def _place_apart(rng: np.random.Generator, half: np.ndarray, canvas: int) -> np.ndarray:
    """Uniform centres [2, n], each drawn again until its bounding square meets none placed before."""
    centres = np.empty((2, len(half)))
    for i, extent in enumerate(half):
        for _ in range(MAX_PLACEMENTS):
            centre = rng.uniform(0, canvas, size=2).round(3)
            gap = np.abs(centres[:, :i] - centre[:, None]).max(axis=0)
            if (gap >= half[:i] + extent).all():
                centres[:, i] = centre
                break
        else:
            raise UserError(
                f"params.yaml: shapes.scene.overlap is false, but {len(half)} shapes found no room on a canvas "
                f"of {canvas} x {canvas} in {MAX_PLACEMENTS} tries; allow overlap, or lower the densities"
            )
    return centres


@cache
def _unit_outlines() -> np.ndarray:
    """Outlines of the unit square (half side 1) and the unit circle, [2, 64, 2], as 64-gons."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    circle /= np.sqrt(np.sin(2 * np.pi / 64) * 64 / 2 / np.pi)  # same area as the circle
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return np.stack([np.repeat(corners, 16, axis=0), circle])


def render(shapes: Shapes, resolution: int, scene: Scene) -> np.ndarray:
    """The scene as an image: uint8 [resolution, resolution], 0..255.

    Anti-aliased: drawn with OpenCV's sub-pixel anti-aliased polygons on a grid of at least
    `oversample` cells to a canvas unit, a whole number to a pixel, then averaged over each pixel.
    Otherwise drawn hard-edged on the pixels themselves.
    """
    cells = max(1, math.ceil(scene.canvas * scene.oversample / resolution)) if scene.antialias else 1
    side = resolution * cells
    scale = side / scene.canvas
    line = cv2.LINE_AA if scene.antialias else cv2.LINE_8
    half = np.where(shapes.kind == CIRCLE, shapes.size, shapes.size / 2) * scale
    half = np.maximum(half - np.array(RIM[scene.antialias])[shapes.kind], 0)
    centre = np.stack([shapes.x, shapes.y], axis=1) * scale - 0.5  # cell 0 is centred at 0.5
    outlines = _unit_outlines()[shapes.kind] * half[:, None, None] + centre[:, None, :]  # [n, 64, 2]
    outlines = np.rint(outlines * ONE).astype(np.int32)

    image = np.full((side, side), scene.background, np.uint8)
    corners = outlines[:, ::16].copy()
    for i, (kind, grey) in enumerate(zip(shapes.kind.tolist(), shapes.grey.tolist(), strict=True)):
        vertices = outlines[i] if kind == CIRCLE else corners[i]
        cv2.fillConvexPoly(image, vertices, grey, line, FRACTION_BITS)
    if side == resolution:
        return image
    return cv2.resize(image, (resolution, resolution), interpolation=cv2.INTER_AREA)
