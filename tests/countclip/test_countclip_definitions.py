"""Arithmetic on the paper's own numbers, checked by hand and by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import linregress

from pipeline.countclip.definitions import accuracies, frequencies, schemes

COUNTS = [1504, 469, 192, 71, 38, 16, 13, 7, 9]


def test_frequencies():
    found = frequencies()
    assert found["pairs"] == 1504 + 469 + 192 + 71 + 38 + 16 + 13 + 7 + 9 == 2319
    assert found["most_of_classes_7_to_10"] == 16
    assert found["steps_of_10_epochs"] == 23190
    for key, values in (
        ("straightness", COUNTS),
        ("straightness_log2", np.log2(COUNTS)),
        ("straightness_log2_log2", np.log2(np.log2(COUNTS))),
    ):
        assert found[key] == pytest.approx(linregress(range(9), values).rvalue ** 2)


def test_schemes():
    found = schemes()
    assert found["norm"]["least"] == pytest.approx(1 - 1504 / 2319)
    assert found["norm"]["most"] == pytest.approx(1 - 7 / 2319)
    assert found["modal"] == {"least": 1.0, "most": pytest.approx(1504 / 7), "lightest_class": 2}
    sigma = [math.log2(math.log2(2319 / n)) for n in COUNTS]
    assert min(sigma) < 0  # class 2 has more than half of the pairs
    assert found["log"]["most"] == pytest.approx((max(sigma) - min(sigma)) / max(sigma) + 1)


def test_accuracies():
    found = accuracies()
    assert found["best_over_baseline"] == pytest.approx(28.88 - 27.5)
    assert found["best_over_baseline_in_images"] == 147 - 140  # of 509: 28.88% and 27.50%
    assert found["best_over_baseline_verdict"] == "cannot be told"
    assert found["images_missing"] == 31
    assert found["all_are_whole_images_of_509"] == 1
    # against 27.5%: 26.92, 26.33 and 22.59 at the end, 26.92, 28.88 and 27.50 at best
    assert found["count_plus_below_baseline"] == {"last": 3, "best": 1}
    # lower with the scheduler: lambda_norm at its maximum (25.54, 25.74), lambda_modal at the end (19.84, 20.83)
    assert found["statements"]["the scheduler helps"]["share_in_favour"] == 6 / 8
