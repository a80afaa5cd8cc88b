"""Counting by regression: a ResNet-18 with two numbers out (implicit-counting, Introduction: the usual framework)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from pipeline.localize.counter import Counter
from pipeline.localize.network import as_input, resnet18
from pipeline.localize.scenes import Shapes


class Regressor(Counter):
    """Numbers of squares and of circles, in standard deviations from the training images' mean; Huber loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = resnet18(outputs=2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("sd", torch.ones(2))

    def prepare(self, counts: np.ndarray) -> None:
        self.mean.copy_(torch.from_numpy(counts.mean(axis=0)))
        self.sd.copy_(torch.from_numpy(counts.std(axis=0).clip(1)))

    def loss(self, pixels: Tensor, shapes: list[Shapes]) -> dict[str, Tensor]:
        counts = torch.from_numpy(np.stack([s.counts for s in shapes])).to(pixels.device)
        return {"loss": huber_loss(self.network(as_input(pixels)).float(), (counts - self.mean) / self.sd)}

    def find(self, pixels: Tensor) -> list[np.ndarray]:
        return list((self.network(as_input(pixels)).float() * self.sd + self.mean).cpu().numpy())

    def tally(self, found: np.ndarray, threshold: float) -> np.ndarray:
        return found
