"""The published values that are drawn beside ours, by number."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.countclip.figures_countbench import published_measures
from pipeline.countclip.published import TABLE, Configuration, read_answers

ONE_SCHEDULER = next(row for row in TABLE if row.name == "one-scheduler")


def test_published_measures_are_those_of_the_published_matrix():
    found = published_measures(ONE_SCHEDULER)
    assert set(found) == {"pretrained", "last", "best"}
    counts = read_answers()["one-scheduler", "last"]
    right, shown, answered = counts[1, 1], counts[1].sum(), counts[:, 1].sum()  # of the number 3
    assert found["last"]["recall"][1] == pytest.approx(right / shown)
    assert found["last"]["precision"][1] == pytest.approx(right / answered)
    recall, precision = right / shown, right / answered
    assert found["last"]["f1"][1] == pytest.approx(2 * recall * precision / (recall + precision))
    never = counts.sum(axis=0) == 0
    assert np.array_equal(np.isnan(found["last"]["precision"]), never)
    # accuracy is recall, weighted by the images shown: Table 1's, in per cent
    accuracy = 100 * np.average(found["last"]["recall"], weights=counts.sum(axis=1))
    assert accuracy == pytest.approx(ONE_SCHEDULER.published["last"], abs=0.005)


def test_a_configuration_that_was_not_published_has_none():
    assert published_measures(Configuration("unheard-of", False, False)) == {}
