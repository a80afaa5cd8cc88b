"""The document's definitions under test: the tests of them can fail, and give what arithmetic by hand does."""

from __future__ import annotations

import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from pipeline.localize import definitions
from pipeline.localize.counters import build
from pipeline.localize.definitions import (
    anchors_of,
    box_formula,
    candidates,
    conv_layer,
    grad_cam_by_hand,
    greedy,
    heads,
    huber,
    jaccard,
    jaccard_of_sets,
    matching,
)
from pipeline.params import load_params


def test_jaccard_of_pixel_sets_by_hand():
    a = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 4, 4]])
    b = torch.tensor([[1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 2, 2]])
    assert jaccard_of_sets(a, b, 6).tolist() == pytest.approx([1 / 7, 0, 4 / 16])


def test_random_boxes_have_an_area():
    torch.manual_seed(0)
    x0, y0, x1, y1 = definitions.random_boxes(2000, 20).unbind(1)
    assert (x1 > x0).all()
    assert (y1 > y0).all()
    assert min(x0.min(), y0.min()) == 0


def test_iou_has_a_gradient_exactly_where_boxes_meet():
    torch.manual_seed(1)
    found = jaccard()
    assert found["apart_from_torchvision"] < 1e-12
    assert found["gradient_where_boxes_meet"] == 1
    assert found["gradient_where_they_do_not"] < 0.2  # boxes that touch


def test_the_printed_formula_makes_every_box_a_square():
    # width over height is 1 whatever r is, so for r = 3, the largest that is tried, it is off by 2
    assert box_formula() == {"as_printed": pytest.approx(2.0), "textbook": pytest.approx(0.0, abs=1e-12)}


def test_grad_cam_by_hand_on_one_weight():
    """Maps A = 2 x, score = 3 * sum of A: alpha = 3 everywhere, L = ReLU(3 * 2 x)."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    head = nn.Linear(4, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(head.weight, 3.0)
    network = nn.Sequential(layer, nn.Flatten(), head)
    image = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]]])
    heat = grad_cam_by_hand(network, layer, image, torch.tensor([0]))
    assert heat[0].tolist() == [[6.0, 0.0], [3.0, 0.0]]


def test_heads_have_the_documents_channels_but_for_proposals():
    params = load_params(REPOSITORY / "params.yaml")
    found = heads(params)
    anchors = 2  # of a place: sizes, without other aspect ratios than 1
    assert found == {
        "ssd_category_beyond": 0,
        "ssd_offsets_beyond": 0,
        "proposals_category_beyond": anchors - 3 * anchors,  # one channel an anchor, not one a category
        "proposals_offsets_beyond": 0,
    }


def test_boxes_of_an_image_are_counted(monkeypatch):
    """Of 2 x 2 pixels: four of one, two wide ones, two high ones, and the whole."""
    monkeypatch.setattr(definitions, "SIDE", 2)
    params = load_params(REPOSITORY / "params.yaml")
    found = candidates(params, torch.zeros(7, 4))
    assert (2 * 3 // 2) ** 2 == 9
    assert (found["apart_from_formula"], found["anchors"]) == (0, 7)
    assert params.at_scale.shapes.resolution == 64
    assert found["boxes"] == sum(65 - width for width in range(1, 65)) * sum(65 - height for height in range(1, 65))


def test_anchors_are_two_a_place_of_both_maps():
    params = load_params(REPOSITORY / "params.yaml")
    assert len(anchors_of(build("ssd", params).network, 64)) == 2 * (32**2 + 16**2)


def test_greedy_matching_by_hand():
    """The first box takes the anchor that both would like; the second makes do, whatever its overlap; one is left over.

    The third anchor's largest overlap is with the first box, and at least 0.5; the fourth's is less.
    """
    overlaps = torch.tensor([[0.9, 0.1, 0.6, 0.0], [0.8, 0.2, 0.5, 0.4]])
    assert greedy(overlaps, 0.5).tolist() == [0, -1, 1, -1]
    assert greedy(overlaps[:, :2], 0.5).tolist() == [0, 1]
    assert greedy(torch.tensor([[0.9, 0.3, 0.6, 0.4], [0.1, 0.7, 0.2, 0.0]]), 0.5).tolist() == [0, 1, 0, -1]


def test_a_matcher_that_asks_for_nothing_but_the_least_is_told_from_the_greedy_one():
    """torchvision's plain Matcher leaves boxes without an anchor, and keeps to the least."""
    from torchvision.models.detection._utils import Matcher

    params = load_params(REPOSITORY / "params.yaml")
    network = build("ssd", params).network
    anchors = anchors_of(network, 64)
    torch.manual_seed(0)
    ssds = matching(network, anchors, params)
    network.proposal_matcher = Matcher(0.5, 0.5)
    torch.manual_seed(0)
    plain = matching(network, anchors, params)
    assert plain["below_least"] == 0
    assert plain["otherwise"] >= plain["without_anchor"] > 0
    assert ssds["without_anchor"] < plain["without_anchor"]
    assert ssds["below_least"] > 0


def test_huber_is_l2_near_zero_and_l1_away_from_it():
    assert max(huber().values()) < 1e-12


def test_a_conv_layer_follows_shifts_and_not_scales_but_behind_pooling_it_does():
    torch.manual_seed(0)
    found = conv_layer(nn.Conv2d(1, 8, 3).double())
    assert found["apart_when_shifted"] < 1e-12
    assert found["apart_behind_pooling"] < 1e-12
    assert 0.1 < found["apart_when_scaled"] < 2
    assert 0.1 < found["apart_when_rotated"] < 2


def test_maps_of_a_layer_that_sees_single_pixels_scale_with_the_image():
    """So that the measure can be 0; one that sees the pixel to the right has half of them otherwise."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 1, 3, bias=False).double()
    with torch.no_grad():
        conv.weight.zero_()[..., 1, 1] = 2.0
        found = conv_layer(conv)
        assert found["apart_when_scaled"] == pytest.approx(0, abs=1e-12)
        assert found["apart_when_rotated"] == pytest.approx(0, abs=1e-12)
        conv.weight.zero_()[..., 1, 2] = 2.0
    # the left one of two equal pixels has its twin to the right, where the enlarged maps have the next pixel: at half
    # of the places the difference of two independent pixels, whose mean square is twice their variance
    found = conv_layer(conv)
    assert found["apart_when_scaled"] == pytest.approx(1.0, abs=0.03)
    # turned, the neighbour is another one at every place
    assert found["apart_when_rotated"] == pytest.approx(2**0.5, abs=0.03)
