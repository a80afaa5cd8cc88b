"""Table 1: what the published numbers can say, and what paired runs do."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pipeline.countclip import table1
from pipeline.countclip.captions import WORDS
from pipeline.countclip.table1 import (
    BASELINE,
    COLUMNS,
    IMAGES,
    STATEMENTS,
    TABLE,
    as_markdown,
    paired_test,
    published_test,
    summary,
    with_runs,
)


def test_the_published_accuracies_are_shares_of_509_images_and_of_no_other_number():
    cells = [BASELINE, *[configuration.published[column] for configuration in TABLE for column in COLUMNS]]
    assert len(cells) == 1 + 22

    def fits(images: int) -> bool:
        return all(min(abs(100 * k / images - cell) for k in range(images + 1)) < 0.00501 for cell in cells)

    assert [images for images in range(300, 541) if fits(images)] == [IMAGES]


def test_the_paper_names_eleven_configurations():
    assert len({configuration.name for configuration in TABLE}) == 11
    names = {configuration.name for configuration in TABLE} | {"pretrained"}
    assert all({better, worse} <= names for pairs in STATEMENTS.values() for better, worse in pairs)


def test_what_the_gain_of_1_38_points_can_say():
    # 147 of 509 images against 140: 7 more
    found = published_test(28.88, 27.5)
    assert found["images"] == 7
    assert found["least_p"] == pytest.approx(2 / 2**7)
    assert 0.5 < found["independent_p"] < 0.8
    assert found["verdict"] == "cannot be told"
    assert published_test(25.54, 25.35)["verdict"] == "cannot stand"  # one image
    assert published_test(40.0, 27.5)["verdict"] == "stands"
    assert published_test(27.5, 40.0)["verdict"] == "the opposite stands"
    assert published_test(27.5, 27.5)["least_p"] == 1


def test_a_paired_test_knows_equal_from_different():
    rng = np.random.default_rng(0)
    worse = rng.random((3, 500)) < 0.2
    same = rng.random((3, 500)) < 0.2
    better = worse | (rng.random((3, 500)) < 0.1)
    assert paired_test(same.astype(float), worse.astype(float), 0)["p"] > 0.05
    found = paired_test(better.astype(float), worse.astype(float), 0)
    assert found["difference"] == pytest.approx(better.mean() - worse.mean())
    assert found["low"] < found["difference"] < found["high"]
    assert found["low"] > 0
    assert found["p"] < 0.001
    assert paired_test(worse.astype(float), worse.astype(float), 0)["p"] == 1


def test_with_one_run_it_is_the_sign_test():
    before, after = np.zeros((1, 40)), np.zeros((1, 40))
    after[0, :9] = 1
    before[0, 9:11] = 1
    assert paired_test(after, before, 0)["p"] == pytest.approx(binomtest(2, 11).pvalue, abs=0.012)


def test_the_tables_say_what_the_trials_say(monkeypatch):
    monkeypatch.setattr(table1, "RESAMPLES", 199)
    rng = np.random.default_rng(0)
    numbers = np.repeat(list(WORDS), 10)

    def run(accuracy: float) -> pd.DataFrame:
        category = [WORDS[number] for number in numbers]
        return pd.DataFrame({"category": category, "correct": rng.random(len(numbers)) < accuracy})

    trials = {f"{c.name}/{column}": [run(0.3), run(0.5)] for c in TABLE for column in COLUMNS}
    trials["pretrained"] = [run(0.1)]
    results = summary(trials, seed=0)
    assert results["images"] == 90
    assert len(results["table"]) == 22
    for row in results["table"]:
        runs = trials[f"{row['configuration']}/{row['column']}"]
        assert row["accuracy"] == pytest.approx(100 * np.mean([r["correct"].mean() for r in runs]))
        assert row["runs"] == pytest.approx([100 * r["correct"].mean() for r in runs])
        assert row["low"] < row["accuracy"] < row["high"]
    assert len(results["tests"]) == 2 * sum(map(len, STATEMENTS.values()))
    text = as_markdown(results, "smoke", "generated")
    assert text.count("| modal-scheduler-plus |") == 1
    assert "28.88" in text


def test_runs_widen_an_interval_by_their_own_spread():
    """Reach over images 0.03; runs 0.40 and 0.38, 0.35 and 0.35: variance of their means 0.0001."""
    test = {"difference": 0.04, "low": 0.01, "high": 0.07, "p": 0.01}
    found = with_runs(test, [0.40, 0.38], [0.35, 0.35])
    reach = math.hypot(0.03, 4.302653 * 0.01)  # Student's t, 2 degrees of freedom
    assert found["low_runs"] == pytest.approx(0.04 - reach, abs=1e-6)
    assert found["high_runs"] == pytest.approx(0.04 + reach, abs=1e-6)
    assert with_runs(test, [0.4], [0.35])["low_runs"] is None
