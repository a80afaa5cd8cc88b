"""Moving scenes by hand; and what must not change when they move."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pipeline.localize.network import resnet18
from pipeline.localize.scenes import CIRCLE, SQUARE, Shapes
from pipeline.localize.shift import logits, majority, move
from pipeline.padding import pad_with


def test_moves_by_hand():
    image = torch.arange(9, dtype=torch.uint8).view(1, 3, 3) + 1
    assert move(image, 1, 2, "rolled").tolist() == [[[3, 1, 2], [6, 4, 5], [9, 7, 8]]]
    assert move(image, 1, 2, "cut").tolist() == [[[0, 1, 2], [0, 4, 5], [0, 7, 8]]]
    assert move(image, 2, 1, "cut").tolist() == [[[0, 0, 0], [0, 0, 0], [1, 2, 3]]]
    assert move(image, 0, 1, "cut").tolist() == image.tolist()
    assert image.min() == 1  # the scene itself is left alone


@pytest.fixture
def network():
    torch.manual_seed(0)
    return resnet18().eval()


def apart(network, padding, by):
    pixels = torch.randint(0, 256, (4, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    padded = pad_with(copy.deepcopy(network), padding)
    return (logits(padded, move(pixels, by, 2, "rolled")) - logits(padded, pixels)).abs().max().item()


def test_with_its_other_end_for_padding_a_network_cannot_tell_a_roll_by_its_stride(network):
    assert apart(network, "circular", 32) < 1e-4
    assert apart(network, "circular", 7) > 1e-3  # but by its pooling's stride
    assert apart(network, "zeros", 32) > 1e-3  # and by its border
    assert apart(network, "reflect", 32) > 1e-3


def test_the_majority_is_of_what_is_left():
    two_circles_and_a_square = Shapes(
        np.array([CIRCLE, CIRCLE, SQUARE]), np.array([0.9, 0.8, 0.1]), np.array([0.1] * 3), np.full(3, 0.05)
    )
    assert majority([two_circles_and_a_square], 0.0, 2, "cut").tolist() == [True]
    assert majority([two_circles_and_a_square], 0.15, 2, "cut").tolist() == [False]  # one each: a tie
    assert majority([two_circles_and_a_square], 0.15, 1, "cut").tolist() == [True]  # moved down, all stay
    assert majority([two_circles_and_a_square], 0.5, 2, "rolled").tolist() == [True]
