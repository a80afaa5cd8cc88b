"""Images without a place: what stands in for photographs in `source: generated`.

Dead leaves (Lee, Mumford & Huang, 2001): discs of random grey-to-colour that cover one another, their radii by
an inverse cubic law, as the objects of natural images are. They are laid on a torus, so that every pixel is
drawn by the same law: whatever tells its place must come from the network that looks, not from the image.
Photographs do have places (the sky is above); of those that is not so.
"""

from __future__ import annotations

import numpy as np

RADII = (0.02, 0.35)  # of a disc, in sides of the image
DISCS = 900
TEXTURE = 12.0  # standard deviation of a disc's grain, of 255


def draw_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, size, 3], RGB."""
    low, high = (1 / radius**2 for radius in RADII[::-1])
    radii = size / np.sqrt(rng.uniform(low, high, DISCS))  # density ~ radius^-3
    centres = rng.uniform(0, size, (DISCS, 2))
    colours = rng.uniform(0, 255, (DISCS, 1)) + rng.normal(0, 40, (DISCS, 3))
    image = np.empty((size, size, 3), np.float32)
    image[:] = colours.mean(axis=0)
    at = np.arange(size) + 0.5
    for (y, x), radius, colour in zip(centres, radii, colours, strict=True):
        near_y, near_x = (np.flatnonzero(_distance(at, c, size) < radius) for c in (y, x))
        inside = _distance(at[near_y], y, size)[:, None] ** 2 + _distance(at[near_x], x, size)[None] ** 2 < radius**2
        rows, columns = np.nonzero(inside)
        image[near_y[rows], near_x[columns]] = colour
    image += rng.normal(0, TEXTURE, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _distance(at: np.ndarray, centre: float, size: int) -> np.ndarray:
    """Along one axis of the torus."""
    apart = np.abs(at - centre)
    return np.minimum(apart, size - apart)
