"""Heat maps: the document's formula by hand, LIME on a linear network, and measures on maps made up for the purpose."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.localize import heat
from pipeline.localize.network import resnet18


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class Tiny(nn.Module):
    """Two maps A1 = x, A2 = -2 x; y0 = 3 mean(A1), y1 = mean(A1^2) + 5 mean(A2)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1, bias=False)
        self.maps.weight.data = torch.tensor([1.0, -2.0]).view(2, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a1, a2 = self.maps(x).unbind(1)
        return torch.stack([3 * a1.mean((1, 2)), (a1**2).mean((1, 2)) + 5 * a2.mean((1, 2))], dim=1)


def test_grad_cam_is_the_documents_formula_by_hand():
    network = Tiny()
    x = torch.tensor([[1.0, 2.0], [-1.0, 4.0]]).view(1, 1, 2, 2)
    # y0: d y / d A1 = 3 / 4 everywhere, so alpha = (3/4, 0) and L = ReLU(0.75 x)
    first = heat.grad_cam(network, network.maps, x, torch.tensor([0]))
    torch.testing.assert_close(first, torch.tensor([[[0.75, 1.5], [0.0, 3.0]]]))
    # y1: d y / d A1 = 2 x / 4, whose mean is 6 / 8; d y / d A2 = 5 / 4; L = ReLU(0.75 x - 2.5 x)
    second = heat.grad_cam(network, network.maps, x, torch.tensor([1]))
    torch.testing.assert_close(second, torch.tensor([[[0.0, 0.0], [1.75, 0.0]]]))


def test_each_image_is_explained_for_its_own_class():
    network, x = Tiny(), torch.randn(3, 1, 4, 4)
    together = heat.grad_cam(network, network.maps, x, torch.tensor([0, 1, 0]))
    for i, target in enumerate([0, 1, 0]):
        alone = heat.grad_cam(network, network.maps, x[[i]], torch.tensor([target]))
        torch.testing.assert_close(together[[i]], alone)


def test_after_the_last_layer_cam_is_grad_cam_but_for_a_factor():
    """For a network that pools and then has one dense layer: alpha = w / Z (Selvaraju et al., 2017, section 3.1)."""
    torch.manual_seed(0)
    network = resnet18().eval()
    x, target = torch.rand(2, 1, 64, 64), torch.tensor([0, 1])
    with torch.no_grad():
        maps = nn.Sequential(*list(network.children())[:-2])(x)
    cam = heat.cam(maps, network.fc.weight.detach()[target])
    torch.testing.assert_close(cam / 4, heat.grad_cam(network, network.layer4, x, target), rtol=1e-4, atol=1e-6)


def test_lime_finds_the_squares_that_a_linear_score_depends_on():
    weights = torch.zeros(8, 8)
    weights[:2, :2], weights[4:6, 6:] = 1.0, -2.0  # squares (0, 0) and (2, 3) of 4 x 4

    def forward(x: torch.Tensor) -> torch.Tensor:
        score = (x * weights).sum((1, 2, 3))
        return torch.stack([score, -score], dim=1)

    torch.manual_seed(0)
    found = heat.lime(forward, torch.ones(1, 8, 8), 0, grid=4, samples=300)
    expected = torch.zeros(4, 4)
    expected[0, 0], expected[2, 3] = 4.0, -8.0  # what a whole square adds to the score
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.05)
    torch.testing.assert_close(heat.lime(forward, torch.ones(1, 8, 8), 1, 4, 300), -expected, atol=0.1, rtol=0.05)


def test_energies_sum_to_one_or_there_is_no_map():
    maps = torch.tensor([[[1.0, -3.0], [2.0, 1.0]], [[-1.0, -2.0], [0.0, -1.0]]])
    energy = heat.energies(maps, 16)
    assert energy[0].sum() == pytest.approx(1, abs=1e-12)
    assert (energy >= 0).all()
    assert not energy[1].any()
    np.testing.assert_allclose(heat.energies(maps[:1], 4, "nearest")[0, ::2, ::2], [[0.0625, 0], [0.125, 0.0625]])


def test_location_by_hand():
    energy = np.array([[0.5, 0.2, 0.0], [0.2, 0.1, 0.0]])
    mask = np.array([[True, False, False], [False, True, True]])
    others = np.array([[True, True, False], [False, False, False]])  # the first pixel is of both: the mask's
    found = heat.location(energy, mask, others, "chosen", rng())
    # three hottest: (0,0), (0,1), (1,0); one of them is on the mask of three
    by_hand = {"chosen": 0.6, "other": 0.2, "background": 0.2, "pointing": 1, "iou": 1 / 5}
    by_hand |= {"chosen_over_area": 0.6 * 2, "other_over_area": 0.2 * 6, "specificity": 0.6 * 2 - 0.2 * 6}
    assert found == pytest.approx(by_hand)
    assert tuple(found) == heat.location_measures("chosen")
    assert heat.location(energy, ~mask, others, "chosen", rng())["pointing"] == 0
    best = heat.location(mask / 3, mask, others, "chosen", rng())
    assert (best["chosen"], best["pointing"], best["iou"], best["specificity"]) == (pytest.approx(1), 1, 1, 2)
    nothing = heat.location(np.zeros((2, 3)), mask, others, "chosen", rng())
    assert set(nothing) == set(found)
    assert all(math.isnan(value) for value in nothing.values())


def test_heat_on_shapes_of_either_kind_is_on_evidence_and_not_specific():
    """What `chosen_over_area` alone would take for a map of the class."""
    squares, circles = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    squares[:2, :5], circles[5:, :8] = True, True  # 10 and 40 pixels
    locate = partial(heat.location, mask=squares, others=circles, name="chosen", rng=rng())
    either = locate((squares | circles) / 50)
    assert either["chosen_over_area"] == pytest.approx(2)
    assert either["other_over_area"] == pytest.approx(2)
    assert either["specificity"] == pytest.approx(0)
    assert locate(circles / 40)["specificity"] == pytest.approx(-2.5)
    # where there is no other kind, heat cannot be told from it
    alone = heat.location(squares / 10, squares, ~squares & squares, "chosen", rng())
    assert (alone["other"], alone["background"], alone["chosen_over_area"]) == (0, 0, pytest.approx(10))
    assert math.isnan(alone["other_over_area"])
    assert math.isnan(alone["specificity"])


def test_networks_with_random_weights_differ_and_are_the_same_again():
    def drawn(name: str) -> list[torch.Tensor]:
        return [layer.weight.detach() for _, layer in heat.untrained(lambda: nn.Linear(3, 1), 0, name)]

    first, again, other = drawn("a"), drawn("a"), drawn("b")
    assert len(first) == heat.RANDOM_NETWORKS
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not any(torch.equal(x, y) for x, y in pairwise(first))
    assert not any(torch.equal(x, y) for x, y in zip(first, other, strict=True))


def test_equal_heat_has_no_preferred_place():
    mask = np.zeros((20, 20), bool)
    mask[:4] = True  # a fifth, the first in memory
    locate = partial(heat.location, np.full((20, 20), 1 / 400), mask, ~mask, "chosen")
    hits = [locate(np.random.default_rng(i))["pointing"] for i in range(300)]
    assert 0.12 < np.mean(hits) < 0.28


def test_deletion_and_insertion_of_a_known_network():
    """A logit of 10 for the left half lit, else 0, in equal parts of a pixel: a map of the left half is the best."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        lit = x[:, 0, :, :5].mean((1, 2))
        return torch.stack([20 * lit - 10, torch.zeros(len(lit))], dim=1)

    image = torch.ones(1, 10, 10)
    left = np.zeros((10, 10))
    left[:, :5] = 1 / 50
    best, worst = (heat.faithfulness(forward, image, e, 0, rng()) for e in (left, 1 / 50 - left))
    p = [1 / (1 + math.exp(-(20 * part - 10))) for part in (1, 0.8, 0.6, 0.4, 0.2, 0)] + [1 / (1 + math.exp(10))] * 5
    by_hand = sum((a + b) / 2 for a, b in pairwise(p)) / 10
    assert best["deletion"] == pytest.approx(by_hand, abs=1e-5)
    assert best["insertion"] == pytest.approx(1 - by_hand, abs=1e-5)
    assert worst["deletion"] > 0.6 > 0.4 > worst["insertion"]
    assert all(math.isnan(value) for value in heat.faithfulness(forward, image, 0 * left, 0, rng()).values())
