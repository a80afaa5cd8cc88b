"""ResNet-18 with one input channel: whole, and cut off, as the base network of what finds shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork

LEVELS = {"layer1": 64, "layer2": 128}  # of ResNet-18 that the pyramid is made from, and their channels


def as_input(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W], 0..255 -> float [B, 1, H, W], 0..1, as the shapes study's networks take them."""
    return (pixels.unsqueeze(1).float() / 255).contiguous(memory_format=torch.channels_last)


def resnet18(outputs: int = 2) -> nn.Module:
    """The shapes study's network: float [B, 1, H, W] -> [B, outputs]; its weights have the same names."""
    network = models.resnet18(num_classes=outputs)
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return network.to(memory_format=torch.channels_last)


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products in what `work` does."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


class Pyramid(nn.Module):
    """ResNet-18's first layers and, from the deepest back to the finest, what each says of all that is above it.

    float [B, 1, H, W] -> {'0': [B, width, H / s, W / s], '1': of half that side}. s is `stride`, 4 as in
    ResNet-18, or 2 without its pooling, for images so small that a shape is a few pixels wide.
    """

    def __init__(self, stride: int, width: int) -> None:
        super().__init__()
        network = resnet18()
        if stride == 2:
            network.maxpool = nn.Identity()
        self.body = IntermediateLayerGetter(network, {layer: str(i) for i, layer in enumerate(LEVELS)})
        self.pyramid = FeaturePyramidNetwork(list(LEVELS.values()), width)
        self.out_channels = width
        self.bf16 = False  # compute in it, even where autocast is not on

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bf16 or torch.is_autocast_enabled(kind)):
            maps = self.pyramid(self.body(images))
        return OrderedDict((name, values.float()) for name, values in maps.items())
