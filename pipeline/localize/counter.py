"""What all networks that count on purpose have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor, nn

from pipeline.localize.scenes import Shapes


class Counter(ABC, nn.Module):
    """A network that is trained on shapes, not on which are in the majority.

    thresholds: what `tally` may be given. Which one is best is found on images that were held out of training.
    """

    thresholds: tuple[float, ...] = (0,)

    def prepare(self, counts: np.ndarray) -> None:
        """Called before training with the training images' numbers of squares and circles, int64 [N, 2]."""

    @abstractmethod
    def loss(self, pixels: Tensor, shapes: list[Shapes]) -> dict[str, Tensor]:
        """'loss', a scalar, and by name what it is the sum of. pixels: uint8 [B, H, W]; shapes: one an image."""

    @abstractmethod
    def find(self, pixels: Tensor) -> list[Any]:
        """What is found in each image of uint8 [B, H, W]; on the CPU. The network is in evaluation mode."""

    @abstractmethod
    def tally(self, found: Any, threshold: float) -> np.ndarray:
        """How many squares and circles [2] that makes, of what `find` found in one image."""
