"""The whole workflow as a person runs it: all stages in a fresh clone, their results, and one experiment.

test_workflow_turned.py has a second clone, so that two processes share the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from workflow_helpers import DENSITIES, ran, reproduced_once, run, settle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which all has run, and its results are committed."""
    return reproduced_once(tmp_path_factory) / "clone"


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds that clone as it was committed."""
    yield
    if "reproduced" in request.fixturenames:
        settle(request.getfixturevalue("reproduced"))


def test_every_declared_result_is_there(reproduced):
    metrics = json.loads((reproduced / "metrics/shapes.json").read_text())
    assert set(metrics["own_test_accuracy"]) == {"mean", "low", "high", "networks"} | {f"M{n}" for n in DENSITIES}
    assert len(json.loads((reproduced / "plots/shapes/accuracy.json").read_text())) == 3 * 3
    margins = pd.DataFrame(json.loads((reproduced / "plots/shapes/margins.json").read_text()))
    assert len(margins) == 3 * 3 * 9
    assert margins["in_paper"].sum() == 3 * 21
    for density, number in product(DENSITIES, (0, 1)):
        decisions = pd.read_parquet(reproduced / f"data/shapes/predictions/paper/M{density}-run{number}.parquet")
        assert len(decisions) == 3 * 12 + 27 * 4
        chosen = np.where(decisions["logit_circle"] > decisions["logit_square"], "circle", "square")
        assert (decisions["response"].astype(str) == chosen).all()


def test_the_table_is_what_the_decisions_say(reproduced):
    for cell in json.loads((reproduced / "plots/shapes/accuracy.json").read_text())[::2]:
        of_runs = []
        for number in (0, 1):
            name = f"M{cell['network']}-run{number}"
            decisions = pd.read_parquet(reproduced / f"data/shapes/predictions/paper/{name}.parquet")
            these = decisions[decisions["condition"].astype(str) == f"test/density-{cell['test']}"]
            majority = np.where(these["circles"] > these["squares"], "circle", "square")  # a tie is a square
            of_runs.append((these["response"].astype(str) == majority).mean())
        assert cell["accuracy_by_run"] == pytest.approx(of_runs, abs=1e-6)
        assert cell["accuracy"] == pytest.approx(np.mean(of_runs), abs=1e-6)


def test_figures_are_pictures(reproduced):
    names = {path.name for path in (reproduced / "plots/shapes").glob("*.png")}
    assert names == {
        "training.png",
        "accuracy_table.png",
        "margins.png",
        "psychometric.png",
        "bias.png",
        "normalisation.png",
        "weber.png",
        "epochs.png",
    }
    for name in names:
        pixels = matplotlib.image.imread(reproduced / "plots/shapes" / name)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.02


def test_metrics_and_plots_show(reproduced):
    assert "own_test_accuracy.mean" in run("dvc", "metrics", "show", cwd=reproduced).stdout
    shown = run("dvc", "plots", "show", "--out", "shown", cwd=reproduced)
    assert "failed to load" not in shown.stderr
    page = (reproduced / "shown/index.html").read_text()
    for title in (
        "Training loss",
        "Error consistency of observers, published or simulated",
        "Error consistency of the counters",
        "Confusion on CountBench, fine-tuned",
        "Position in held-out images, by backbone",
        "Majority by counting on purpose",
        "Error consistency of those that count on purpose",
    ):
        assert title in page


def test_a_second_run_does_nothing(reproduced):
    result = run("dvc", "repro", cwd=reproduced)
    assert ran(result) == set()
    assert "up to date" in result.stdout
    assert run("git", "status", "--porcelain", cwd=reproduced).stdout == ""
