"""Arithmetic on the paper's own numbers, checked by hand and by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import REPOSITORY
from scipy.stats import linregress

from pipeline.countclip.definitions import accuracies, frequencies, schemes, sizes
from pipeline.params import load_params

COUNTS = [1353, 428, 182, 64, 35, 15, 11, 8, 6]


def test_frequencies():
    found = frequencies()
    assert found["pairs"] == 1353 + 428 + 182 + 64 + 35 + 15 + 11 + 8 + 6 == 2102
    assert found["most_of_classes_7_to_10"] == 15
    assert found["share_of_two_and_three"] == pytest.approx(1781 / 2102)
    for key, values in (
        ("straightness", COUNTS),
        ("straightness_log2", np.log2(COUNTS)),
        ("straightness_log2_log2", np.log2(np.log2(COUNTS))),
    ):
        assert found[key] == pytest.approx(linregress(range(9), values).rvalue ** 2)
    assert (round(found["straightness_log2"], 3), round(found["straightness_log2_log2"], 4)) == (0.953, 0.9945)


def test_sizes():
    """Paiss et al.: 200,000 counting images, 1 in 32 of all; the document: 2,000, 1 in 5."""
    found = sizes()
    assert found["images_of_original"] == 6_400_000
    assert found["images"] == 10_000
    assert found["times_smaller"] == 640
    assert found["steps"] == 20_000
    assert found["steps_of_figure_2"] == 21_020


def test_at_full_scale_all_counting_pairs_are_trained_on_as_published():
    """2,000 pairs, one a batch, 10 epochs: only with none held out are these the document's 20,000 steps."""
    paper = load_params(REPOSITORY / "params.yaml").scales.paper.countclip.training
    assert paper.held_out == 0
    assert paper.epochs * (2000 // paper.counting_pairs) == 20_000


def test_schemes():
    found = schemes()
    assert found["norm"]["least"] == pytest.approx(1 - 1353 / 2102)
    assert found["norm"]["most"] == pytest.approx(1 - 6 / 2102)
    assert found["modal"] == {"least": 1.0, "most": pytest.approx(1353 / 6), "lightest_class": 2}
    sigma = [math.log2(math.log2(2102 / n)) for n in COUNTS]
    assert min(sigma) < 0  # class 2 has more than half of the pairs
    assert found["log"]["most"] == pytest.approx((max(sigma) - min(sigma)) / max(sigma) + 1)
    assert round(found["log"]["most"], 2) == 2.21
    assert found["log_once"]["most"] < 2


def test_accuracies():
    found = accuracies()
    assert found["best_over_baseline"] == pytest.approx(28.88 - 27.5)
    assert found["best_over_baseline_in_images"] == 147 - 140  # of 509: 28.88% and 27.50%
    assert found["images_missing"] == 31
    assert found["all_are_whole_images_of_509"] == 1
    # against 27.5%: 26.92, 26.33 and 22.59 at the end; 26.92, 28.88 and 27.50 at best
    assert found["share_of_count_plus_at_or_above_baseline"] == {"last": 0, "best": pytest.approx(2 / 3)}
    # lower with the scheduler: lambda_norm at its maximum (25.54, 25.74), lambda_modal at the end (19.84, 20.83)
    assert found["statements"]["the scheduler helps"]["share_in_favour"] == 6 / 8
    # from 22.59 and 25.93: norm 25.54 and 25.54, modal 19.84 and 26.33, log 21.81 and 27.90
    assert found["statements"]["a balanced lambda helps"]["share_in_favour"] == 3 / 6
    assert found["balanced_scheme_most_in_favour"] == 1 / 2
