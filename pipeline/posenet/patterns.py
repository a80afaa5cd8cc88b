"""The five ground-truth maps (posenet, section 2.2 and Fig. 2), as the authors drew them.

They drew 256 x 256 pixels of 8 bits and resized them; here the same functions are evaluated at the centres
of the pixels of any size. At 256, H and V are theirs exactly, G within 1/255; their stripes differ from a
cosine by at most 1.4/255, and by up to 4/255 in the two outermost pixels of each edge.
"""

from __future__ import annotations

import numpy as np

PATTERNS = ("H", "V", "G", "HS", "VS")
NAMES = {"H": "horizontal", "V": "vertical", "G": "Gaussian", "HS": "horizontal stripes", "VS": "vertical stripes"}
DRAWN = 256  # pixels, by the authors
PERIODS = 2.5  # of the stripes


def pattern(name: str, size: int) -> np.ndarray:
    """The map, float32 [size, size] in 0..1, rows from top to bottom.

    H rises from left to right, V from top to bottom; G falls off from the middle, its sigma half a side;
    HS and VS are stripes along rows and along columns. Raises ValueError for another name.
    """
    if name not in PATTERNS:
        raise ValueError(f"pattern = {name!r}; should be one of {', '.join(PATTERNS)}")
    at = (np.arange(size) + 0.5) * DRAWN / size - 0.5  # pixel centres, in the authors' pixels
    match name:
        case "H" | "V":
            line = np.clip(at / (DRAWN - 1), 0, 1)
        case "HS" | "VS":
            line = (1 + np.cos(2 * np.pi * PERIODS * (at + 0.5) / DRAWN)) / 2
        case "G":
            centre = sigma = DRAWN / 2  # of indices: half a pixel right of the middle, as theirs
            line = np.exp(-((at - centre) ** 2) / (2 * sigma**2))
            corner = np.exp(-1.0)  # its value at pixel (0, 0), which they made 0
            return np.clip((np.outer(line, line) - corner) / (1 - corner), 0, 1).astype(np.float32)
    rows = np.broadcast_to(line, (size, size)).astype(np.float32)
    return rows if name in ("H", "VS") else np.ascontiguousarray(rows.T)
