"""3 x 3 convolutions that make maps of 2 x 2 pixels or smaller: the same, in less time on a CPU.

There oneDNN's backward pass takes up to four times as long as matrix products do. Its forward pass in fp32 takes three
times as long on channels_last tensors as on contiguous ones, where the CPU has AVX-512; elsewhere it is left alone.
`python -m benchmarks.fast_paths` measures both.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import conv2d


def quicken(network: nn.Module) -> nn.Module:
    """Let a network's convolutions be quick on tiny maps. Changes its modules; parameters and their names stay."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and TinyMapConv2d.can_replace(module):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, TinyMapConv2d.like(module))
    return network


class TinyMapConv2d(nn.Conv2d):
    """A 3 x 3 convolution (padding 1) that is quick where it makes maps of 2 x 2 or smaller.

    ResNet-18 at 64 x 64 pixels has four such convolutions, its last stage.
    """

    @staticmethod
    def can_replace(conv: nn.Conv2d) -> bool:
        return (
            (conv.kernel_size, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1))
            and conv.groups == 1
            and conv.bias is None
        )

    @classmethod
    def like(cls, conv: nn.Conv2d) -> TinyMapConv2d:
        """The same convolution, with the same parameters."""
        replaced = cls(conv.in_channels, conv.out_channels, kernel_size=3, stride=conv.stride, padding=1, bias=False)
        replaced.weight, replaced.padding_mode = conv.weight, conv.padding_mode
        return replaced

    def forward(self, x: Tensor) -> Tensor:
        made = [_outputs(length, stride) for length, stride in zip(x.shape[2:], self.stride, strict=True)]
        tiny = x.device.type == "cpu" and max(made) <= 2 and self.padding_mode == "zeros"
        if not tiny:
            return super().forward(x)
        if not torch.is_grad_enabled():
            return _convolve(x, self.weight.to(x.dtype), self.stride)
        return _TinyMapConv.apply(x, self.weight.to(x.dtype), self.stride)


class _TinyMapConv(torch.autograd.Function):
    """conv2d, and in its backward pass one matrix product for each tap of the kernel.

    x: [B, C, H, W]; weight: [O, C, 3, 3], of one dtype.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _convolve(x, weight, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        maps, upstream = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
        to_maps = torch.zeros_like(maps)
        to_weight = torch.zeros_like(weight)  # a tap that meets no map has no gradient
        vertical, horizontal = (_taps(length, stride) for length, stride in zip(x.shape[2:], ctx.stride, strict=True))
        for (i, to_rows, rows), (j, to_columns, columns) in product(vertical, horizontal):
            part = upstream[:, to_rows, to_columns]
            seen = maps[:, rows, columns]
            flat = part.flatten(0, 2)  # [B H' W', O]: on a 4-d tensor, matmul would copy the weight for every image
            to_maps[:, rows, columns] += (flat @ weight[:, :, i, j]).view_as(seen)
            torch.mm(flat.t(), seen.flatten(0, 2), out=to_weight[:, :, i, j])
        return to_maps.permute(0, 3, 1, 2), to_weight, None


def _convolve(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """conv2d with padding 1; the output is laid out as x is."""
    if x.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX512" and not x.is_contiguous():
        made = conv2d(x.contiguous(), weight.contiguous(), stride=stride, padding=1)
        return made.contiguous(memory_format=torch.channels_last)
    return conv2d(x, weight, stride=stride, padding=1)


def _outputs(length: int, stride: int) -> int:
    """Pixels along an axis of the map that is made of `length` pixels."""
    return (length - 1) // stride + 1


def _taps(length: int, stride: int) -> list[tuple[int, slice, slice]]:
    """Along an axis, each tap of the kernel that meets the map: its place, and the outputs and inputs that it joins."""
    taps = []
    for k in range(3):
        outputs = [o for o in range(_outputs(length, stride)) if 0 <= o * stride + k - 1 < length]
        if outputs:
            first, last = (o * stride + k - 1 for o in (outputs[0], outputs[-1]))
            taps.append((k, slice(outputs[0], outputs[-1] + 1), slice(first, last + 1, stride)))
    return taps
