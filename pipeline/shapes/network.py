"""The study's network, its targets, and its decisions (implicit-counting, Method)."""

from __future__ import annotations

import copy
import difflib

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from pipeline.shapes.params import ARCHITECTURE
from pipeline.shapes.scenes import CIRCLE, KINDS, SQUARE
from pipeline.stage import UserError
from pipeline.tiny_maps import quicken

LARGE, LARGE_BATCH = 128, 8  # pixels from which on images are large, and how many a CPU is quickest with


def build_network(architecture: str = ARCHITECTURE) -> nn.Module:
    """A torchvision classifier with one input channel: float [B, 1, H, W] in 0..1 -> logits [B, 2], (square, circle).

    The paper's is ResNet-18. Raises UserError for a name that is not a classifier of torchvision's.
    """
    known = models.list_models(module=models)
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3) or known
        raise UserError(
            f"params.yaml: shapes.variants.architectures: {architecture!r}: not a classifier of torchvision's; "
            f"did you mean one of {', '.join(near)}?"
        )
    # the Inceptions' second, auxiliary classifier is not asked
    options = {"aux_logits": False, "init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    network = models.get_model(architecture, weights=None, num_classes=len(KINDS), **options)
    first = next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, child = first.rpartition(".")
    setattr(network.get_submodule(parent), child, _with_one_input_channel(network.get_submodule(first)))
    return quicken(network).to(memory_format=torch.channels_last)


def _with_one_input_channel(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution as it was initialised, of its first input channel alone."""
    options = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    replaced = nn.Conv2d(1, conv.out_channels, bias=conv.bias is not None, **options)
    replaced.weight = nn.Parameter(conv.weight.detach()[:, :1].clone())
    replaced.bias = conv.bias
    return replaced


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
    """Logits, float32 [N, 2] on the CPU, of images uint8 [N, H, W]. The network and its mode are left as found.

    Images of LARGE pixels or more on a CPU are asked of a copy `for_large`, at most LARGE_BATCH at once: the same
    arithmetic, in less time. Smaller ones, and all on CUDA, are asked of the network itself.
    """
    was_training = network.training
    network.eval()
    where = next(network.parameters()).device
    answering = network
    if where.type == "cpu" and max(pixels.shape[1:]) >= LARGE:
        answering, batch_size = for_large(network), min(batch_size, LARGE_BATCH)
    logits = [answering(as_input(batch.to(where))).float().cpu() for batch in pixels.split(batch_size)]
    network.train(was_training)
    return torch.cat(logits)


def for_large(network: nn.Module) -> nn.Module:
    """Under autocast a copy of a classifier of torchvision's that computes the same; any other network is returned.

    Convolutions and linear layers have weights in autocast's precision, so that none is cast for each batch.
    """
    if not (torch.is_autocast_enabled("cpu") and type(network).__module__.startswith(models.__name__)):
        return network
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.get_autocast_dtype("cpu"))
    return copied
