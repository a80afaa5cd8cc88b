"""Training runs of counters: what they come to, on planted answers and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.localize.bias import less_bias, less_bias_over_runs
from pipeline.localize.found import mask_table
from pipeline.localize.paired import gain, paired_runs, paired_table
from pipeline.localize.paths import CLASSIFY, TRUE_MASK
from pipeline.localize.runs import bias_table, by_run, mean_over_runs, rates
from pipeline.params import load_params
from pipeline.statistics.tests import mean_test

T2 = 4.302653  # Student's t of two degrees of freedom, 97.5%


def planted(right: dict[int, list[float]], margin: int = 2, **columns: object) -> pd.DataFrame:
    """Answers to images of one margin: 1 for right, by run."""
    rows = [
        {"run": run, "condition": f"margins/density-10/margin{margin:+d}", "image": f"{i:03d}", "correct": bool(value)}
        for run, values in right.items()
        for i, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).assign(**columns)
    kinds = {True: "circle", False: "square"} if margin > 0 else {True: "square", False: "circle"}
    return table.assign(response=table["correct"].map(kinds))


def test_values_are_found_by_run_and_image_whatever_the_order():
    rows = planted({2: [1, 0, 1], 0: [0, 0, 1]}).sample(frac=1, random_state=0)
    table = by_run(rows, rows["correct"])
    assert table.index.tolist() == [0, 2]
    assert table.to_numpy().tolist() == [[0, 0, 1], [1, 0, 1]]
    without = by_run(rows, pd.array(rows["correct"].where(rows["image"] != "001"), dtype="boolean"))
    assert np.isnan(without.to_numpy()[:, 1]).all()


def test_a_mean_over_runs_and_images_by_hand():
    """Runs that differ by the same on every image: their answers have no noise of their own."""
    values = pd.DataFrame([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])
    found = mean_over_runs(values, "error")
    assert found["error"] == 3
    assert found["error_images"] == 2
    assert found["error_by_run"] == [2, 3, 4]
    assert mean_over_runs(values, "error", 0, 5)["error_low"] == 0
    assert mean_over_runs(values, "error", 0, 5)["error_high"] == 5
    of_images = 12.706205 * np.sqrt(2) / np.sqrt(2)  # images' means are 2 and 4
    of_runs = T2 * 1 / np.sqrt(3)  # runs' means are 2, 3 and 4
    assert found["error_high"] - 3 == pytest.approx(np.hypot(of_images, of_runs), rel=1e-6)


def test_rates_are_means_of_runs():
    rows = planted({0: [1, 1, 0, 0], 1: [1, 1, 1, 1], 2: [1, 1, 1, 0]})
    row = rates({"ssd": rows}).loc[("ssd", "margins/density-10/margin+2")]
    assert row["accuracy"] == pytest.approx(9 / 12)
    assert row["accuracy_by_run"] == [0.5, 1, 0.75]
    assert row["circle_by_run"] == [0.5, 1, 0.75]  # who is right where there are more circles says so
    assert (row["images"], row["runs"]) == (4, 3)
    assert row["accuracy_low"] < 0.5  # of runs that lie 0.25 apart, T2 * 0.25 / sqrt(3) is 0.62


def test_run_r_is_compared_with_run_r():
    theirs = planted({0: [0, 0, 0, 0], 1: [1, 1, 1, 1]}, observer=CLASSIFY)
    mine = planted({1: [1, 1, 1, 0], 0: [0, 0, 0, 1], 5: [1, 1, 1, 1]}, observer="ssd")
    assert paired_runs("ssd", mine, theirs) == [(0, 0), (1, 1)]  # the classifier has no run 5
    row = paired_table({CLASSIFY: theirs, "ssd": mine}, [10], [2]).set_index("margin").loc["all but 0"]
    assert (row["runs"], row["images"]) == (2, 4)
    assert (row["only_counter_right"], row["only_classifier_right"]) == (1, 1)
    assert row["gain"] == 0  # crossed pairs would give 0.75 - 0.25
    assert row["p"] == 1


def test_a_counter_whose_runs_the_classifier_lacks_is_in_no_pair():
    theirs, mine = planted({0: [0, 1]}), planted({7: [1, 1]})
    row = paired_table({CLASSIFY: theirs, "ssd": mine}, [10], [2]).set_index("margin").loc["2"]
    assert (row["runs"], row["images"]) == (0, 0)
    assert row[["gain", "gain_low", "gain_high", "p"]].isna().all()


def test_true_masks_are_compared_with_every_run():
    theirs, mine = planted({0: [0, 0, 1], 1: [0, 1, 1]}), planted({0: [1, 1, 1]})
    row = paired_table({CLASSIFY: theirs, TRUE_MASK: mine}, [10], [2]).set_index("margin").loc["2"]
    assert row["runs"] == 2
    assert row["gain"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_a_gain_that_one_run_has_is_not_beyond_other_runs():
    """Each of 200 images is right in run 0 only: beyond doubt with these networks, and not at all with others."""
    values = np.zeros((3, 200))
    values[0] = 1
    values[:, :20] = 0
    found = gain(values)
    assert found["gain"] == pytest.approx(0.3)
    assert found["gain_low"] < 0 < found["gain_high"]
    assert found["p"] > 0.3  # Student's t of runs alone: means 0.9, 0 and 0 have t = 1 and p = 0.42
    of_one = gain(values[:1])
    assert of_one["p"] < 1e-40  # McNemar's, of 180 to 0
    assert of_one["gain_low"] > 0.8


def test_a_difference_that_is_the_same_everywhere_has_an_interval():
    found = gain(np.zeros((3, 98)))
    assert found["gain_high"] == -found["gain_low"] == pytest.approx(1.959964 / 100, rel=1e-5)  # Agresti and Min's
    assert found["p"] == 1


def test_p_is_students_where_runs_are_alike_or_images_are():
    rng = np.random.default_rng(0)
    of_images = rng.normal(0.3, 1, 30)
    assert mean_test(np.tile(of_images, (3, 1))) == pytest.approx(stats.ttest_1samp(of_images, 0).pvalue, rel=1e-6)
    of_runs = np.array([0.2, 0.5, 0.4])
    assert mean_test(np.tile(of_runs[:, None], 50)) == pytest.approx(stats.ttest_1samp(of_runs, 0).pvalue, rel=1e-6)
    assert np.isnan(mean_test(np.array([[1.0]])))


def test_p_holds_its_level_where_runs_differ():
    """Of 600 samples of 3 runs and 60 images with a mean of 0, about 5% have p below 0.05; of images alone more do."""
    rng, low, naive = np.random.default_rng(1), 0, 0
    for _ in range(600):
        values = rng.normal(size=(3, 1)) * 0.5 + rng.normal(size=(3, 60)) + rng.normal(size=(1, 60))
        low += mean_test(values) < 0.05
        naive += stats.ttest_1samp(values.mean(axis=0), 0).pvalue < 0.05
    assert 0.03 < low / 600 < 0.08
    assert naive / 600 > 0.3


def test_iou_over_runs_by_hand():
    pixels = {"intersection": [20, 40, 21, 39], "union": [40, 80, 40, 80]}
    kinds = ("background", "square", "circle")
    rows = pd.DataFrame({"run": [0, 0, 1, 1], "image": ["a", "b"] * 2, "condition": "test/density-10"})
    rows = rows.assign(**{f"{name}_{kind}": n for name, n in pixels.items() for kind in kinds})
    params = load_params().model_copy(update={"densities": [10]})
    row = mask_table({"segment": rows}, params).set_index("class").loc["square"]
    assert row["iou"] == pytest.approx((60 / 120 + 60 / 120) / 2)
    # what is left of each image beside the ratio, over the mean union of 60: 0 and 0 in run 0; 1/60 and -1/60 in run 1
    of_images = np.std([1 / 120, -1 / 120], ddof=1) / np.sqrt(2)
    assert row["iou_high"] - row["iou"] == pytest.approx(12.706205 * of_images, rel=1e-5)  # the runs' means are equal
    assert (row["runs"], row["iou_images"]) == (2, 2)


def test_bias_is_the_mean_of_the_runs_points_of_subjective_equality():
    """Run 0 answers 'circle' from -2 up, run 1 from +2 up: between the two, half of the images."""
    margins, rows = [-4, -2, 0, 2, 4], []
    for margin in margins:
        circles = {0: (margin + 2) / 8 + 0.5, 1: (margin - 2) / 8 + 0.5}
        shares = [min(max(share, 0.02), 0.98) for share in circles.values()]
        rows.append({"counter": "ssd", "density": 10, "margin": margin, "images": 100, "circle_by_run": shares})
    row = bias_table(pd.DataFrame(rows), 0, 50).iloc[0]
    assert row["pse_by_run"] == pytest.approx([-2, 2], abs=0.15)
    assert row["pse"] == pytest.approx(0, abs=0.15)
    assert row["pse_low"] < -2  # Student's t of one degree of freedom
    assert row["pse_high"] > 2


def test_less_bias_of_runs_is_their_mean():
    sides = {}
    for side, plus in (("theirs", {0: [1, 1], 1: [1, 1]}), ("mine", {0: [1, 1], 1: [1, 0]})):
        minus = {run: [0, 0] if side == "mine" else [0, 1] for run in plus}  # right where there are fewer circles
        sides[side] = pd.concat([planted(plus, 2), planted({r: [1 - v for v in minus[r]] for r in minus}, -2)])
    pairs = [tuple(rows[rows["run"] == run] for rows in (sides["theirs"], sides["mine"])) for run in (0, 1)]
    found = less_bias_over_runs(pairs, [10], [-2, 2], np.random.default_rng(0), 100)["all"]
    # 'circle' by the classifier: 3 of 4 in both runs; by the counter: 2 of 4, and 1 of 4
    assert found["theirs"] == 0.25
    assert found["mine"] == pytest.approx((0 + 0.25) / 2)
    assert found["less_bias"] == pytest.approx((0.25 + 0) / 2)
    assert found["runs"] == 2
    one = less_bias(*pairs[0], [10], [-2, 2], np.random.default_rng(0), 100)["all"]
    assert found["less_bias_high"] - found["less_bias"] > one["less_bias_high"] - one["less_bias"]
    none = less_bias_over_runs([], [10], [-2, 2], np.random.default_rng(0), 100)["density_10"]
    assert none["runs"] == 0
    assert np.isnan(none["less_bias"])
