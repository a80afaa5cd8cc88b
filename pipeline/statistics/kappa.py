"""Cohen's kappa of right and wrong answers: agreement beyond what two accuracies make likely.

    observed  = share of trials on which both are right or both are wrong
    expected  = p_a p_b + (1 - p_a) (1 - p_b), for two independent observers with these accuracies
    kappa     = (observed - expected) / (1 - expected)

Cohen (1960), Educational and Psychological Measurement 20, 37-46; of errors: Geirhos, Meding & Wichmann (2020),
section 2. Where expected agreement is 1 (both always right, or both always wrong), kappa is undefined: NaN, never 1,
since such trials say nothing about strategy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

CERTAIN = 1 - 1e-12  # expected agreement from here on is 1 but for rounding


def expected_agreement(p_a: ArrayLike, p_b: ArrayLike) -> np.ndarray:
    """Agreement, 0..1, of independent observers with accuracies p_a and p_b (0..1), elementwise."""
    p_a, p_b = np.asarray(p_a, float), np.asarray(p_b, float)
    return p_a * p_b + (1 - p_a) * (1 - p_b)


def cohens_kappa(observed: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """(observed - expected) / (1 - expected), elementwise; NaN where expected agreement is 1."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    defined = expected < CERTAIN
    return np.where(defined, (observed - expected) / np.where(defined, 1 - expected, 1), np.nan)


def kappa_of_answers(right_a: ArrayLike, right_b: ArrayLike, axis: int = -1) -> np.ndarray:
    """kappa of right (1) and wrong (0) answers of two observers to the same trials, which lie along an axis."""
    a, b = np.asarray(right_a, float), np.asarray(right_b, float)
    return cohens_kappa((a == b).mean(axis=axis), expected_agreement(a.mean(axis=axis), b.mean(axis=axis)))
