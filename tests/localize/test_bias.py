"""The bias of counters on purpose beside the classifier's, by hand and against simple resampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.localize.bias import less_bias


def answers(circles: dict[tuple[int, int], list[int]]) -> pd.DataFrame:
    """1 for 'circle', image by image, of a density and margin."""
    return pd.DataFrame(
        [
            {
                "condition": f"margins/density-{density}/margin{margin:+d}",
                "image": f"{i:03d}",
                "response": "circle" if circle else "square",
            }
            for (density, margin), values in circles.items()
            for i, circle in enumerate(values)
        ]
    )


def test_less_bias_by_hand():
    theirs = answers({(10, -2): [0, 0, 0, 0], (10, 2): [0, 0, 1, 1], (50, -2): [1, 1, 1, 1], (50, 2): [1, 1, 1, 1]})
    mine = answers({(10, -2): [0, 0, 0, 1], (10, 2): [1, 1, 1, 1], (50, -2): [1, 1, 1, 0], (50, 2): [1, 1, 1, 1]})
    ties = answers({(10, 0): [1, 1, 1, 1], (10, 4): [1, 1, 1, 1]})  # neither has a counterpart
    both = [pd.concat([rows, ties]).sample(frac=1, random_state=0) for rows in (theirs, mine)]
    found = less_bias(*both, [10, 50], [-2, 0, 2, 4], np.random.default_rng(0), 200)
    # shares of 'circle': 2/8 and 5/8 at 10 shapes, 8/8 and 7/8 at 50
    assert found["density_10"].items() >= {"theirs": 0.25, "mine": 0.125, "less_bias": 0.125}.items()
    assert found["density_50"].items() >= {"theirs": 0.5, "mine": 0.375, "less_bias": 0.125}.items()
    assert found["all"]["less_bias"] == pytest.approx(0.125)
    for part in found.values():
        assert part["less_bias_low"] <= part["less_bias"] <= part["less_bias_high"]


def test_the_interval_is_of_pairs_of_answers():
    """Who answers as the other does but for some images has a narrow interval, however biased both are."""
    rng = np.random.default_rng(0)
    first = {(10, margin): (rng.random(500) < 0.8).astype(int) for margin in (-2, 2)}
    second = {key: np.where(np.arange(500) < 25, 0, values) for key, values in first.items()}
    found = less_bias(answers(first), answers(second), [10], [-2, 2], np.random.default_rng(1), 2000)["density_10"]
    changed = np.concatenate([first[key] - second[key] for key in first])
    drawn = np.random.default_rng(2).choice(changed, (2000, 1000)).mean(axis=1)
    assert found["less_bias"] == pytest.approx(changed.mean())
    bounds = found["less_bias_low"], found["less_bias_high"]
    assert bounds == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.003)


def test_images_that_one_side_lacks_are_left_out():
    theirs = answers({(10, -2): [0, 1], (10, 2): [1, 1, 0, 0]})
    mine = answers({(10, -2): [0, 1], (10, 2): [1, 1]})
    found = less_bias(theirs, mine, [10], [-2, 2], np.random.default_rng(0), 20)["density_10"]
    assert found.items() >= {"theirs": 0.25, "mine": 0.25, "less_bias": 0.0}.items()
