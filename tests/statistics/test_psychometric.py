"""Psychometric fits against planted parameters, scipy's optimiser, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom, binomtest, norm

from pipeline.statistics.intervals import wilson
from pipeline.statistics.psychometric import LAPSES, PRIOR_SD, fit, maximise, probability

MARGINS = np.arange(-8, 9, 2)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def log_posterior(circle, total, intercept, slope, lapse):
    likelihood = binom.logpmf(circle, total, probability(MARGINS, intercept, slope, lapse)).sum()
    return likelihood + norm.logpdf([intercept, slope], scale=PRIOR_SD).sum()


@pytest.mark.parametrize(("pse", "slope", "lapse"), [(0, 0.5, 0), (-4, 0.3, 0.05), (3, 1.2, 0.02), (6, 0.4, 0.1)])
def test_planted_parameters_are_recovered(pse, slope, lapse):
    total = np.full(len(MARGINS), 4000)
    circle = rng().binomial(total, probability(MARGINS, -slope * pse, slope, lapse))
    found = fit(MARGINS, circle, total, rng(1), 200)
    assert found.pse == pytest.approx(pse, abs=0.25)
    assert found.slope == pytest.approx(slope, rel=0.1)
    assert found.lapse == pytest.approx(lapse, abs=0.021)
    assert found.pse_interval[0] < found.pse < found.pse_interval[1]


@pytest.mark.parametrize("seed", range(6))
def test_no_other_optimiser_finds_a_higher_posterior(seed):
    r = rng(seed)
    total = np.full(len(MARGINS), 60)
    circle = r.binomial(total, probability(MARGINS, r.normal(0, 2), r.uniform(0.05, 1.5), r.uniform(0, 0.08)))
    (intercept, slope), lapse = maximise(MARGINS, circle, total)
    ours = log_posterior(circle, total, intercept, slope, lapse)
    for grid_lapse in LAPSES:
        for start in ([0, 0.1], [2, 1], [-2, 1], [0, -0.5]):
            theirs = -minimize(
                lambda b, g=grid_lapse: -log_posterior(circle, total, *b, g), start, method="Nelder-Mead"
            ).fun
            assert ours >= theirs - 1e-5


def test_many_at_once_equal_one_by_one():
    total = np.full(len(MARGINS), 60)
    circle = rng(3).binomial(60, np.linspace(0.1, 0.9, 9), size=(20, 9))
    together, lapses = maximise(MARGINS, circle, total)
    for i, row in enumerate(circle):
        alone, lapse = maximise(MARGINS, row, total)
        np.testing.assert_allclose(together[i], alone, atol=1e-5)
        assert lapses[i] == lapse


def test_intervals_cover_the_truth_about_as_often_as_they_claim():
    total = np.full(len(MARGINS), 60)
    covered = 0
    for i in range(40):
        circle = rng(100 + i).binomial(total, probability(MARGINS, 0.8, 0.4, 0))  # PSE -2
        low, high = fit(MARGINS, circle, total, rng(i), 200).pse_interval
        covered += low <= -2 <= high
    assert covered >= 33  # of 40; 38 expected at 95%


def test_perfect_separation_stays_finite_and_symmetric():
    total = np.full(len(MARGINS), 60)
    found = fit(MARGINS, np.array([0, 0, 0, 0, 30, 60, 60, 60, 60]), total, rng(), 100)
    assert found.pse == pytest.approx(0, abs=1e-6)
    assert 2 < found.slope < 10
    assert found.lapse == 0


@pytest.mark.parametrize("answers", [[30] * 9, [60] * 9, [0] * 9, [50, 45, 40, 35, 30, 25, 20, 15, 10]])
def test_answers_that_do_not_rise_have_no_boundary(answers):
    found = fit(MARGINS, np.array(answers), np.full(9, 60), rng(), 200)
    assert found.pse is None
    assert found.pse_interval == (None, None)


def test_a_boundary_outside_the_margins_is_extrapolated_with_a_wide_interval():
    total = np.full(9, 200)
    circle = rng(5).binomial(total, probability(MARGINS, 3.0, 0.2, 0))  # PSE -15
    found = fit(MARGINS, circle, total, rng(), 200)
    low, high = found.pse_interval
    assert found.pse == pytest.approx(-15, abs=6)
    assert (high if high is not None else np.inf) - (low if low is not None else -np.inf) > 3


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (451, 480)])
def test_wilson_is_scipys(k, n):
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(np.array(k), np.array(n)), (theirs.low, theirs.high), atol=1e-12)
