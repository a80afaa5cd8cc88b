"""The study's network, its targets, and its decisions (implicit-counting, Method)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models import resnet18

from pipeline.shapes.scenes import CIRCLE, KINDS, SQUARE


class TinyMapConv2d(nn.Conv2d):
    """A 3 x 3 convolution (stride 1, padding 1) that is one matrix product where its maps are 2 x 2 or smaller.

    On the CPU, oneDNN takes about three times as long for such maps, most of it for the gradient
    of the weights; at 64 x 64 pixels this is a quarter of a training step.
    """

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        if x.device.type != "cpu" or max(h, w) > 2:
            return super().forward(x)
        windows = pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # [B, C, H, W, 3, 3]
        columns = windows.permute(0, 2, 3, 4, 5, 1).reshape(b * h * w, 9 * c)
        weight = self.weight.permute(0, 2, 3, 1).reshape(-1, 9 * c)
        return (columns @ weight.t()).reshape(b, h, w, -1).permute(0, 3, 1, 2)


def build_network() -> nn.Module:
    """torchvision's ResNet-18 with one input channel: float [B, 1, H, W] in 0..1 -> logits [B, 2], (square, circle)."""
    network = resnet18(num_classes=len(KINDS))
    for block, name in ((network.layer4[0], "conv2"), (network.layer4[1], "conv1"), (network.layer4[1], "conv2")):
        replaced = TinyMapConv2d(512, 512, kernel_size=3, padding=1, bias=False)
        replaced.weight = getattr(block, name).weight
        setattr(block, name, replaced)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    return network.to(memory_format=torch.channels_last)


def majority_targets(margins: np.ndarray, target: str) -> np.ndarray:
    """Class probabilities [N, 2] for circles - squares [N]: the majority's is 1.

    A tie is a square where `target` is 'hard', as published, and half and half where it is 'soft',
    as the paper's discussion recommends.
    """
    targets = np.zeros((len(margins), len(KINDS)), np.float32)
    targets[margins > 0, CIRCLE] = 1
    targets[margins < 0, SQUARE] = 1
    targets[margins == 0] = (1, 0) if target == "hard" else (0.5, 0.5)
    return targets


def as_input(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W], 0..255 -> float [B, 1, H, W], 0..1."""
    return (pixels.unsqueeze(1).float() / 255).contiguous(memory_format=torch.channels_last)


def credit(logits: Tensor, targets: Tensor) -> Tensor:
    """What each decision [B] earns: the target probability of the class with the larger logit."""
    return targets.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)


@torch.inference_mode()
def predict_logits(network: nn.Module, pixels: Tensor, batch_size: int = 128) -> Tensor:
    """Logits, float32 [N, 2] on the CPU, of images uint8 [N, H, W]. The network's mode is left as found."""
    was_training = network.training
    network.eval()
    where = next(network.parameters()).device
    logits = [network(as_input(batch.to(where))).float().cpu() for batch in pixels.split(batch_size)]
    network.train(was_training)
    return torch.cat(logits)
