"""Moving scenes by hand; and what must not change when they move."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pipeline.localize.network import resnet18
from pipeline.localize.scenes import CIRCLE, SQUARE, Shapes, parse
from pipeline.localize.shift import changes, drawn, kept, linear, logits, majority, move, transform
from pipeline.padding import pad_with
from pipeline.params import load_params
from pipeline.shapes.scenes import draw_shapes, render
from pipeline.shards import item_rng


def test_moves_by_hand():
    image = torch.arange(9, dtype=torch.uint8).view(1, 3, 3) + 1
    assert move(image, 1, 2, "rolled").tolist() == [[[3, 1, 2], [6, 4, 5], [9, 7, 8]]]
    assert move(image, 1, 2, "cut").tolist() == [[[0, 1, 2], [0, 4, 5], [0, 7, 8]]]
    assert move(image, 2, 1, "cut").tolist() == [[[0, 0, 0], [0, 0, 0], [1, 2, 3]]]
    assert move(image, 0, 1, "cut").tolist() == image.tolist()
    assert image.min() == 1  # the scene itself is left alone


def test_quarter_turns_and_zooms_by_hand():
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 256, (2, 16, 16), dtype=np.uint8)
    assert transform(fine, 16, 90, 1, "turned").equal(torch.from_numpy(np.rot90(fine, -1, (1, 2)).copy()))  # right
    assert transform(fine, 16, 90, 2, "turned").equal(torch.from_numpy(np.rot90(fine, 1, (1, 2)).copy()))
    assert transform(fine, 16, 0, 1, "turned").equal(torch.from_numpy(fine))
    square = Shapes(np.array([SQUARE]), np.array([0.5]), np.array([0.5]), np.array([0.125]))  # 1/16 of the image
    scene = drawn([square], 64)
    assert scene.shape == (1, 512, 512)
    for by in (50, 100):
        for direction, factor in ((1, 1 + by / 100), (2, 1 / (1 + by / 100))):
            area = transform(scene, 64, by, direction, "zoomed").double().mean().item() / 255
            assert area == pytest.approx(factor**2 / 16, rel=0.02)


@pytest.mark.parametrize("density", [10, 60])
def test_what_is_drawn_anew_is_what_the_shapes_study_draws(density):
    """So that a decision about it is one about the scene."""
    scene = load_params().shapes.scene
    shapes = draw_shapes(item_rng(0, f"test/{density}"), density // 2, density // 2, scene)
    image = render(shapes, 64, scene).astype(int)
    anew = transform(drawn([parse(shapes.record(), scene.canvas)], 64), 64, 0, 1, "turned")[0].numpy().astype(int)
    assert np.abs(anew - image).mean() < 0.03 * image.mean()


def test_a_shape_moves_as_its_pixels_do():
    """A dot drawn at a shape's centre is found where the centre is said to come to lie."""
    side, place = 65, np.array([0.2, 0.1])
    dot = np.zeros((1, side, side), np.uint8)
    column, row = np.round((place + 0.5) * side - 0.5).astype(int)
    dot[0, row, column] = 255
    for by, direction, way in ((30, 1, "turned"), (30, 2, "turned"), (40, 1, "zoomed"), (20, 2, "zoomed")):
        moved = transform(dot, side, by, direction, way)[0].double()
        at = [(moved.sum(dim=axis) @ torch.arange(side).double() / moved.sum()).item() for axis in (0, 1)]
        expected = (linear(by, direction, way) @ ((np.array([column, row]) + 0.5) / side - 0.5) + 0.5) * side - 0.5
        assert at == pytest.approx(expected, abs=0.3)


def test_what_is_kept_of_a_scene():
    corners = Shapes(
        np.full(4, SQUARE), np.array([0.05, 0.95, 0.5, 0.3]), np.array([0.05, 0.5, 0.5, 0.7]), np.full(4, 0.02)
    )
    assert kept(corners, 90, 1, "turned").all()
    assert kept(corners, 45, 1, "turned").tolist() == [False, True, True, True]  # the corner leaves, 0.45 * 2**0.5 away
    assert kept(corners, 25, 1, "zoomed").tolist() == [False, False, True, True]
    assert kept(corners, 25, 2, "zoomed").all()
    assert kept(corners, 0.1, 2, "cut").tolist() == [True, False, True, True]
    assert kept(corners, 0.1, 2, "rolled").all()


def test_changes_of_pixels_and_contents_by_hand():
    """One white row of four in either scene, another one in each: a shift by one is as far as the other scene."""
    pixels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    pixels[0, 0], pixels[1, 2] = 255, 255
    place = np.array([0.125, 0.9])
    shapes = [Shapes(np.full(2, SQUARE), place, place, np.full(2, 0.02))] * 2
    down, right = (move(pixels, 1, axis, "rolled") for axis in (1, 2))
    found = changes(pixels, [down, right], shapes, 1 / 4, "rolled")
    assert found["pixels_apart"] == pytest.approx(1 / 2)  # down, the whole distance; to the right, none
    assert found["shapes_lost"] == 0
    assert changes(pixels, [down, right], shapes, 1 / 4, "cut")["shapes_lost"] == 0.5
    assert changes(pixels, [pixels, pixels], shapes, 0, "cut")["pixels_apart"] == 0


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
