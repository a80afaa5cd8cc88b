"""Gradient descent beside Adam: steps by hand, its rates, what diverges, and what 'stable' counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.params import load_params
from pipeline.posenet.network import Cell, PosENets
from pipeline.posenet.optimizers import EVERY, stability
from pipeline.posenet.patterns import pattern
from pipeline.posenet.scores import score_maps
from pipeline.posenet.train import descend, learning_rates

SIZE = 6


def one_network() -> PosENets:
    return PosENets([Cell("all", 1, 0, "H", 0)], {"pixels": 1}, 0)


def test_steps_of_descent_by_hand():
    """With momentum m: v = m v + g, and w falls by rate times v; g: mean of 2 (w x + b - y) x, and decay times w."""
    params = load_params()
    rng = np.random.default_rng(0)
    images = params.at_scale.posenet.batch_size
    features = rng.uniform(0, 1, (images, 1, SIZE, SIZE))
    network = one_network()
    (weight,), (bias,) = (list(group.values()) for group in (network.weights, network.biases))
    w, b = weight.item(), bias.item()
    descend(network, torch.from_numpy(features).float(), [0.1, 0.01], lambda _: torch.arange(images), params)
    momentum, decay = params.posenet.training.sgd.momentum, params.posenet.training.weight_decay
    x, y = features[:, 0], pattern("H", SIZE).astype(float)
    velocity = np.zeros(2)
    for rate in (0.1, 0.01):  # one batch an epoch
        off = 2 * (w * x + b - y)
        slope = np.array([(off * x).mean() + decay * w, off.mean() + decay * b])
        velocity = momentum * velocity + slope
        w, b = np.array([w, b]) - rate * velocity
    assert weight.item() == pytest.approx(w, abs=1e-5)
    assert bias.item() == pytest.approx(b, abs=1e-5)


def test_a_rate_that_is_too_large_leaves_weights_that_are_not_finite():
    """The error's curvature is above 2 * 200 ** 2: no rate above 1 / 200 ** 2 converges."""
    params, network = load_params(), one_network()
    features = torch.full((16, 1, SIZE, SIZE), 200.0)
    descend(network, features, [0.1] * 15, lambda _: torch.arange(16), params)
    assert not torch.isfinite(next(iter(network.weights.values()))).any()


def test_rates_are_adams_or_the_original_authors():
    params = load_params()
    epochs = params.at_scale.posenet.epochs
    assert epochs == 15
    assert learning_rates("sgd", params) == [params.at_scale.posenet.learning_rate] * 15
    assert learning_rates("sgd-original", params) == pytest.approx([0.1] * 10 + [0.01] * 5)


def test_what_is_not_finite_has_no_correlation_and_no_finite_error():
    target = pattern("H", 4)
    drawn = np.stack([target, np.full((4, 4), np.nan), np.where(target > 0.5, np.inf, target)])
    spearman, error = score_maps(drawn, target)
    assert spearman[0] == pytest.approx(1)
    assert np.isnan(spearman[1:]).all()
    assert error[0] == 0
    assert not np.isfinite(error[1:]).any()


def rows(reading: str, spearman: list[list[float]], mae: list[list[float]]) -> pd.DataFrame:
    """Two images, patterns H and V; a list a pattern, with a number for each of two runs."""
    return pd.DataFrame(
        {
            "reading": reading, "backbone": "vgg16", "variant": "random-zeros", "pattern": name, "run": run,
            "image": image, "spearman": spearman[i][run], "mae": mae[i][run],
        }
        for i, name in enumerate(("H", "V")) for run in range(2) for image in ("a", "b")
    )  # fmt: skip


def test_stability_by_hand():
    first = rows("first weights", [[0, 0], [0, 0]], [[1.0, 1.0], [1.0, 1.0]])
    adam = rows("adam", [[0.5, 0.7], [0.1, 0.1]], [[0.2, 0.2], [0.3, 0.3]])
    sgd = rows("sgd", [[0.5, np.nan], [0.1, 0.2]], [[0.2, np.nan], [0.3, 1.5]])
    found = {(row["optimizer"], row["network"]): row for row in stability(pd.concat([adam, first, sgd]))}
    assert set(found) == {(name, of) for name in ("adam", "sgd") for of in ("vgg16/random-zeros", EVERY)}
    mine, theirs = found["adam", "vgg16/random-zeros"], found["sgd", "vgg16/random-zeros"]
    assert (mine["trainings"], mine["stable"]) == (4, 1.0)
    assert theirs["stable"] == 0.5  # one has no error, one a higher one
    assert mine["stable_low"] == pytest.approx(4 / (4 + 1.959964**2))  # Wilson's, of 4 of 4
    # variances between runs: of 0.5 and 0.7, 0.02; of 0.1 and 0.1, 0
    assert mine["runs_apart"] == pytest.approx(0.1)
    # two degrees of freedom, whose chi-square has 7.378 and 0.0506 as its 97.5th and 2.5th percentiles
    assert mine["runs_apart_low"] == pytest.approx(0.1 * (2 / 7.3778) ** 0.5, rel=1e-3)
    assert mine["runs_apart_high"] == pytest.approx(0.1 * (2 / 0.050636) ** 0.5, rel=1e-3)
    assert mine["spearman"] == pytest.approx((0.6 + 0.1) / 2)
    assert np.isnan(theirs["runs_apart"])
    assert found["adam", EVERY]["stable"] == mine["stable"]
