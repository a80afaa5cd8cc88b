"""Kappa, its bounds and what chance gives: against numbers by hand, enumeration, and scikit-learn."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency import error_consistency
from pipeline.consistency.kappa import (
    Design,
    agreement_bounds,
    agreement_bounds_at,
    chance_interval,
    expected_within,
    interval,
    simulated_kappas,
)


def test_by_hand():
    # p_a = 3/4, p_b = 2/4; agree on 3 of 4; expected 3/8 + 1/8
    observed, expected, kappa = error_consistency([1, 1, 1, 0], [1, 0, 1, 0])
    assert (observed, expected, kappa) == (0.75, 0.5, 0.5)


def test_the_extremes():
    right = np.array([True, False, True, False])
    assert error_consistency(right, right).kappa == 1
    assert error_consistency(right, ~right).kappa == -1
    assert error_consistency([1, 1, 0, 0], [1, 0, 1, 0]).kappa == 0


@pytest.mark.parametrize(("a", "b", "observed", "kappa"), [(1, 1, 1, None), (0, 0, 1, None), (1, 0, 0, 0)])
def test_observers_without_variation(a, b, observed, kappa):
    result = error_consistency(np.full(7, a), np.full(7, b))
    assert (result.observed, result.kappa) == (observed, kappa)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 0], [1, 0, 1], r"shapes \(2,\) and \(3,\)"),
        ([], [], "shapes"),
        ([[1, 0]], [[1, 0]], "shapes"),
        ([1, 2], [1, 0], "right .* or wrong"),
        ([1, np.nan], [1, 0], "right .* or wrong"),
    ],
)
def test_what_are_not_trials_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        error_consistency(a, b)


def test_every_pair_is_cohens_kappa():
    correct = np.random.default_rng(0).random((12, 301)) < np.linspace(0.1, 0.95, 12)[:, None]
    design = Design(correct)
    kappa = design.counts().kappa
    for pair, (i, j) in enumerate(zip(design.first, design.second, strict=True)):
        assert kappa[pair] == pytest.approx(cohen_kappa_score(correct[i], correct[j]), abs=1e-12)


def test_weights_are_repetitions_of_trials():
    rng = np.random.default_rng(1)
    correct = rng.random((5, 40)) < 0.6
    design = Design(correct)
    weights = design.resample(3, rng)
    assert (weights.sum(axis=1) == 40).all()
    counts = design.counts(weights)
    for r in range(3):
        repeated = np.repeat(correct, weights[r], axis=1)
        for pair, (i, j) in enumerate(zip(design.first, design.second, strict=True)):
            assert counts.kappa[r, pair] == pytest.approx(cohen_kappa_score(repeated[i], repeated[j]), abs=1e-12)


def test_pairs_are_compared_on_the_trials_that_both_had():
    rng = np.random.default_rng(2)
    correct, seen = rng.random((4, 60)) < 0.5, rng.random((4, 60)) < 0.7
    seen[0, :30], seen[1, 30:] = False, False  # 0 and 1 share none
    design = Design(correct, seen)
    counts = design.counts()
    for pair, (i, j) in enumerate(zip(design.first, design.second, strict=True)):
        common = seen[i] & seen[j]
        assert counts.trials[pair] == common.sum()
        if common.any():
            wanted = error_consistency(correct[i, common], correct[j, common])
            assert counts.kappa[pair] == pytest.approx(wanted.kappa, abs=1e-12)
            assert counts.expected[pair] == pytest.approx(wanted.expected, abs=1e-12)
        else:
            assert np.isnan(counts.kappa[pair])


def test_resamples_draw_every_trial_equally_often():
    weights = Design(np.ones((2, 50), dtype=bool)).resample(4000, np.random.default_rng(0))
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.03)  # multinomial


def tables(n: int):
    """All 2 x 2 tables of n trials: both right, only a, only b, neither."""
    return (cells for cells in product(range(n + 1), repeat=4) if sum(cells) == n)


def test_bounds_are_the_extremes_of_all_tables():
    n = 8
    extremes: dict[tuple[int, int], list[float]] = {}
    for both, only_a, only_b, neither in tables(n):
        extremes.setdefault((both + only_a, both + only_b), []).append((both + neither) / n)
    for (right_a, right_b), observed in extremes.items():
        low, high = agreement_bounds(right_a / n, right_b / n)
        assert (low, high) == pytest.approx((min(observed), max(observed)))


def test_bounds_at_an_expected_agreement_hold_and_are_met():
    p = np.linspace(0, 1, 201)
    p_a, p_b = np.meshgrid(p, p)
    expected = p_a * p_b + (1 - p_a) * (1 - p_b)
    low, high = agreement_bounds(p_a, p_b)
    least, most = agreement_bounds_at(expected)
    assert (low >= least - 1e-7).all()
    assert (high <= most + 1e-7).all()
    equal = np.isclose(p_a, p_b)
    assert low[equal] == pytest.approx(least[equal], abs=1e-7)
    opposite = np.isclose(p_a, 1 - p_b)
    assert high[opposite] == pytest.approx(most[opposite], abs=1e-7)


def test_the_chance_interval_is_that_of_shuffled_trials():
    rng = np.random.default_rng(0)
    a, b = np.arange(200) < 150, np.arange(200) < 60
    kappas = [cohen_kappa_score(a, rng.permutation(b)) for _ in range(2000)]
    low, high = chance_interval(150, 60, 200)
    assert low == pytest.approx(np.quantile(kappas, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(kappas, 0.975), abs=0.02)
    outside = np.mean([(k < low - 1e-9) | (k > high + 1e-9) for k in kappas])
    assert outside <= 0.05


@pytest.mark.parametrize(("p_a", "p_b"), [(0.7, 0.7), (0.9, 0.6), (0.2, 0.8)])
def test_simulated_and_exact_chance_agree(p_a, p_b):
    simulated = simulated_kappas(p_a, p_b, 1280, 20_000, np.random.default_rng(0))
    assert simulated.mean() == pytest.approx(0, abs=0.002)
    exact = chance_interval(round(p_a * 1280), round(p_b * 1280), 1280)
    assert np.array(interval(simulated)) == pytest.approx(np.array(exact), abs=0.006)


def test_expected_within_conditions_by_hand():
    # an easy condition, both always right: expected 1; a hard one, both right half the time: expected 1/2
    easy = Design(np.ones((2, 4), dtype=bool)).counts()
    hard = Design(np.array([[True, False] * 2, [True, True, False, False]])).counts()
    assert expected_within([easy, hard]) == pytest.approx([0.75])
    pooled = easy + hard
    assert pooled.observed == pytest.approx([0.75])  # 4 + 2 of 8: nothing beyond chance within conditions,
    assert pooled.expected == pytest.approx([0.625])  # but thrown together, expected is 9/16 + 1/16
    assert pooled.kappa == pytest.approx([1 / 3])


def test_intervals_leave_out_what_is_undefined():
    values = np.array([[0.0, np.nan], [1.0, np.nan], [np.nan, np.nan]])
    low, high = interval(values)
    assert (low[0], high[0]) == pytest.approx((0.025, 0.975))
    assert np.isnan(low[1])
    assert np.isnan(high[1])
