"""Tables of who counted what: by hand, and against known cases of the measures."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from scipy.stats import binomtest, t

from pipeline.localize import compare, costs, found, paths
from pipeline.localize.paired import paired_table
from pipeline.localize.paths import CLASSIFY
from pipeline.localize.scenes import load, shard_path
from pipeline.params import load_params
from pipeline.shards import read_shard, write_shard
from pipeline.statistics.intervals import (
    agresti_min,
    mean_of_draws,
    mean_with_interval,
    paired,
    share_of_draws,
    share_with_interval,
)
from pipeline.statistics.tests import holm, mcnemar


def params(**changes):
    loaded = load_params(REPOSITORY / "params.yaml")
    shapes = loaded.shapes.model_copy(update={"margin_densities": [10], "margins": [-2, 2]})
    scale = loaded.scales.laptop
    localize = scale.localize.model_copy(update={"test_images": 2})
    scales = loaded.scales.model_copy(update={"laptop": scale.model_copy(update={"localize": localize})})
    return loaded.model_copy(
        update={"shapes": shapes, "densities": [10], "scale": "laptop", "scales": scales} | changes
    )


def answers(name: str, correct: list[bool | None], **columns) -> pd.DataFrame:
    n = len(correct)
    return pd.DataFrame(
        {
            "observer": name,
            "run": 0,
            "condition": [f"margins/density-10/margin{'-2' if i < n // 2 else '+2'}" for i in range(n)],
            "image": [f"{i:06d}" for i in range(n)],
            "correct": pd.array(correct, dtype="boolean"),
            **columns,
        }
    )


def table_of(rows: dict[str, pd.DataFrame], settings) -> pd.DataFrame:
    return paired_table(rows, settings.shapes.margin_densities, settings.shapes.margins)


def test_mcnemar_by_hand():
    theirs = answers(CLASSIFY, [True] * 3 + [False] * 7 + [True] * 10)
    mine = answers("ssd", [True] * 9 + [False] + [True] * 8 + [False] * 2)
    table = table_of({CLASSIFY: theirs, "ssd": mine}, params()).set_index("margin")
    assert table.loc["all but 0", ["images", "only_counter_right", "only_classifier_right"]].tolist() == [20, 6, 2]
    assert table.loc["all but 0", "gain"] == pytest.approx(4 / 20)
    assert table.loc["all but 0", "p"] == pytest.approx(binomtest(6, 8).pvalue)
    assert table.loc["-2", ["only_counter_right", "only_classifier_right"]].tolist() == [6, 0]
    assert table.loc["-2", "p"] == pytest.approx(2 * 0.5**6)
    assert table.loc["2", "gain"] == pytest.approx(-2 / 10)
    # Agresti and Min: half a trial more in each of the four cells; 6.5 and 2.5 of 22
    spread = 1.959964 * np.sqrt(6.5 + 2.5 - 4**2 / 22) / 22
    assert table.loc["all but 0", "gain_low"] == pytest.approx(4 / 22 - spread, rel=1e-5)
    assert table.loc["all but 0", "gain_high"] == pytest.approx(4 / 22 + spread, rel=1e-5)
    # one question, and two about margins
    assert table.loc["all but 0", "p_holm"] == pytest.approx(table.loc["all but 0", "p"])
    assert table.loc["-2", "p_holm"] == pytest.approx(2 * table.loc["-2", "p"])


def test_who_never_differs_still_has_an_interval():
    low, high = agresti_min(0, 0, 98)
    assert high == -low == pytest.approx(1.959964 / 100, rel=1e-5)
    assert np.isnan(agresti_min(0, 0, 0)).all()
    assert mcnemar(0, 0) == 1


def test_no_difference_is_beyond_one():
    low, high = agresti_min(10, 0, 10)  # Wald's: 10 / 12 + 0.21
    assert 0 < low < high == 1
    assert agresti_min(0, 10, 10) == (-1, -low)


def test_one_margin_beside_the_tie_is_named_and_adjusted_as_any():
    one = params(shapes=params().shapes.model_copy(update={"margins": [-2, 0]}))
    rows = {
        "run": 0,
        "condition": ["margins/density-10/margin-2"] * 6 + ["margins/density-10/margin+0"],
        "image": list("0123456"),
    }
    theirs = pd.DataFrame({**rows, "correct": pd.array([False] * 6 + [True], dtype="boolean")})
    mine = pd.DataFrame({**rows, "correct": pd.array([True] * 6 + [True], dtype="boolean")})
    table = table_of({CLASSIFY: theirs, "ssd": mine}, one).set_index("margin")
    assert table.index.tolist() == ["all but 0", "-2", "0"]
    assert table["images"].tolist() == [6, 6, 1]
    p = 2 * 0.5**6  # one question about the density; of two about margins the lower p is doubled
    assert table["p_holm"].tolist() == pytest.approx([p, 2 * p, 1])


def test_ties_are_not_in_the_comparison_of_a_density():
    """Who answers 'square' always is right on every tie."""
    with_ties = params(shapes=params().shapes.model_copy(update={"margins": [-2, 0, 2]}))
    rows = {"run": 0, "condition": [f"margins/density-10/margin{m:+d}" for m in (-2, 0, 2)], "image": ["0"] * 3}
    square = pd.DataFrame({**rows, "correct": pd.array([True, True, False], dtype="boolean")})
    right = pd.DataFrame({**rows, "correct": pd.array([True, False, True], dtype="boolean")})
    table = table_of({CLASSIFY: square, "ssd": right}, with_ties).set_index("margin")
    assert table.loc["all but 0", ["images", "only_counter_right", "only_classifier_right"]].tolist() == [2, 1, 0]
    assert table.loc["0", "only_classifier_right"] == 1


def test_without_a_trial_nothing_is_said():
    theirs, mine = (answers(name, [None, None, True, True]) for name in (CLASSIFY, "ssd"))
    table = table_of({CLASSIFY: theirs, "ssd": mine}, params()).set_index("margin")
    assert table.loc["-2", ["gain", "gain_low", "p", "p_holm"]].isna().all()
    assert table.loc["2", "p_holm"] == 1


def test_trials_without_a_right_answer_are_left_out():
    theirs, mine = answers(CLASSIFY, [True, None, None, True]), answers("ssd", [False, None, True, True])
    table = table_of({CLASSIFY: theirs, "ssd": mine}, params()).set_index("margin")
    assert table.loc["all but 0", "images"] == 2


def test_holm_by_hand():
    # sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (raised to the one before), 0.5
    np.testing.assert_allclose(holm(np.array([0.5, 0.01, 0.03, 0.02])), [0.5, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).max() == 1


def test_errors_of_counts_by_hand():
    rows = pd.DataFrame(
        {
            "run": 0,
            "condition": "test/density-10",
            "image": ["0", "1"],
            "squares": [4, 6],
            "circles": [6, 4],
            "counted_squares": [3.0, 6.0],
            "counted_circles": [8.0, 4.0],
        }
    )
    row = compare.count_table({"ssd": rows, CLASSIFY: rows[["condition"]]}, params()).iloc[0]
    assert row["error"] == pytest.approx((1.5 + 0) / 2)  # one square too few, two circles too many; none
    assert row["difference_error"] == pytest.approx((3 + 0) / 2)
    assert row["too_many"] == pytest.approx(0.5)


def test_true_masks_answer_by_their_components():
    rows = answers("segment", [True, True, None, True], category=["circle", "square", "tie", "square"]).assign(
        counter="segment", true_mask_squares=[3, 5, 2, 1], true_mask_circles=[4, 5, 1, 2]
    )
    found = compare.from_true_masks(rows)
    assert found["response"].tolist() == ["circle", "square", "square", "circle"]  # a tie is a square
    assert found["correct"].fillna(False).tolist() == [True, True, False, False]
    assert found["correct"].isna().tolist() == [False, False, True, False]


@pytest.fixture
def two_scenes(tmp_path, monkeypatch):
    """Two scenes of one circle and one square each, 32 canvas units apart from one another."""
    import io

    import matplotlib.image

    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.zeros((8, 8)), cmap="gray", format="png")
    shapes = {"kind": ["circle", "square"], "x": [64, 128], "y": [64, 128], "size": [16, 32], "grey": [255, 255]}
    record = json.dumps({"circles": 1, "squares": 1, "shapes": shapes}).encode()
    samples = [{"__key__": f"{i:06d}", "png": buffer.getvalue(), "json": record} for i in range(2)]
    write_shard(shard_path("test/density-10"), samples)


def boxes(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["image", "label", "score", "x0", "y0", "x1", "y1"])
    table = table.astype({"label": int} | dict.fromkeys(["score", "x0", "y0", "x1", "y1"], float))
    return table.assign(**{name: table[name] / 256 for name in ("x0", "y0", "x1", "y1")})


def precision(*rows: tuple) -> dict[str, float]:
    """Average precision of these boxes on the two scenes."""
    scenes = load("test/density-10", 256, 2)
    of_image = found.by_image(boxes(*rows).assign(condition="test/density-10"))
    these = [of_image.get(("test/density-10", key), found.NOTHING) for key in scenes.keys]
    return found.average_precision(these, scenes, 256)


CIRCLES = [(f"{i:06d}", 2, 0.9, 48, 48, 80, 80) for i in range(2)]
SQUARES = [(f"{i:06d}", 1, 0.8, 112, 112, 144, 144) for i in range(2)]


def test_average_precision_of_known_boxes(two_scenes):
    perfect = precision(*CIRCLES, *SQUARES)
    assert perfect == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1, "ap50_square": 1, "ap50_circle": 1})
    kinds_exchanged = precision(*((i, 3 - k, *r) for i, k, *r in CIRCLES + SQUARES))
    assert kinds_exchanged["ap50"] == 0
    # COCO interpolates at 101 recalls: one of two found gives precision 1 up to recall 0.5, 51 of 101
    half = precision(CIRCLES[0], *SQUARES)
    assert half["ap50_circle"] == pytest.approx(51 / 101)
    assert half["ap50_square"] == 1
    # 32 x 24 within 32 x 32: IoU 0.75, right up to that threshold: six of ten
    cut = [(i, k, s, x0, y0, x1, y1 - 8) for i, k, s, x0, y0, x1, y1 in CIRCLES + SQUARES]
    loose = precision(*cut)
    assert (loose["ap50"], loose["ap75"], loose["ap"]) == (1, 1, pytest.approx(0.6))
    assert precision()["ap50"] == 0


def test_a_better_scored_false_box_costs_precision(two_scenes):
    false = [("000000", 2, 0.95, 200, 200, 240, 240)]
    # circles found: false, true, true: precisions 1/2 and 2/3, interpolated to 2/3 everywhere
    assert precision(*false, *CIRCLES, *SQUARES)["ap50_circle"] == pytest.approx(2 / 3)


def test_a_kind_that_does_not_occur_has_no_precision(two_scenes):
    record = {"kind": ["circle"], "x": [64], "y": [64], "size": [16], "grey": [255]}
    shard = next(iter(read_shard(shard_path("test/density-10"))))
    content = json.dumps({"circles": 1, "squares": 0, "shapes": record}).encode()
    write_shard(shard_path("test/density-10"), [{**shard, "__key__": f"{i:06d}", "json": content} for i in range(2)])
    known = precision(*CIRCLES)
    assert known["ap50_circle"] == 1
    assert np.isnan(known["ap50_square"])


def test_masks_by_hand():
    rows = pd.DataFrame(
        {
            "run": 0,
            "condition": "test/density-10",
            "image": ["0", "1"],
            **{f"intersection_{k}": [2, 4] for k in ("background", "square", "circle")},
            **{f"union_{k}": [4, 8] for k in ("background", "square")},
            "union_circle": [0, 0],
        }
    )
    table = found.mask_table({"segment": rows}, params()).set_index("class")["iou"]
    assert table["square"] == 0.5
    assert np.isnan(table["circle"])  # nowhere: undefined


def test_costs_are_those_of_resnet18(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    none = params(localize=params().localize.model_copy(update={"counters": []}))
    curve = paths.network_curve(none.localize.density)
    curve.parent.mkdir(parents=True)
    curve.write_text("network,images_seen\nM50,32\nM50,640\n")
    row = costs.cost_table(none).iloc[0]
    # torchvision's 11,689,512 with 1,000 classes and three input channels
    assert row["parameters"] == 11_689_512 - 2 * 64 * 49 - 513 * 998
    # 1.814 GMAC at 224 x 224 (torchvision's documentation); two operations each, less for one channel and 64 x 64
    assert row["gflops_to_look"] == pytest.approx(2 * 1.814 * (64 / 224) ** 2, rel=0.06)
    assert row["images_seen"] == 640


def test_means_have_students_interval():
    found = mean_with_interval(np.array([1.0, 3.0, np.nan]), "x")
    assert found["x"] == 2
    assert found["x_high"] - 2 == pytest.approx(12.706205 * np.sqrt(2) / np.sqrt(2), rel=1e-6)
    assert np.isnan(mean_with_interval(np.array([5.0]), "x")["x_low"])
    assert np.isnan(mean_with_interval(np.array([]), "x")["x"])
    gain = paired(pd.Series({"a": 3.0, "b": 5.0}), pd.Series({"b": 4.0, "a": 1.0}))
    assert gain["gain"] == 1.5


def test_shares_have_wilsons_interval():
    theirs = binomtest(3, 10).proportion_ci(method="wilson")
    found = share_with_interval(np.array([1.0] * 3 + [0.0] * 7 + [np.nan]), "x")
    assert found == pytest.approx({"x": 0.3, "x_low": theirs.low, "x_high": theirs.high, "x_images": 10})
    assert np.isnan(share_with_interval(np.array([np.nan]), "x")["x_high"])


def draws_of(rows: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index")


def test_an_image_counts_by_the_draws_that_it_has():
    found = mean_of_draws(draws_of({"a": [1, 3, np.nan], "b": [np.nan, np.nan, 6], "c": [np.nan] * 3}), "x")
    assert found["x"] == (2 + 6) / 2
    assert (found["x_images"], found["x_draws"], found["x_maps"]) == (2, 3, 3)


def test_the_interval_of_draws_covers_images_and_networks():
    """Where all have a value, the jackknife is the variance of the draws' means over their number."""
    values = np.random.default_rng(0).normal(size=(20, 1)) + np.random.default_rng(1).normal(size=(1, 5))
    images, networks = values.mean(axis=1).var(ddof=1) / 20, values.mean(axis=0).var(ddof=1) / 5
    freedom = (images + networks) ** 2 / (images**2 / 19 + networks**2 / 4)  # Welch
    found = mean_of_draws(pd.DataFrame(values), "x")
    assert found["x_high"] - found["x"] == pytest.approx(t.ppf(0.975, freedom) * np.sqrt(images + networks))
    # other networks alone, or other images alone, are not more certain than the one kind is
    alike = mean_of_draws(pd.DataFrame(values[:, :1].repeat(5, axis=1)), "x")
    assert alike["x_high"] == pytest.approx(mean_with_interval(values[:, 0], "x")["x_high"])
    assert mean_of_draws(draws_of({"a": [2, 2], "b": [2, 2]}), "x")["x_low"] == 2
    for one in (values[:1], values[:, :1]):
        assert np.isnan(mean_of_draws(pd.DataFrame(one), "x")["x_low"])
    assert np.isnan(mean_of_draws(draws_of({"a": [np.nan] * 2}), "x")["x"])


def test_the_interval_of_draws_holds_what_it_should():
    """Of 400 samples of 20 images, 10 networks, a third of the maps missing: 95% hold the truth, or a little more."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.normal(size=(20, 1)) + rng.normal(size=(1, 10)) + rng.normal(size=(20, 10))
        values[rng.random((20, 10)) < 1 / 3] = np.nan
        found = mean_of_draws(pd.DataFrame(values), "x")
        held += found["x_low"] <= 0 <= found["x_high"]
    assert 0.93 < held / 400 < 0.995


def test_shares_of_draws_have_wilsons_interval():
    found = share_of_draws(draws_of({"a": [1, 0], "b": [0, np.nan], "c": [np.nan] * 2}), "x")
    assert found["x"] == 0.25
    assert found["x_low"] == pytest.approx(share_with_interval(np.array([0.5, 0]), "x")["x_low"])
    assert (found["x_images"], found["x_draws"], found["x_maps"]) == (2, 2, 3)
