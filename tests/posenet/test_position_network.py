"""Cells trained together end as if each had been trained alone; the grid is what the document asks for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.posenet.network import ALL, Cell, PosENets, errors, grid, initial, solve, targets
from pipeline.posenet.patterns import pattern

CHANNELS = {"conv1": 3, "conv2": 2}


def features(images: int, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, 5, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_grid_has_every_cell_once():
    cells = grid(CHANNELS, ["H", "G"], [1, 3, 5], [0, 1, 2], runs=2)
    shapes = {(cell.inputs, cell.kernel, cell.padding) for cell in cells}
    # Table 2's cell is always there
    assert {(c.inputs, c.kernel, c.padding) for c in grid([], ["H"], [1], [2], runs=1)} >= {(ALL, 3, 0)}
    assert shapes == {
        (ALL, 1, 0), (ALL, 3, 0), (ALL, 5, 0), (ALL, 3, 1), (ALL, 3, 2), ("conv1", 3, 0), ("conv2", 3, 0)
    }  # fmt: skip
    assert len(cells) == len(set(cells)) == len(shapes) * 2 * 2
    assert len({cell.name for cell in cells}) == len(cells)


def test_one_layer_alone_is_not_asked_twice():
    assert {cell.inputs for cell in grid({"pixels": 3}, ["H"], [3], [0], runs=1)} == {ALL}


@pytest.mark.parametrize(
    "cell", [Cell(ALL, 1, 0, "H", 0), Cell(ALL, 5, 0, "V", 1), Cell(ALL, 3, 2, "G", 0), Cell("conv2", 3, 0, "VS", 1)]
)
def test_trained_together_or_alone_is_the_same(cell):
    """Against torch's own convolution, trained alone as section 2.4 has it: Adam, weight decay, mean squared error."""
    seed = 5
    cells = grid(CHANNELS, ["H", "V", "G", "HS", "VS"], [1, 3, 5], [0, 1, 2, 3], runs=2)
    together = PosENets(cells, CHANNELS, seed)
    optimizer = torch.optim.Adam(together.parameters(), 1e-2, weight_decay=1e-2)

    first, last = (0, 5) if cell.inputs == ALL else (3, 5)
    alone = nn.Conv2d(last - first, 1, cell.kernel, padding=cell.padding)
    weight, bias = initial(cell, last - first, seed)
    alone.weight.data[0], alone.bias.data[0] = weight, bias
    own = torch.optim.Adam(alone.parameters(), 1e-2, weight_decay=1e-2)
    side = 12 - cell.kernel + 1 + 2 * cell.padding
    target = torch.from_numpy(pattern(cell.pattern, side))
    for step in range(25):
        batch = features(4, seed=step)
        maps = together(batch)
        found = errors(maps, targets(maps))
        optimizer.zero_grad()
        found.sum().backward()
        optimizer.step()
        loss = nn.functional.mse_loss(alone(batch[:, first:last])[:, 0], target.expand(4, -1, -1))
        own.zero_grad()
        loss.backward()
        own.step()
        place = [c for block, _ in maps for c in block.cells].index(cell)
        assert found[place].item() == pytest.approx(loss.item(), rel=1e-4)
    drawn = {c: m[:, i] for block, m in together(batch) for i, c in enumerate(block.cells)}[cell]
    assert drawn.shape == (4, side, side)
    torch.testing.assert_close(drawn, alone(batch[:, first:last])[:, 0], atol=1e-4, rtol=1e-3)


def test_first_weights_are_xavier_uniform_and_depend_on_the_cell_alone():
    cell = Cell(ALL, 3, 0, "H", 0)
    weight, bias = initial(cell, 400, seed=0)
    bound = (6 / (400 * 9 + 9)) ** 0.5  # fan in and fan out of one output channel
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.98 * bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert abs(bias) <= (400 * 9) ** -0.5
    assert torch.equal(weight, initial(cell, 400, seed=0)[0])
    assert not torch.equal(weight, initial(Cell(ALL, 3, 0, "H", 1), 400, seed=0)[0])
    assert not torch.equal(weight, initial(cell, 400, seed=1)[0])


def test_every_target_has_the_size_of_its_map():
    network = PosENets(grid(CHANNELS, ["H", "VS"], [1, 7], [0, 3], runs=1), CHANNELS, 0)
    maps = network(features(2))
    sides = {(c.kernel, c.padding): m.shape[-1] for block, m in maps for c in block.cells if c.inputs == ALL}
    assert sides == {(1, 0): 12, (7, 0): 6, (3, 0): 10, (3, 3): 16}
    for (block, drawn), wanted in zip(maps, targets(maps), strict=True):
        assert wanted.shape == drawn.shape[1:]
        for cell, one in zip(block.cells, wanted.numpy(), strict=True):
            assert np.array_equal(one, pattern(cell.pattern, drawn.shape[-1]))


def test_the_optimum_is_that_of_least_squares():
    """Against NumPy's, on the windows of one cell written out; features of scales 0.1 to 1,000."""
    batch = features(6) * torch.tensor([1.0, 10.0, 1000.0, 3.0, 0.1]).view(-1, 1, 1) + 2
    cells = [Cell(ALL, 3, 2, "G", 0), Cell(ALL, 3, 0, "H", 0), Cell("conv2", 1, 0, "V", 0)]
    network = PosENets(sorted(cells), CHANNELS, 0)
    solve(network, batch)
    drawn = {c: m[:, i].detach().numpy() for block, m in network(batch) for i, c in enumerate(block.cells)}
    for cell in cells:
        read = batch if cell.inputs == ALL else batch[:, 3:]
        padded = np.pad(read.numpy(), ((0, 0), (0, 0), (cell.padding,) * 2, (cell.padding,) * 2)).astype(float)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (cell.kernel, cell.kernel), axis=(2, 3))
        rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, windows.shape[1] * cell.kernel**2)
        target = np.tile(pattern(cell.pattern, windows.shape[2]).ravel(), len(batch))
        rows = np.c_[rows, np.ones(len(rows))]
        wanted = rows @ np.linalg.lstsq(rows, target, rcond=None)[0]
        np.testing.assert_allclose(drawn[cell].ravel(), wanted, atol=5e-4)


def test_no_training_beats_the_optimum():
    batch = features(6)
    cells = grid(CHANNELS, ["H", "G"], [1, 3], [0, 1], runs=1)
    trained, best = PosENets(cells, CHANNELS, 0), PosENets(cells, CHANNELS, 0)
    solve(best, batch)
    optimizer = torch.optim.Adam(trained.parameters(), 1e-2)
    wanted = targets(trained(batch))
    for _ in range(400):
        optimizer.zero_grad()
        errors(trained(batch), wanted).sum().backward()
        optimizer.step()
    found, least = errors(trained(batch), wanted), errors(best(batch), wanted)
    assert (found >= least - 1e-5).all()
    assert (found - least).max() < 0.01  # and long training on features of scale 1 comes near


@pytest.mark.parametrize("constant", [0.0, 1.0, -300.0])
def test_features_that_do_not_vary_give_the_mean(constant):
    network = PosENets([Cell(ALL, 3, 0, "H", 0)], CHANNELS, 0)
    solve(network, torch.full((3, 5, 12, 12), constant))
    ((_, drawn),) = network(torch.full((1, 5, 12, 12), constant))
    assert drawn.detach().numpy() == pytest.approx(0.5, abs=1e-3)


def test_one_channel_that_does_not_vary_does_not_matter():
    batch = features(6)
    batch[:, 1] = 7.0
    network = PosENets([Cell(ALL, 3, 0, "H", 0), Cell(ALL, 3, 1, "H", 0)], CHANNELS, 0)
    solve(network, batch)
    found = errors(maps := network(batch), targets(maps))
    assert torch.isfinite(found).all()
    assert (found < 0.09).all()  # the variance of H is 1 / 12
