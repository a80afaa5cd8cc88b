"""CountBench's question and its measures, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pipeline.countclip.captions import NUMBERS
from pipeline.countclip.scores import answers, measures, similarities


def test_the_most_similar_caption_wins_whatever_the_lengths():
    image = torch.eye(3)[:2] * 5  # along the first and the second axis
    captions = torch.zeros(2, 9, 3)
    captions[:, :, 2] = 1
    captions[0, 4] = torch.tensor([0.1, 0.0, 0.0])  # short, and in the image's direction
    captions[1, 8] = torch.tensor([0.0, 1.0, 1.0])
    similarity = similarities(image, captions)
    assert similarity.shape == (2, 9)
    assert similarity[0, 4].item() == pytest.approx(1)
    assert similarity[1, 8].item() == pytest.approx(2**-0.5)
    assert answers(similarity).tolist() == [6, 10]


def test_of_equally_similar_captions_the_smallest_number_is_the_answer():
    assert answers(torch.zeros(1, 9)).tolist() == [2]


def test_captions_of_another_number_are_refused():
    with pytest.raises(ValueError, match=r"captions \[2, 9, 4\] are needed; found \(2, 8, 4\)"):
        similarities(torch.ones(2, 4), torch.ones(2, 8, 4))


def test_measures_by_hand():
    found = measures([2, 2, 2, 3, 3, 4], [2, 2, 3, 3, 9, 2])
    assert (found["images"], found["accuracy"]) == (6, 0.5)
    assert found["mean_absolute_deviation"] == pytest.approx((0 + 0 + 1 + 0 + 6 + 2) / 6)
    two, three, four, nine, ten = (found["by_class"][str(n)] for n in (2, 3, 4, 9, 10))
    assert (two["precision"], two["recall"], two["f1"], two["images"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    assert (three["precision"], three["recall"]) == (0.5, 0.5)
    assert (four["precision"], four["recall"]) == (None, 0)  # never answered
    assert (nine["precision"], nine["recall"]) == (0, None)  # no such image
    assert (ten["precision"], ten["recall"], ten["images"]) == (None, None, 0)
    confusion = np.array(found["confusion"])
    assert confusion.sum() == 6
    assert confusion[NUMBERS.index(3), NUMBERS.index(9)] == 1
    assert np.trace(confusion) == 3


def test_the_interval_is_wilsons():
    found = measures([2] * 30 + [3] * 10, [2] * 40)
    z, p, n = norm.ppf(0.975), 0.75, 40
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found["low"], found["high"]) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(
    ("true", "answered", "message"),
    [
        ([], [], "at least one"),
        ([2], [2, 3], "at least one"),
        ([2, 1], [2, 2], r"found \[1\]"),
        ([2], [11], r"found \[11\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(true, answered, message):
    with pytest.raises(ValueError, match=message):
        measures(true, answered)
