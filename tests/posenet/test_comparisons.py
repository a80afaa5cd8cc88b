"""Intervals over images and runs, and the verdicts that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.posenet.comparisons import CLAIMS, Comparison, comparisons, measured, size, verdict

RNG = np.random.default_rng


def test_verdicts():
    assert [verdict(*i) for i in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1), (np.nan, np.nan))] == [
        "holds", "undecided", "reversed", "undefined"
    ]  # fmt: skip


def test_what_is_asked_of_the_networks_at_hand():
    shapes = [("all", 1, 0), ("all", 3, 0), ("all", 7, 0), ("all", 3, 2), ("conv1", 3, 0)]
    networks = [("pixels", "raw"), ("vgg16", "trained-zeros"), ("vgg16", "random-zeros"), ("vgg16", "trained-circular")]
    keys = [(*network, *shape) for network in networks for shape in shapes]
    asked = list(comparisons(keys, [1, 3, 7], [0, 2]))
    of = {claim: [one for one in asked if one.claim == claim] for claim in CLAIMS}
    assert len(of["trained - pixels"]) == len(of["random - pixels"]) == len(of["trained - random"]) == 1
    assert of["trained - random"][0].larger == ("vgg16", "trained-zeros", "all", 3, 0)
    assert of["trained - random"][0].smaller == ("vgg16", "random-zeros", "all", 3, 0)
    assert len(of["larger kernels"]) == 4 * 3  # 1-3, 3-7, 1-7
    assert len(of["more padding"]) == 4  # 0-2: two paddings are one question
    assert [one.larger[3] for one in of["larger kernels"] if one.in_headline] == [7, 7, 7]  # not of circular padding
    assert len(of["natural - black"]) == len(of["test image - black"]) == len(of["position is read"]) == 4
    assert [one.smaller[1] for one in of["zeros - circular"]] == ["trained-circular"]
    assert not of["zeros - reflect"]
    assert len(of["natural - smooth"]) == len(of["test image - natural"]) == 4


def test_differences_are_between_the_same_images():
    """Images differ much, the two networks by 0.1 on each: the interval is about the 0.1."""
    images = RNG(0).uniform(-1, 1, (1, 30))
    larger, smaller = ("vgg16", "trained-zeros", "all", 3, 0), ("pixels", "raw", "all", 3, 0)
    held_out = {}
    for name in ("H", "V"):
        held_out[larger, name] = np.repeat(images + 0.1, 2, axis=0)
        held_out[smaller, name] = np.repeat(images, 2, axis=0)
    rows = measured(Comparison("trained - pixels", larger, smaller), ["H", "V"], held_out, {})
    assert [row["pattern"] for row in rows] == ["H", "V", "mean"]
    for row in rows:
        assert row["difference"] == pytest.approx(0.1)
        assert (row["low"], row["high"]) == (pytest.approx(0.1), pytest.approx(0.1))
        assert row["verdict"] == "holds"


def test_a_test_image_stands_against_all_held_out_ones():
    key = ("vgg16", "trained-zeros", "all", 3, 0)
    held_out = {(key, "H"): np.array([[0.5, 0.7], [0.3, 0.5]])}
    tests = {"black": {(key, "H"): np.array([[0.1], [np.nan]])}}
    (row,) = measured(Comparison("natural - black", key, key, "black"), ["H"], held_out, tests)
    assert row["difference"] == pytest.approx(0.5)  # of the one run in which black's is defined
    assert row["undefined"] == 2
    assert row["smaller"] == "vgg16/trained-zeros, black image"


def test_the_documents_own_contrast_is_between_its_two_images():
    key = ("vgg16", "trained-zeros", "all", 3, 0)
    tests = {"natural": {(key, "H"): np.array([[0.7], [0.5]])}, "black": {(key, "H"): np.array([[0.2], [0.2]])}}
    (row,) = measured(Comparison("test image - black", key, key, "black", "natural"), ["H"], {}, tests)
    assert row["difference"] == pytest.approx(0.4)
    assert row["larger"] == "vgg16/trained-zeros, natural image"


def test_images_without_texture_stand_against_themselves():
    """Images differ much, what their texture is worth by little."""
    key = ("vgg16", "trained-zeros", "all", 3, 0)
    images = RNG(0).uniform(-1, 1, (2, 30))
    (asked,) = [one for one in comparisons([key], [3], [0]) if one.claim == "natural - smooth"]
    (row,) = measured(asked, ["H"], {(key, "H"): images}, {"smooth": {(key, "H"): images + 0.1}})
    assert [row[name] for name in ("difference", "low", "high")] == pytest.approx([-0.1] * 3)
    assert [row[name] for name in ("size", "size_low", "size_high")] == pytest.approx([0.1] * 3)
    assert row["smaller"] == "vgg16/trained-zeros, smooth image"


def test_the_test_image_stands_against_held_out_ones():
    key = ("vgg16", "trained-zeros", "all", 3, 0)
    (asked,) = [one for one in comparisons([key], [3], [0]) if one.claim == "test image - natural"]
    tests = {"natural": {(key, "H"): np.array([[0.9], [0.7]])}}
    (row,) = measured(asked, ["H"], {(key, "H"): np.array([[0.5, 0.7], [0.3, 0.5]])}, tests)
    assert row["difference"] == pytest.approx(0.3)  # 0.8, and 0.5 on average
    assert (row["larger"], row["smaller"]) == ("vgg16/trained-zeros, natural image", "vgg16/trained-zeros")


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.3, (0.1, 0.3)), (-0.3, -0.1, (0.1, 0.3)), (-0.1, 0.3, (0.0, 0.3))]
)
def test_the_interval_of_a_size(low, high, expected):
    assert size(low, high) == pytest.approx(expected)


def test_the_size_of_what_is_undefined_is_undefined():
    assert np.isnan(size(np.nan, np.nan)).all()


def test_a_mean_over_patterns_needs_them_all():
    key = ("vgg16", "trained-zeros", "all", 3, 0)
    held_out = {(key, "H"): np.full((2, 3), 0.5), (key, "V"): np.full((2, 3), np.nan)}
    rows = measured(Comparison("position is read", key, None), ["H", "V"], held_out, {})
    assert [(row["pattern"], row["verdict"], row["undefined"]) for row in rows] == [
        ("H", "holds", 0), ("V", "undefined", 6), ("mean", "undefined", 6)
    ]  # fmt: skip
