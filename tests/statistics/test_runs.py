"""Intervals over images and training runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest, norm, ttest_1samp

from pipeline.statistics.intervals import jackknifed, over_runs, over_runs_and_images, share_over_runs

T1, T2 = 12.706, 4.303  # the 97.5% quantiles of Student's t with one and two degrees of freedom


def test_an_interval_without_noise_is_a_point():
    assert over_runs_and_images(np.full((2, 5), 0.25)) == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_an_interval_by_hand():
    """Runs' means 0.3 and 0.5, images' 0.2 and 0.6; nothing is left of an answer once its run and image are known."""
    found = over_runs_and_images(np.array([[0.1, 0.5], [0.3, 0.7]]))
    reach = T1 * (0.1**2 + 0.2**2) ** 0.5
    assert [found["mean"], found["low"], found["high"]] == pytest.approx([0.4, 0.4 - reach, 0.4 + reach], abs=1e-3)
    # runs' means 0.4 and 0.4, images' 0.3 and 0.5: of each answer 0.1 is left, which is all that runs differ by
    crossed = over_runs_and_images(np.array([[0.2, 0.6], [0.4, 0.4]]))
    assert crossed["high"] == pytest.approx(0.4 + T1 * 0.1, abs=1e-3)
    alone = over_runs_and_images(np.array([[0.1, 0.3]]))  # of one run: over images alone
    assert alone["high"] == pytest.approx(0.2 + T1 * 0.1, abs=1e-3)
    assert np.isnan(over_runs_and_images(np.array([[0.3]]))["low"])


def test_what_is_undefined_is_left_out():
    values = np.array([[0.5, np.nan, 0.5], [0.5, 0.5, np.nan], [np.nan] * 3])
    assert over_runs_and_images(values) == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert np.isnan(over_runs_and_images(np.full((2, 3), np.nan))["low"])


def test_a_share_of_one_run_has_wilsons_interval():
    expected = binomtest(7, 10).proportion_ci(method="wilson")
    found = share_over_runs(np.array([[1.0] * 7 + [0.0] * 3]))
    assert found == pytest.approx((0.7, expected.low, expected.high))


def test_runs_that_agree_on_every_image_count_as_one():
    expected = binomtest(7, 10).proportion_ci(method="wilson")
    agreed = np.tile([1.0] * 7 + [0.0] * 3, (3, 1))
    assert share_over_runs(agreed) == pytest.approx((0.7, expected.low, expected.high))
    never = share_over_runs(np.zeros((3, 100)))
    assert never == pytest.approx((0, 0, binomtest(0, 100).proportion_ci(method="wilson").high), abs=1e-9)


def test_runs_that_answer_one_kind_each_leave_the_share_open():
    """Two runs say 'circle' to all images, one to none: whatever the images, the next run may do either."""
    low, high = share_over_runs(np.repeat([[1.0], [1.0], [0.0]], 500, axis=0).reshape(3, 500))[1:]
    assert (low, high) == (0, 1)


def test_numbers_of_runs_with_intervals_over_images_by_hand():
    """Runs 1, 2 and 3: their standard deviation is 1. Images add 0.3 below and 0.4 above."""
    reach = T2 / 3**0.5
    expected = (2, 2 - np.hypot(0.3, reach), 2 + np.hypot(0.4, reach))
    assert over_runs([1, 2, 3], [0.7, 1.7, 2.7], [1.4, 2.4, 3.4]) == pytest.approx(expected, abs=1e-3)
    assert over_runs([1], [0.7], [1.4]) == pytest.approx((1, 0.7, 1.4))


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([0.1, 0.3, 0.2, 0.25])
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = jackknifed(lambda places: float(values[places].mean()), 4)
    assert found == {"value": values.mean(), "low": pytest.approx(expected.low), "high": pytest.approx(expected.high)}
    assert jackknifed(lambda places: float(values[places].mean()), 2) == {"value": 0.2, "low": None, "high": None}


RUNS, IMAGES, CASES = 3, 100, 2000
# the noise of answers is taken out of the variance of three runs: what is left is no longer Student's with two degrees
TOO_SHORT = pytest.mark.xfail(reason="90 to 91% where images differ little and runs much", strict=True)


@pytest.mark.parametrize(
    ("images_sd", "runs_sd"),
    [
        *((1.5, 0.0), (1.5, 0.1), (1.5, 0.3), (1.5, 1.0), (0.3, 0.0)),
        *(pytest.param(0.3, runs_sd, marks=TOO_SHORT) for runs_sd in (0.3, 0.5)),
    ],
)
def test_planted_variance_of_runs_and_images_is_covered(images_sd, runs_sd):
    """Networks answer with probability expit(1 + run + image), normal both: 95% intervals cover 93 to 97%.

    The share's is Wilson's where runs do not differ, and so up to 98%. The standard error of 2,000 cases is 0.5%.
    """
    rng = np.random.default_rng(0)
    grid = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    truth = expit(1 + np.hypot(runs_sd, images_sd) * grid).mean()
    covered = {"mean": 0, "share": 0}
    for _ in range(CASES):
        logits = 1 + rng.normal(0, runs_sd, (RUNS, 1)) + rng.normal(0, images_sd, (1, IMAGES))
        answers = (rng.random((RUNS, IMAGES)) < expit(logits)).astype(float)
        mean, (_, low, high) = over_runs_and_images(answers), share_over_runs(answers)
        covered["mean"] += mean["low"] <= truth <= mean["high"]
        covered["share"] += low <= truth <= high
    assert 0.93 - 0.01 <= covered["mean"] / CASES <= 0.97 + 0.01, covered
    assert 0.93 - 0.01 <= covered["share"] / CASES <= 0.97 + 0.01, covered
