"""Counting by segmentation: every pixel is named, what hangs together is one shape (convnets-in-vision, last part)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models.segmentation.fcn import FCNHead

from pipeline.localize.counter import Counter
from pipeline.localize.network import Pyramid, as_input
from pipeline.localize.scenes import BACKGROUND, CLASSES, Shapes


def components(mask: np.ndarray, least: float = 1) -> np.ndarray:
    """Connected components (4 neighbours) of squares and of circles, of at least so many pixels: int64 [2].

    mask: integers [H, W], the class of each pixel.
    """
    found = []
    for label in range(BACKGROUND + 1, CLASSES):
        _, _, statistics, _ = cv2.connectedComponentsWithStats((mask == label).astype(np.uint8), connectivity=4)
        found.append((statistics[1:, cv2.CC_STAT_AREA] >= least).sum())  # the first is what is not of this class
    return np.array(found, dtype=np.int64)


class Segmenter(Counter):
    """The detectors' pyramid of two levels (torchvision's FeaturePyramidNetwork), and an FCNHead on its finer map.

    Each place of that map answers for a square of pixels (PixelShuffle), mask_size over the whole image.
    Finds the class of each pixel, uint8 [mask_size, mask_size].
    """

    thresholds = (1, 2, 3, 4, 6, 8)  # pixels of the smallest component that counts

    def __init__(self, size: int, stride: int, width: int, mask_size: int) -> None:
        super().__init__()
        finer = mask_size * stride // size
        self.mask_size = mask_size
        self.pyramid = Pyramid(stride, width)
        self.head = nn.Sequential(FCNHead(width, CLASSES * finer**2), nn.PixelShuffle(finer))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, 3, mask_size, mask_size]."""
        return self.head(self.pyramid(as_input(pixels))["0"]).float()

    def loss(self, pixels: Tensor, shapes: list[Shapes]) -> dict[str, Tensor]:
        masks = torch.from_numpy(np.stack([s.mask(self.mask_size) for s in shapes]))
        return {"loss": cross_entropy(self(pixels), masks.to(pixels.device))}

    def find(self, pixels: Tensor) -> list[np.ndarray]:
        return list(self(pixels).argmax(dim=1).to(torch.uint8).cpu().numpy())

    def tally(self, found: np.ndarray, threshold: float) -> np.ndarray:
        return components(found, threshold)


def overlap(found: np.ndarray, true: np.ndarray) -> tuple[int, int]:
    """Pixels in both, and in either, of two masks, bool [H, W]: their ratio is the Jaccard index, or IoU."""
    return int((found & true).sum()), int((found | true).sum())
