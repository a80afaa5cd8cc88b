"""Kappa of errors (pipeline/statistics/kappa.py), its bounds, and what chance gives; Geirhos et al. (2020), section 2.

Everything that is needed of many pairs at once is matrix products over trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.kappa import cohens_kappa, expected_agreement


class ErrorConsistency(NamedTuple):
    """observed, expected: agreement, 0..1. kappa: -1..1, or None where it is undefined."""

    observed: float
    expected: float
    kappa: float | None


def error_consistency(correct_a: ArrayLike, correct_b: ArrayLike) -> ErrorConsistency:
    """Error consistency of two observers; element t of each, bool or 0/1, says whether trial t was answered rightly.

    Raises ValueError where the two are not one-dimensional, of one length of at least 1, and bool or 0/1.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(
            f"two arrays of the same trials are needed, at least one; found shapes {a.shape} and {b.shape}"
        )
    for values in (a, b):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"each trial should be right (1, True) or wrong (0, False); found {np.unique(values)[:5]}")
    a, b = a.astype(bool), b.astype(bool)
    observed = float((a == b).mean())
    expected = float(expected_agreement(a.mean(), b.mean()))
    kappa = float(cohens_kappa(observed, expected))
    return ErrorConsistency(observed, expected, None if np.isnan(kappa) else kappa)


def agreement_bounds(p_a: ArrayLike, p_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest agreement that accuracies p_a and p_b allow: |p_a + p_b - 1| and 1 - |p_a - p_b|."""
    p_a, p_b = np.asarray(p_a, float), np.asarray(p_b, float)
    return np.abs(p_a + p_b - 1), 1 - np.abs(p_a - p_b)


def agreement_bounds_at(expected: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest agreement at an expected agreement, whatever the accuracies behind it.

    With x = 2 p_a - 1 and y = 2 p_b - 1, expected agreement is (1 + x y) / 2, and the extremes of
    `agreement_bounds` at fixed x y lie at |x| = |y|.
    """
    product = 2 * np.asarray(expected, float) - 1
    return np.sqrt(np.maximum(product, 0)), 1 - np.sqrt(np.maximum(-product, 0))


def chance_interval(right_a: ArrayLike, right_b: ArrayLike, trials: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Central 95% of kappa if two observers with so many right answers each are independent: exact, closed form.

    Given the two numbers of right answers, the number of trials that both answer rightly is
    hypergeometric, and kappa is an increasing function of it. NaN where kappa is undefined.
    """
    from scipy.stats import hypergeom  # a second, which most that import this module need not wait for

    right_a, right_b, trials = np.asarray(right_a), np.asarray(right_b), np.asarray(trials)
    expected = expected_agreement(right_a / trials, right_b / trials)
    both = (hypergeom.ppf(q, trials, right_a, right_b) for q in (0.025, 0.975))
    low, high = (cohens_kappa(1 - (right_a + right_b - 2 * n) / trials, expected) for n in both)
    return low, high


def simulated_kappas(p_a: float, p_b: float, trials: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """kappa [draws] of independent observers with true accuracies p_a and p_b (the paper's appendix)."""
    cells = [p_a * p_b, p_a * (1 - p_b), (1 - p_a) * p_b, (1 - p_a) * (1 - p_b)]
    both, only_a, only_b, neither = rng.multinomial(trials, cells, size=draws).T / trials
    return cohens_kappa(both + neither, expected_agreement(both + only_a, both + only_b))


@dataclass(frozen=True)
class Counts:
    """How often the observers of each pair were right; arrays [..., pairs], pairs in the order of np.triu_indices.

    trials: that both had. first, second, both: of these, those that the first, the second, both answered rightly.
    """

    trials: np.ndarray
    first: np.ndarray
    second: np.ndarray
    both: np.ndarray

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def _trials(self) -> np.ndarray:
        return np.where(self.trials > 0, self.trials, np.nan)

    @property
    def observed(self) -> np.ndarray:
        """Observed agreement; NaN for a pair without common trials, as in what follows."""
        return 1 - (self.first + self.second - 2 * self.both) / self._trials

    @property
    def accuracies(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the first and of the second, on the trials that both had."""
        return self.first / self._trials, self.second / self._trials

    @property
    def expected(self) -> np.ndarray:
        return expected_agreement(*self.accuracies)

    @property
    def kappa(self) -> np.ndarray:
        return cohens_kappa(self.observed, self.expected)


class Design:
    """The trials of one condition, multiplied out so that any weighting of them is one matrix product."""

    def __init__(self, correct: np.ndarray, seen: np.ndarray | None = None) -> None:
        """correct: bool [observers, trials]. seen: likewise, whether the observer had the trial; None for all."""
        if correct.ndim != 2 or correct.dtype != bool:
            raise ValueError(f"bool [observers, trials] is needed, found {correct.dtype} {correct.shape}")
        self.trials = correct.shape[1]
        self.first, self.second = np.triu_indices(len(correct), k=1)
        self.complete = seen is None or bool(seen.all())
        # counts of trials: exact in float32 below 2**24, and twice as fast as float64
        right = (correct if self.complete else correct & seen).T.astype(np.float32)  # [trials, observers]
        self.both = right[:, self.first] * right[:, self.second]  # [trials, pairs]
        if self.complete:
            self.right = right
        else:
            had = seen.T.astype(np.float32)
            self.common = had[:, self.first] * had[:, self.second]
            self.right_first, self.right_second = (
                right[:, self.first] * self.common,
                right[:, self.second] * self.common,
            )

    def counts(self, weights: np.ndarray | None = None) -> Counts:
        """Counts under weights [..., trials] (how often each trial counts); None for each once."""
        weights = np.ones(self.trials, np.float32) if weights is None else weights.astype(np.float32)

        def total(per_trial: np.ndarray) -> np.ndarray:
            return (weights @ per_trial).astype(float)

        both = total(self.both)
        if not self.complete:
            return Counts(total(self.common), total(self.right_first), total(self.right_second), both)
        right = total(self.right)
        trials = np.broadcast_to(weights.sum(axis=-1, keepdims=True, dtype=float), both.shape)
        return Counts(trials, right[..., self.first], right[..., self.second], both)

    def resample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Weights [size, trials] of so many resamples of the trials, with replacement."""
        drawn = rng.integers(self.trials, size=(size, self.trials)) + self.trials * np.arange(size)[:, None]
        return np.bincount(drawn.ravel(), minlength=size * self.trials).reshape(size, self.trials)


def expected_within(counts: Sequence[Counts]) -> np.ndarray:
    """Agreement of observers that are independent *within* each condition, [..., pairs].

    Conditions differ in difficulty, which alone makes observers agree when they are thrown together;
    the mean of the conditions' expected agreement, weighted by trials, leaves that out.
    """
    trials = sum(c.trials for c in counts)
    weighted = sum(np.where(c.trials > 0, c.trials * np.nan_to_num(c.expected), 0) for c in counts)
    return weighted / np.where(trials > 0, trials, np.nan)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central 95% over the first axis, leaving out undefined values; NaN where there are none."""
    if np.isnan(values).any():
        undefined = np.isnan(values).all(axis=0)
        values = np.where(undefined, 0, values)
        low, high = np.nanquantile(values, [0.025, 0.975], axis=0)
        return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return low, high
