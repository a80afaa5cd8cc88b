"""PosENet: one convolution that reads a position map from features (posenet, section 2.1, Eq. 2), many at a time.

A cell of the grid is one such convolution: what it reads, the pattern that it should draw, its kernel, its
padding, its training run. Cells that share their input and kernel are the output channels of one convolution,
and the loss is the sum of theirs; so no cell's gradient depends on another, and each ends as if it had been
trained alone (see tests/posenet/test_position_network.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, unfold

from pipeline.posenet.paths import ALL
from pipeline.posenet.patterns import pattern
from pipeline.shards import item_rng

# of the mean variance of what is read. From 1e-5 to 1e-3 correlations on held-out images moved by 0.006 at most; below,
# where deep maps are nearly collinear, the sums' rounding errors show
RIDGE = 1e-4


@dataclass(frozen=True, order=True)
class Cell:
    """inputs: ALL, or a layer's name. kernel, padding: of the convolution, in pixels of the features. run: seed."""

    inputs: str
    kernel: int
    padding: int
    pattern: str
    run: int

    @property
    def name(self) -> str:
        return f"{self.inputs}/{self.pattern}/kernel{self.kernel}-padding{self.padding}/run{self.run}"


def grid(
    layers: Iterable[str], patterns: list[str], kernel_sizes: list[int], paddings: list[int], runs: int
) -> list[Cell]:
    """Every cell, sorted: kernel sizes without padding, paddings with 3 x 3 kernels, and 3 x 3 on each layer alone."""
    shapes = {(ALL, 3, 0)} | {(ALL, kernel, 0) for kernel in kernel_sizes} | {(ALL, 3, padding) for padding in paddings}
    if len(layers := list(layers)) > 1:
        shapes |= {(layer, 3, 0) for layer in layers}
    return sorted(Cell(*shape, name, run) for shape in shapes for name in patterns for run in range(runs))


@dataclass(frozen=True)
class Block:
    """Cells with one target size: outputs first..last of a convolution, `cut` pixels off each side of its map."""

    cells: list[Cell]
    first: int
    last: int
    cut: int


class PosENets(nn.Module):
    """All cells of a grid on one backbone's features [B, channels, S, S]."""

    def __init__(self, cells: list[Cell], channels: dict[str, int], seed: int) -> None:
        """channels: {layer: number}, in the features' order. Weights begin Xavier uniform; biases as torch's."""
        super().__init__()
        stops = np.cumsum(list(channels.values())).tolist()
        self.ranges = {layer: (stop - n, stop) for (layer, n), stop in zip(channels.items(), stops, strict=True)}
        self.ranges[ALL] = (0, stops[-1])
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        self.blocks: dict[str, list[Block]] = {}
        self.paddings: dict[str, int] = {}
        self.inputs: dict[str, str] = {}
        for inputs, kernel in sorted({(cell.inputs, cell.kernel) for cell in cells}):
            members = [cell for cell in cells if (cell.inputs, cell.kernel) == (inputs, kernel)]
            first, last = self.ranges[inputs]
            name = f"{inputs}-{kernel}".replace(".", "_")
            drawn = [initial(cell, last - first, seed) for cell in members]
            self.weights[name] = nn.Parameter(torch.stack([weight for weight, _ in drawn]))
            self.biases[name] = nn.Parameter(torch.stack([bias for _, bias in drawn]))
            self.inputs[name], self.paddings[name] = inputs, max(cell.padding for cell in members)
            self.blocks[name] = []
            for padding in sorted({cell.padding for cell in members}):
                these = [place for place, cell in enumerate(members) if cell.padding == padding]
                block = Block([members[i] for i in these], these[0], these[-1] + 1, self.paddings[name] - padding)
                self.blocks[name].append(block)

    def forward(self, features: Tensor) -> list[tuple[Block, Tensor]]:
        """Each block's maps [B, cells, S', S'], S' = S - kernel + 1 + 2 padding."""
        maps = []
        for name, weight in self.weights.items():
            first, last = self.ranges[self.inputs[name]]
            padded = pad(features[:, first:last], [self.paddings[name]] * 4)
            drawn = conv2d(padded, weight, self.biases[name])
            for block in self.blocks[name]:
                side = slice(block.cut, drawn.shape[-1] - block.cut)
                maps.append((block, drawn[:, block.first : block.last, side, side]))
        return maps


def initial(cell: Cell, channels: int, seed: int) -> tuple[Tensor, Tensor]:
    """A cell's first weights [channels, k, k] and bias []: it depends on the seed and the cell alone."""
    generator = torch.Generator().manual_seed(int(item_rng(seed, f"posenet/{cell.name}").integers(2**63)))
    weight = torch.empty(1, channels, cell.kernel, cell.kernel)
    nn.init.xavier_uniform_(weight, generator=generator)
    bound = (channels * cell.kernel**2) ** -0.5  # nn.Conv2d's own
    return weight[0], torch.empty(1).uniform_(-bound, bound, generator=generator)[0]


@torch.no_grad()
def solve(network: PosENets, features: Tensor, batch_size: int = 16) -> None:
    """Give every cell the weights with the least squared error on features [N, channels, S, S]: the optimum.

    A cell is linear in its weights, so that what any training can reach has a closed form. A ridge of RIDGE of
    the mean variance settles the directions in which features do not vary.
    """
    mean = features.mean(dim=(0, 2, 3))
    scale = torch.maximum(features.std(dim=(0, 2, 3)), 0.01 * mean.abs())
    scale = torch.where(scale > 0, scale, 1.0)
    for name, weight in network.weights.items():
        first, last = network.ranges[network.inputs[name]]
        kernel, own = weight.shape[-1], scale[first:last].view(-1, 1, 1)
        for block in network.blocks[name]:
            padding = network.paddings[name] - block.cut
            # sums are precise where features are centred; those that are padded cannot be, since zeros mean zero
            shift = torch.zeros_like(own) if padding else mean[first:last].view(-1, 1, 1)
            padded = pad((features[:, first:last] - shift) / own, [padding] * 4)
            side = padded.shape[-1] - kernel + 1
            target = torch.from_numpy(np.stack([pattern(cell.pattern, side) for cell in block.cells]))
            target = target.flatten(1).double().to(features.device)
            inputs = (last - first) * kernel**2
            products = torch.zeros(inputs, inputs, dtype=torch.float64, device=features.device)
            by_place = torch.zeros(inputs, side**2, dtype=torch.float64, device=features.device)
            for batch in padded.split(batch_size):
                windows = unfold(batch, kernel)  # [B, inputs, places]
                rows = windows.transpose(0, 1).flatten(1)
                products += (rows @ rows.T).double()
                by_place += windows.sum(dim=0).double()
            number = len(features) * side**2
            centre, mean_target = by_place.sum(dim=1) / number, target.mean(dim=1)
            covariance = products / number - torch.outer(centre, centre)
            with_target = by_place @ target.T / number - torch.outer(centre, mean_target)
            ridge = RIDGE * covariance.diagonal().mean().clamp_min(RIDGE)
            solved = torch.linalg.solve(covariance + ridge * torch.eye(inputs, device=centre.device), with_target)
            places = slice(block.first, block.last)
            shaped = solved.T.unflatten(1, (last - first, kernel, kernel)) / own
            network.weights[name][places] = shaped.float()
            shifted = (shaped * shift).sum(dim=(1, 2, 3))
            network.biases[name][places] = (mean_target - solved.T @ centre - shifted).float()


def targets(maps: list[tuple[Block, Tensor]]) -> list[Tensor]:
    """The pattern of each cell of each block, [cells, S', S']."""
    return [
        torch.from_numpy(np.stack([pattern(cell.pattern, drawn.shape[-1]) for cell in block.cells])).to(drawn.device)
        for block, drawn in maps
    ]


def errors(maps: list[tuple[Block, Tensor]], wanted: list[Tensor]) -> Tensor:
    """Mean squared error [cells] of every cell, over images and pixels."""
    return torch.cat(
        [(drawn - target).square().mean(dim=(0, 2, 3)) for (_, drawn), target in zip(maps, wanted, strict=True)]
    )
