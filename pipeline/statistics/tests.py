"""Tests of paired answers, and the adjustment for several of them."""

from __future__ import annotations

import numpy as np

from pipeline.statistics.intervals import over_runs_and_images

RESAMPLES = 9999
LEAST_P = 1e-12  # of `mean_test`


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact p (two-sided) of pairs that one side alone gets right; 1 where there are none.

    McNemar (1947), Psychometrika 12, 153-157; exact by the binomial distribution.
    """
    from scipy.stats import binomtest  # a second of every stage that imports this and does not ask

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjustment of p values [n] for having asked n questions."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return adjusted


def mean_test(values: np.ndarray) -> float:
    """p (two-sided) of a mean of 0, of values [runs, images]: for other images and other training runs.

    It is the level at which the interval of `over_runs_and_images` reaches 0; LEAST_P at least. NaN where there is no
    interval; values that are all the same have none of any width: 1 where they are 0, else LEAST_P.
    """
    from scipy.optimize import brentq

    def beyond(log_p: float) -> float:
        """By how much the interval of this level falls short of 0."""
        found = over_runs_and_images(values, np.exp(log_p))
        return abs(found["mean"]) - (found["high"] - found["mean"])

    least = np.log(LEAST_P)
    if np.isnan(beyond(least)):
        return np.nan
    if over_runs_and_images(values)["mean"] == 0:
        return 1.0
    return LEAST_P if beyond(least) >= 0 else float(np.exp(brentq(beyond, least, 0.0)))


def paired_test(better: np.ndarray, worse: np.ndarray, seed: int) -> dict:
    """Difference of mean accuracy, with 95% interval over images and p, of correct answers [runs, images].

    Images are paired, and runs are averaged: the interval and the sign-flip permutation test take other images
    into account, and the runs that were made as they are.
    """
    difference = better.mean(axis=0) - worse.mean(axis=0)
    if not difference.any():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    from scipy.stats import bootstrap, permutation_test

    rng = np.random.default_rng(seed)
    test = permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, rng=rng
    )
    interval = bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng)
    low, high = interval.confidence_interval
    return {"difference": difference.mean(), "low": low, "high": high, "p": test.pvalue}
