"""Scenes of countable things, with captions in the manner of alt texts: `source: generated` in place of LAION.

A scene shows one to ten things of one kind and colour, fewer of other kinds, and clutter that is no
thing at all, on a varied background. Every thing's kind, colour and box are kept. Lengths are in
canvas units: the canvas is 128 x 128 whatever the resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.countclip.captions import WORDS

CANVAS = 128
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
OVERSAMPLE = 2  # cells of the drawing grid to a pixel, in each direction
RADIUS = (8.5, 14.0)  # of the circle that a thing fits in
APART = 1.0  # least distance of two centres, in sums of their radii
TRIES = 200  # to place a thing; then the next smaller radius is tried
PLURAL = {"ball": "balls", "box": "boxes", "star": "stars", "ring": "rings", "cone": "cones", "cross": "crosses"}
KINDS = tuple(PLURAL)
COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (41, 98, 217),
    "yellow": (241, 196, 15),
    "purple": (142, 68, 173),
    "orange": (230, 126, 34),
}
SURFACES = ("on a table", "in the grass", "on a white background", "against the sky", "in a studio", "on the beach")


@dataclass(frozen=True)
class Thing:
    """kind and colour by name; box: x0, y0, x1, y1 in 0..1 of the image."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """pixels: uint8 [H, W, 3], RGB. kind, colour, count: of the things that the scene is about."""

    pixels: np.ndarray
    things: tuple[Thing, ...]
    kind: str
    colour: str
    count: int

    def jpeg(self) -> bytes:
        """The scene as a JPEG file."""
        encoded, jpg = cv2.imencode(".jpg", self.pixels[..., ::-1], JPEG)
        assert encoded
        return jpg.tobytes()


def _polygon(kind: str) -> np.ndarray:
    """Outline of a kind in the unit circle, [points, 2]."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    match kind:
        case "box":
            return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * math.sqrt(0.5)
        case "cone":
            return np.array([[0, -1], [0.8, 0.75], [-0.8, 0.75]])
        case "star":
            angle = np.arange(10) * np.pi / 5 - np.pi / 2
            return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.where(np.arange(10) % 2, 0.42, 1)[:, None]
        case "cross":
            arm = np.array([[-0.3, -0.95], [0.3, -0.95], [0.3, -0.3]])
            return np.concatenate([arm @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))])
        case _:  # ball, ring
            return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def draw_scene(rng: np.random.Generator, count: int, resolution: int) -> Scene:
    """A scene about `count` things, drawn at resolution x resolution pixels."""
    kind, colour = rng.choice(KINDS), rng.choice(list(COLOURS))
    others = [other for other in rng.permutation(KINDS) if other != kind][: rng.integers(0, 3)]
    wanted = [(kind, colour)] * count
    for other in others:  # always fewer than what the scene is about
        wanted += [(other, rng.choice(list(COLOURS)))] * int(rng.integers(0, min(count, 3)))
    side = resolution * OVERSAMPLE
    image = _background(rng, side)
    scale = side / CANVAS
    things: list[Thing] = []
    placed: list[tuple[float, float, float]] = []
    for number, (thing, paint) in enumerate(wanted):
        if (place := _place(rng, placed)) is None:
            if number < count:
                raise RuntimeError(f"{count} things found no room on a canvas of {CANVAS} x {CANVAS}")
            break
        placed.append(place)
        x, y, radius = place
        turn = rng.uniform(-0.35, 0.35)
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        outline = (_polygon(thing) @ rotation * radius + (x, y)) * scale
        _paint(image, thing, outline, _shade(rng, COLOURS[str(paint)]), radius * scale)
        low, high = np.clip(outline.min(axis=0) / side, 0, 1), np.clip(outline.max(axis=0) / side, 0, 1)
        things.append(Thing(str(thing), str(paint), tuple(round(float(v), 5) for v in (*low, *high))))
    pixels = cv2.resize(image, (resolution, resolution), interpolation=cv2.INTER_AREA)
    return Scene(pixels, tuple(things), str(kind), str(colour), count)


def _place(rng: np.random.Generator, placed: list[tuple[float, float, float]]) -> tuple[float, float, float] | None:
    """x, y and radius of a thing that covers none of those placed; smaller where there is no room for larger ones."""
    for largest in np.linspace(RADIUS[1], RADIUS[0], 5):
        for _ in range(TRIES):
            radius = rng.uniform(RADIUS[0], max(largest, RADIUS[0] + 0.1))
            x, y = rng.uniform(radius, CANVAS - radius, size=2)
            if all(math.hypot(x - a, y - b) > APART * (radius + r) for a, b, r in placed):
                return float(x), float(y), float(radius)
    return None


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """A gradient between two pale or dark colours, with soft blotches and thin strokes; uint8 [side, side, 3]."""
    ends = rng.uniform(150, 250, size=(2, 3)) if rng.random() < 0.7 else rng.uniform(10, 90, size=(2, 3))
    ramp = np.linspace(0, 1, side)[:, None, None]
    image = ends[0] * (1 - ramp) + ends[1] * ramp
    if rng.random() < 0.5:
        image = image.transpose(1, 0, 2)
    image = np.broadcast_to(image, (side, side, 3))
    blotches = cv2.resize(rng.normal(0, 12, size=(6, 6, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, rng.uniform(0, 5), size=(side, side, 1))
    image = np.clip(image + blotches + grain, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 6)):  # strokes: clutter that is no thing
        a, b = rng.integers(0, side, size=(2, 2))
        grey = tuple(int(v) for v in rng.integers(40, 220, size=3))
        cv2.line(image, a.tolist(), b.tolist(), grey, int(rng.integers(1, 3)), cv2.LINE_AA)
    return image


def _shade(rng: np.random.Generator, colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(int(v) for v in np.clip(np.array(colour) + rng.normal(0, 12, size=3), 0, 255))


def _paint(image: np.ndarray, kind: str, outline: np.ndarray, colour: tuple[int, ...], radius: float) -> None:
    points = np.rint(outline * 16).astype(np.int32)
    if kind == "ring":
        cv2.polylines(image, [points], True, colour, max(2, round(radius * 0.35)), cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(image, [points], colour, cv2.LINE_AA, 4)


def caption(rng: np.random.Generator, scene: Scene, spells: str) -> str:
    """An alt text for a scene. spells: 'right' or 'wrong', a number; 'none'; 'idle', one that counts nothing here.

    A number is spelled for 2..10 things only; a single thing is 'a red ball', whatever was asked for.
    """
    one, many = f"{scene.colour} {scene.kind}", f"{scene.colour} {PLURAL[scene.kind]}"
    where = str(rng.choice(SURFACES))
    if spells in ("right", "wrong") and scene.count >= 2:
        numbers = [n for n in WORDS if (n == scene.count) == (spells == "right")]
        word = WORDS[int(rng.choice(numbers))]
        forms = [
            f"{word} {many} {where}",
            f"Stock photo of {word} {many} {where}",
            f"Set of {word} {many}, vector illustration",
            f"{word.capitalize()} {many} - royalty free image",
            f"Group of {word} {many} {where}, high angle view",
        ]
    elif spells == "idle":
        forms = [
            f"Four seasons collection: {many} {where}",
            f"Top ten gift ideas - {many}",
            f"{many} from episode two of the series",
            f"Part three: how to draw {many}",
            f"{many}, rated five stars by customers",
        ]
    else:
        subject = one if scene.count == 1 else many
        forms = [
            f"{subject} {where}",
            f"Stock photo of {subject} {where}",
            f"{subject.capitalize()}, two-tone, vector illustration",
            f"{subject} - royalty free image",
        ]
    return str(rng.choice(forms))
