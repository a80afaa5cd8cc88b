"""Table 1: what the published numbers can say, and what paired runs do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import copy_params
from scipy.stats import binomtest

from pipeline.countclip import drawing, table1
from pipeline.countclip.captions import WORDS
from pipeline.countclip.drawing import LAYOUTS
from pipeline.countclip.published import BASELINE, CONFIGURATIONS, IMAGES, STATEMENTS, TABLE
from pipeline.countclip.table1 import COLUMNS, as_markdown, draw_figures, summary, with_runs
from pipeline.params import load_params
from pipeline.statistics.tests import paired_test


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


@pytest.mark.parametrize("scheme", sorted({configuration.scheme for configuration in CONFIGURATIONS}))
def test_every_scheme_is_one_that_params_yaml_allows(tmp_path, scheme):
    copy_params(tmp_path, **{"lambda": scheme})
    assert load_params(tmp_path / "params.yaml").lambda_ == scheme


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
        correct = rng.random(len(numbers)) < accuracy
        response = np.where(correct, numbers, np.where(numbers == 2, 3, 2))  # 'two' where it is wrong
        words = {"category": numbers, "response": response}
        return pd.DataFrame({**{k: [WORDS[n] for n in v] for k, v in words.items()}, "correct": correct})

    trials = {f"{c.name}/{column}": [run(0.3), run(0.5)] for c in CONFIGURATIONS for column in COLUMNS}
    trials["pretrained"] = [run(0.1)]
    results = summary(trials, seed=0)
    assert results["images"] == 90
    assert len(results["table"]) == 22 + 2
    for row in results["table"]:
        runs = trials[f"{row['configuration']}/{row['column']}"]
        assert row["accuracy"] == pytest.approx(100 * np.mean([r["correct"].mean() for r in runs]))
        assert row["runs"] == pytest.approx([100 * r["correct"].mean() for r in runs])
        assert row["low"] < row["accuracy"] < row["high"]
    assert len(results["tests"]) == 24 + 2
    once = next(test for test in results["tests"] if test["worse"] == "log_once-scheduler" and test["column"] == "best")
    means = [
        np.mean([r["correct"].mean() for r in trials[f"{name}/best"]])
        for name in ("log-scheduler", "log_once-scheduler")
    ]
    assert once["ours"]["difference"] == pytest.approx(means[0] - means[1])
    assert once["published"] is None
    rich = next(test for test in results["tests_on_two_and_three"] if test["better"] == "modal-scheduler")
    means = [
        np.mean([r.loc[numbers <= 3, "correct"].mean() for r in trials[f"{name}/last"]])
        for name in ("modal-scheduler", "one-scheduler")
    ]
    assert rich["ours"]["difference"] == pytest.approx(means[0] - means[1])
    of_one = next(c for c in results["confusion"] if (c["configuration"], c["column"]) == ("one", "last"))
    counts = np.array(of_one["answers"])
    assert counts.sum() == 2 * 90
    assert np.trace(counts) == sum(r["correct"].sum() for r in trials["one/last"])
    assert counts[3, 0] == sum((~r.loc[numbers == 5, "correct"]).sum() for r in trials["one/last"])
    text = as_markdown(results, "smoke", "generated")
    assert text.count("| modal-scheduler-plus |") == 1
    assert "28.88" in text
    assert "+7, cannot stand (p 0.53 to 0.7" in text
    drawn = {}
    monkeypatch.setattr(drawing, "draw_matrices", lambda path, panels, *_: drawn.update({path.name: dict(panels)}))
    draw_figures(results, Path("folder"))
    assert {name: len(panels) for name, panels in drawn.items()} == dict(zip(LAYOUTS, (5, 12, 12), strict=True))
    assert np.array_equal(drawn["figure_4.png"]["one"], counts)


def test_runs_widen_an_interval_by_their_own_spread():
    """Reach over images 0.03; runs 0.40 and 0.38, 0.35 and 0.35: variance of their means 0.0001."""
    test = {"difference": 0.04, "low": 0.01, "high": 0.07, "p": 0.01}
    found = with_runs(test, [0.40, 0.38], [0.35, 0.35])
    reach = math.hypot(0.03, 4.302653 * 0.01)  # Student's t, 2 degrees of freedom
    assert found["low_runs"] == pytest.approx(0.04 - reach, abs=1e-6)
    assert found["high_runs"] == pytest.approx(0.04 + reach, abs=1e-6)
    assert with_runs(test, [0.4], [0.35])["low_runs"] is None
