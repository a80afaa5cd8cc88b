"""A guest that does not count: it goes by area, and has no weights (docs/how-to/own-network.md)."""

import math

import torch
from scipy.ndimage import label

CIRCLE = math.pi * sum(r * r for r in range(2, 16)) / 14  # mean area, radius 2..15 of 256 pixels
SQUARE = sum(s * s for s in range(2, 21)) / 19  # side 2..20


class Area(torch.nn.Module):
    """Answers 'circle' where a patch of white is larger, in the mean, than a shape of either kind."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        white = (images > 0.5).cpu().numpy()  # [B, 1, H, W]
        patches = [max(label(one[0])[1], 1) for one in white]
        area = white.mean(axis=(1, 2, 3)) * 256**2 / patches
        larger = torch.tensor(area / ((CIRCLE + SQUARE) / 2) - 1, dtype=torch.float32)
        return torch.stack([-larger, larger], dim=1).to(images.device)


def build() -> torch.nn.Module:
    return Area()
