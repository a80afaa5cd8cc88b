"""Intervals over images and runs, and the verdicts that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.posenet.comparisons import CLAIMS, Bootstrap, Comparison, comparisons, measured, verdict

RNG = np.random.default_rng


def test_an_interval_without_noise_is_a_point():
    found = Bootstrap(2, 5, 200, RNG(0)).interval(np.full((2, 5), 0.25))
    assert found == {"mean": 0.25, "low": pytest.approx(0.25), "high": pytest.approx(0.25)}


def test_intervals_cover_the_mean_about_as_often_as_they_claim():
    covered, rng = 0, RNG(0)
    for trial in range(300):
        values = rng.normal(0, 1, (1, 40)) + rng.normal(0, 0.0, (4, 1))  # four equal runs: images vary alone
        found = Bootstrap(4, 40, 400, RNG(trial)).interval(np.broadcast_to(values, (4, 40)))
        covered += found["low"] <= 0 <= found["high"]
    assert 0.90 < covered / 300 < 0.99


def test_runs_widen_the_interval():
    images = RNG(0).normal(0, 0.01, (1, 50))
    runs = np.array([[-0.3], [0.0], [0.3]])
    bootstrap = Bootstrap(3, 50, 1000, RNG(1))
    narrow = bootstrap.interval(np.broadcast_to(images, (3, 50)))
    wide = bootstrap.interval(images + runs)
    assert wide["high"] - wide["low"] > 10 * (narrow["high"] - narrow["low"])


def test_what_is_undefined_is_left_out():
    values = np.array([[0.5, np.nan, 0.5], [0.5, 0.5, np.nan]])
    bootstrap = Bootstrap(2, 3, 100, RNG(0))
    assert bootstrap.interval(values)["mean"] == 0.5
    assert np.isnan(bootstrap.interval(np.full((2, 3), np.nan))["low"])


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
    assert len(of["more padding"]) == 4 * 2  # 0-2, and the largest against none
    assert len(of["natural - black"]) == 4
    assert [one.smaller[1] for one in of["zeros - circular"]] == ["trained-circular"]
    assert not of["zeros - reflect"]


def test_differences_are_between_the_same_images():
    """Images differ much, the two networks by 0.1 on each: the interval is about the 0.1."""
    images = RNG(0).uniform(-1, 1, (1, 30))
    larger, smaller = ("vgg16", "trained-zeros", "all", 3, 0), ("pixels", "raw", "all", 3, 0)
    held_out = {}
    for name in ("H", "V"):
        held_out[larger, name] = np.repeat(images + 0.1, 2, axis=0)
        held_out[smaller, name] = np.repeat(images, 2, axis=0)
    bootstrap = Bootstrap(2, 30, 300, RNG(0))
    rows = measured(Comparison("trained - pixels", larger, smaller), ["H", "V"], held_out, {}, bootstrap)
    assert [row["pattern"] for row in rows] == ["H", "V", "mean"]
    for row in rows:
        assert row["difference"] == pytest.approx(0.1)
        assert (row["low"], row["high"]) == (pytest.approx(0.1), pytest.approx(0.1))
        assert row["verdict"] == "holds"


def test_a_test_image_stands_against_all_held_out_ones():
    key = ("vgg16", "trained-zeros", "all", 3, 0)
    held_out = {(key, "H"): np.array([[0.5, 0.7], [0.3, 0.5]])}
    tests = {"black": {(key, "H"): np.array([[0.1], [np.nan]])}}
    bootstrap = Bootstrap(2, 2, 100, RNG(0))
    (row,) = measured(Comparison("natural - black", key, key, "black"), ["H"], held_out, tests, bootstrap)
    assert row["difference"] == pytest.approx(0.5)  # of the one run in which black's is defined
    assert row["undefined"] == 2
    assert row["smaller"] == "vgg16/trained-zeros, black image"
