"""Boxes as the document writes them (convnets-in-vision, 'Procedure'), and as torchvision does.

The document's are (x, y, s, r): centre in pixels, size s in (0, 1], aspect ratio r > 0. It gives the height and width
in an image of height h and width w as h s / sqrt(r) and w s / sqrt(r), which leaves every box with the image's own
shape: r would be a second size. The textbook it follows (Zhang et al., Dive into Deep Learning, 'Anchor Boxes')
has h s / sqrt(r) and w s sqrt(r): r is then width over height, in an image that is square. `AS_PRINTED`
and `TEXTBOOK` are the two; torchvision's anchors, which the detectors have, follow the second.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert

AS_PRINTED, TEXTBOOK = -0.5, 0.5  # exponent of r in the width


def from_size_and_ratio(boxes: Tensor, height: int, width: int, exponent: float = TEXTBOOK) -> Tensor:
    """(x, y, s, r) [N, 4] -> (x0, y0, x1, y1) in pixels, float [N, 4].

    Raises ValueError where a size is not in (0, 1], or a ratio not above 0.
    """
    x, y, size, ratio = boxes.unbind(-1)
    if not ((size > 0) & (size <= 1)).all():
        raise ValueError(f"sizes should be in (0, 1], found {size.min():g} to {size.max():g}")
    if not (ratio > 0).all():
        raise ValueError(f"aspect ratios should be above 0, found {ratio.min():g}")
    centred = torch.stack([x, y, width * size * ratio**exponent, height * size / ratio.sqrt()], dim=-1)
    return box_convert(centred, "cxcywh", "xyxy")


def to_size_and_ratio(boxes: Tensor, height: int, width: int) -> Tensor:
    """(x0, y0, x1, y1) in pixels [N, 4] -> (x, y, s, r), the inverse of the textbook's; as printed, there is none.

    Raises ValueError where a box has no area.
    """
    x, y, w, h = box_convert(boxes, "xyxy", "cxcywh").unbind(-1)
    if not ((w > 0) & (h > 0)).all():
        raise ValueError("boxes should be wider and higher than 0")
    w, h = w / width, h / height
    return torch.stack([x, y, (w * h).sqrt(), w / h], dim=-1)
