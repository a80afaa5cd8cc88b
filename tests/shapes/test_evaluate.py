"""The tables from trials whose answers are known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, ttest_1samp

from pipeline.params import load_params
from pipeline.shapes.answers import rates_over_runs
from pipeline.shapes.dataset import Images
from pipeline.shapes.evaluate import accuracy_table, bias_table, extreme, margin_table, summary
from pipeline.shapes.paths import Network, margin_name, observer, split_name
from pipeline.shapes.predict import conditions, trials
from pipeline.stage import UserError
from pipeline.statistics.intervals import wilson
from pipeline.statistics.psychometric import rates


def images(margins: list[int]) -> Images:
    margins = np.array(margins)
    return Images(
        keys=[f"{i:06d}" for i in range(len(margins))],
        pixels=np.zeros((len(margins), 4, 4), np.uint8),
        circles=10 + margins,
        squares=np.full(len(margins), 10),
    )


def answers(*responses: str) -> np.ndarray:
    return np.array([[1.0, 0.0] if response == "square" else [0.0, 1.0] for response in responses], np.float32)


def test_trials_under_hard_targets():
    table = trials("M10", "c", images([2, -2, 0, 0]), answers("circle", "circle", "square", "circle"), "hard")
    assert table["category"].tolist() == ["circle", "square", "square", "square"]
    assert table["response"].tolist() == ["circle", "circle", "square", "circle"]
    assert table["correct"].tolist() == [True, False, True, False]
    assert (table["circles"] - table["squares"]).tolist() == [2, -2, 0, 0]
    cell = rates(table).loc["M10", "c"]
    assert (cell["images"], cell["accuracy"], cell["circle"]) == (4, 0.5, 0.75)


def test_under_soft_targets_a_tie_counts_half():
    table = trials("M10", "c", images([2, -2, 0, 0]), answers("circle", "circle", "square", "circle"), "soft")
    assert table["category"].tolist() == ["circle", "square", "tie", "tie"]
    assert table["correct"].isna().tolist() == [False, False, True, True]
    assert (
        rates(table).loc[
            "M10",
            "c",
        ]["accuracy"]
        == (1 + 0 + 0.5 + 0.5) / 4
    )


@pytest.fixture
def params(workspace):
    workspace(densities=[10, 50], **{"shapes.margin_densities": [10], "shapes.margins": [-6, -2, 2, 6]})
    return load_params()


@pytest.fixture
def every_trial(params):
    """In the first run M10 always answers right and M50 always 'circle'; in the second, both always 'square'."""
    margins = {split_name(d, "test"): [1, -1, -1, 3] for d in params.densities}
    margins |= {margin_name(10, m): [m] * 5 for m in params.shapes.margins}
    assert set(margins) == set(conditions(Network(10), params))
    tables = []
    for density, run in product(params.densities, (0, 1)):
        for condition, values in margins.items():
            right = ["circle" if density == 50 or m > 0 else "square" for m in values]
            given = ["square"] * len(values) if run else right
            table = trials(observer(density), condition, images(values), answers(*given), "hard")
            tables.append(table.assign(density=density, run=run))
    return pd.concat(tables)


def test_tables_and_summary(params, every_trial):
    by_condition = rates_over_runs(every_trial)
    accuracy = accuracy_table(by_condition, params.densities)
    assert accuracy[["network", "test", "images", "runs", "accuracy"]].to_numpy().tolist() == [
        [10, 10, 4, 2, 0.75],
        [10, 50, 4, 2, 0.75],
        [50, 10, 4, 2, 0.5],
        [50, 50, 4, 2, 0.5],
    ]
    assert accuracy["accuracy_by_run"].tolist() == [[1.0, 0.5], [1.0, 0.5], [0.5, 0.5], [0.5, 0.5]]
    margins = margin_table(by_condition, params)
    m50 = margins[margins["network"] == 50]
    assert m50["margin"].tolist() == [-6, -2, 2, 6]
    assert m50["accuracy_by_run"].tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]
    assert m50["circle"].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert m50["in_paper"].tolist() == [False, True, True, False]
    assert [shares[0] for shares in m50["circle_by_run"]] == [1, 1, 1, 1]

    bias = bias_table(margins, seed=0, resamples=50)
    assert bias["pse"].isna().tolist() == [True, True]  # where a run's is undefined
    assert bias["pse_by_run"][0][0] == pytest.approx(0, abs=1e-6)
    assert np.isnan([bias["pse_by_run"][0][1], *bias["pse_by_run"][1]]).all()

    numbers = summary(accuracy, margins, bias)
    expected = ttest_1samp([0.75, 0.5], 0).confidence_interval()
    assert numbers["own_test_accuracy"] == {
        "mean": 0.625,
        "low": pytest.approx(expected.low),
        "high": pytest.approx(expected.high),
        "networks": 2,
        "M10": 0.75,
        "M50": 0.5,
    }
    assert numbers["lowest"]["accuracy"] == 0.5  # the lowest of the first run, and of the second
    assert (numbers["lowest"]["network"], numbers["lowest"]["test"]) == (50, 10)
    assert numbers["highest"]["accuracy"] == 0.75  # 1 and 0.5
    assert numbers["mean_accuracy_on_denser_sets"] == 0.75
    assert numbers["mean_accuracy_on_sparser_sets"] == 0.5


def test_one_run_is_as_it_was_without_runs(params, every_trial):
    """Wilson's intervals over images; the lowest margin set is among the paper's."""
    by_condition = rates_over_runs(every_trial[every_trial["run"] == 0])
    accuracy, margins = accuracy_table(by_condition, params.densities), margin_table(by_condition, params)
    of_images = binomtest(2, 4).proportion_ci(method="wilson")
    assert accuracy.loc[2, ["accuracy_low", "accuracy_high"]].tolist() == pytest.approx([of_images.low, of_images.high])
    bias = bias_table(margins, seed=0, resamples=50)
    assert bias["pse"].isna().tolist() == [False, True]
    # -6 has accuracy 0 too, but the paper does not have it
    lowest = summary(accuracy, margins, bias)["lowest_margin_set"]
    assert (lowest["network"], lowest["margin"], lowest["accuracy"]) == (50, -2, 0)


def test_runs_that_saw_other_images_are_refused(every_trial):
    first = every_trial["run"] == 0
    kept = every_trial[first | (every_trial["image"] != "000001")]
    with pytest.raises(UserError, match=r"runs of network M10 were not tested on the same images of .*predict_shapes"):
        rates_over_runs(kept)


def test_the_worst_of_many_fair_cells_is_not_taken_for_worse_than_chance():
    """The paper's 21 sets and nine networks that guess: the lowest of 189 shares looks low, and is not judged so.

    With an interval of its own the worst cell would lie below one half in 99 of 100 such tables.
    """
    rng = np.random.default_rng(0)

    def table(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"accuracy": values, "accuracy_by_run": [[v] for v in values], "images": 100})

    alone, together = 0, 0
    for _ in range(300):
        guesses = rng.binomial(100, 0.5, 189) / 100
        together += extreme(table(guesses), [], lowest=True)["high"] < 0.5
        alone += wilson(100 * guesses.min(), 100)[1] < 0.5
    assert alone > 285
    assert together <= 24  # 5% of 300, and chance (binomial, p = 0.02)
    assert extreme(table(np.zeros(189)), [], lowest=True)["high"] == pytest.approx(0.1174, abs=1e-4)
