"""How a network's convolutions and poolings pad their maps: with zeros, their own reflection, or their other end."""

from __future__ import annotations

from torch import nn

MODES = ("zeros", "reflect", "circular")


def pad_with(network: nn.Module, mode: str) -> nn.Module:
    """Let every convolution, and every pooling that pads, pad with `mode`, one of MODES. Changes the network."""
    if mode == "zeros":
        return network
    layer = {"reflect": nn.ReflectionPad2d, "circular": nn.CircularPad2d}[mode]
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.padding_mode = mode
        elif isinstance(module, nn.MaxPool2d) and module.padding:
            inner = nn.MaxPool2d(module.kernel_size, module.stride, 0, module.dilation, ceil_mode=module.ceil_mode)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Sequential(layer(module.padding), inner))
    return network
