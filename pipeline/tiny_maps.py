"""3 x 3 convolutions of maps of 2 x 2 pixels or smaller, at which a CPU is slow: the same, in less time."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def quicken(network: nn.Module) -> nn.Module:
    """Let a network's convolutions be quick on tiny maps. Changes its modules; parameters and their names stay.

    Floating-point operations are counted without (torch.utils.flop_counter): there are fewer with it, on a CPU.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and TinyMapConv2d.can_replace(module):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, TinyMapConv2d.like(module))
    return network


class TinyMapConv2d(nn.Conv2d):
    """A 3 x 3 convolution (stride 1, padding 1) that is made of matrix products where its maps are 2 x 2 or smaller.

    On the CPU, oneDNN takes about four times as long for such maps, most of it for the gradient
    of the weights; for ResNet-18 at 64 x 64 pixels this is a quarter of a training step.
    """

    @staticmethod
    def can_replace(conv: nn.Conv2d) -> bool:
        return (
            (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
            and conv.groups == 1
            and conv.bias is None
        )

    @classmethod
    def like(cls, conv: nn.Conv2d) -> TinyMapConv2d:
        """The same convolution, with the same parameters."""
        replaced = cls(conv.in_channels, conv.out_channels, kernel_size=3, padding=1, bias=False)
        replaced.weight, replaced.padding_mode = conv.weight, conv.padding_mode
        return replaced

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or max(x.shape[2:]) > 2 or self.padding_mode != "zeros":
            return super().forward(x)
        return _TapByTap.apply(x, self.weight.to(x.dtype))


class _TapByTap(torch.autograd.Function):
    """The convolution as one matrix product for each tap of its kernel. x: [B, C, H, W]; weight: [O, C, 3, 3]."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        maps = x.permute(0, 2, 3, 1)
        b, h, w, _ = maps.shape
        out = maps.new_zeros(b, h, w, len(weight))
        for (i, to_rows, rows), (j, to_columns, columns) in product(_taps(h), _taps(w)):
            out[:, to_rows, to_columns] += maps[:, rows, columns] @ weight[:, :, i, j].t()
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        maps, upstream = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
        _, h, w, _ = maps.shape
        to_maps, to_weight = torch.zeros_like(maps), torch.zeros_like(weight)
        for (i, to_rows, rows), (j, to_columns, columns) in product(_taps(h), _taps(w)):
            part = upstream[:, to_rows, to_columns]
            to_maps[:, rows, columns] += part @ weight[:, :, i, j]
            torch.mm(part.flatten(0, 2).t(), maps[:, rows, columns].flatten(0, 2), out=to_weight[:, :, i, j])
        return to_maps.permute(0, 3, 1, 2), to_weight


def _taps(length: int) -> list[tuple[int, slice, slice]]:
    """Along an axis, each tap of the kernel that meets the map: its place, and the outputs and inputs that it joins."""
    return [
        (k, slice(max(0, 1 - k), length - max(0, k - 1)), slice(max(0, k - 1), length - max(0, 1 - k)))
        for k in range(3)
        if abs(k - 1) < length
    ]
