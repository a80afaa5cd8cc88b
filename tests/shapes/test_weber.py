"""Weber's law: planted observers are found again; what has no Weber fraction says why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import erfc
from scipy.stats import norm

from pipeline.predictions import write_predictions
from pipeline.shapes import weber as stage
from pipeline.shapes.paths import Network
from pipeline.stage import UserError
from pipeline.statistics.weber import folds_of, held_out, predictors, weber_fraction

DENSITIES = np.array([10, 50, 100])


def images(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """circles, squares and the density of so many images, shares of circles around one half."""
    density = rng.choice(DENSITIES, number)
    circles = np.clip(rng.binomial(density, rng.uniform(0.3, 0.7, number)), 1, density - 1)
    return circles, density - circles, density


def scalar_variability(rng, circles, squares, w, bias=0.0, lapse=0.0) -> np.ndarray:
    """Answers of an observer who perceives each number with a standard deviation of w times the number."""
    perceived = rng.normal(circles, w * circles) - rng.normal(squares, w * squares)
    answers = perceived + bias * w * np.hypot(circles, squares) > 0
    return np.where(rng.random(len(circles)) < 2 * lapse, rng.random(len(circles)) < 0.5, answers)


def test_the_model_is_that_of_the_field():
    """p(right) = 1 - erfc(|n1 - n2| / (sqrt(2) w sqrt(n1^2 + n2^2))) / 2 is the normal distribution function."""
    n1, n2, w = 12, 10, 0.11
    field = 1 - 0.5 * erfc(abs(n1 - n2) / (2**0.5 * w * np.hypot(n1, n2)))
    assert norm.cdf(abs(n1 - n2) / (w * np.hypot(n1, n2))) == pytest.approx(field)


@pytest.mark.parametrize(("w", "bias", "lapse"), [(0.11, 0.0, 0.0), (0.3, 1.0, 0.0), (0.25, -0.5, 0.05)])
def test_a_planted_weber_fraction_is_found_whatever_the_bias(w, bias, lapse):
    rng = np.random.default_rng(0)
    circles, squares, density = images(rng, 6000)
    found = weber_fraction(circles, squares, density, scalar_variability(rng, circles, squares, w, bias, lapse))
    assert found["low"] < w < found["high"]
    assert found["weber_fraction"] == pytest.approx(w, rel=0.12)
    assert np.mean(list(found["bias"].values())) == pytest.approx(bias, abs=0.15)
    assert found["lapse"] == pytest.approx(lapse, abs=0.03)


def test_intervals_hold_the_planted_fraction_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        circles, squares, density = images(rng, 600)
        found = weber_fraction(circles, squares, density, scalar_variability(rng, circles, squares, 0.3, 0.5))
        inside += found["low"] < 0.3 < found["high"]
    assert 0.90 <= inside / 200 <= 0.99  # a lapse that is fitted although there is none makes it rather wide


def compared(answers, circles, squares, density, rng) -> dict[str, float]:
    folds = folds_of(density, 5, rng)
    x = predictors(circles, squares)
    return {name: held_out(values, density, folds, answers[None]).mean() for name, values in x.items()}


def test_each_law_is_told_from_the_other():
    rng = np.random.default_rng(2)
    circles, squares, density = images(rng, 4000)
    of_weber = scalar_variability(rng, circles, squares, 0.3)
    found = compared(of_weber, circles, squares, density, rng)
    assert found["ratio"] > found["difference"] + 0.005
    absolute = rng.normal(circles - squares, 6.0) > 0
    found = compared(absolute, circles, squares, density, rng)
    assert found["difference"] > found["ratio"] + 0.005


def test_held_out_answers_are_not_in_the_fit():
    """Of an observer who guesses, no predictor does better than log(1/2) on answers that it has not seen."""
    rng = np.random.default_rng(3)
    circles, squares, density = images(rng, 3000)
    found = compared(rng.random(3000) < 0.5, circles, squares, density, rng)
    assert max(found.values()) < np.log(0.5) + 0.001


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda c, s, d: np.ones(len(c), bool), "always the same answer"),
        (lambda c, s, d: d > 20, "always the same answer to images of one density"),
        (lambda c, s, d: c > s, "separate perfectly"),
        (lambda c, s, d: c < s, "do not clearly rise"),
    ],
)
def test_what_has_no_weber_fraction_says_why(answer, reason):
    circles, squares, density = images(np.random.default_rng(4), 400)
    circles, squares = circles[circles != squares], squares[circles != squares]
    density = circles + squares
    found = weber_fraction(circles, squares, density, answer(circles, squares, density))
    assert found["weber_fraction"] is None
    assert reason in found["reason"]


def test_an_image_of_one_kind_has_no_log_ratio():
    with pytest.raises(ValueError, match="no log ratio"):
        predictors(np.array([3, 0]), np.array([2, 5]))


@pytest.fixture
def predicted(workspace):
    """Predictions of two networks: one obeys Weber's law with w = 0.3, the other always answers 'circle'."""
    changes = {"shapes.runs": [0], "shapes.variants.architectures": ["regnet_y_400mf"], "shapes.variants.runs": [1]}
    workspace(densities=[10, 50], **changes)
    rng = np.random.default_rng(5)
    circles, squares, density = images(rng, 900)
    sets = np.where(np.arange(900) < 600, "test", "margins")
    for network in (Network(10), Network(50), Network(50, "regnet_y_400mf", 1)):
        answers = scalar_variability(rng, circles, squares, 0.3) if network.density == 10 else np.ones(900, bool)
        rows = pd.DataFrame({"circles": circles, "squares": squares})
        rows["condition"] = [
            f"{s}/density-{d}" + "/margin+0" * (s == "margins") for s, d in zip(sets, density, strict=True)
        ]
        rows["image"] = [f"{i:06d}" for i in range(900)]
        rows["category"] = np.where(circles > squares, "circle", "square")
        rows["response"] = np.where(answers, "circle", "square")
        rows["correct"] = pd.array(rows["category"] == rows["response"], dtype="boolean")
        write_predictions(network.predictions, rows.assign(observer=network.name, **dataclasses.asdict(network)))


def test_the_stage_tells_of_every_observer(predicted):
    assert stage.main() == "6 observers and sets"
    rows = pd.DataFrame(json.loads(Path("plots/shapes/weber.json").read_text()))
    first = rows[(rows["network"] == "M10") & (rows["sets"] == "test_sets")].iloc[0]
    assert first["low"] < 0.3 < first["high"]
    assert set(rows["kind"]) == {"paper", "variant"}
    metrics = json.loads(Path("metrics/shapes/weber.json").read_text())
    assert metrics["test_sets"]["undefined"] == {"always the same answer": 2}
    assert metrics["test_sets"]["ratio_over_difference"]["networks"] == 2
    assert Path("plots/shapes/weber.png").stat().st_size > 5000


def test_where_nobody_has_a_weber_fraction_the_stage_says_so(predicted):
    for network in (Network(10), Network(50), Network(50, "regnet_y_400mf", 1)):
        rows = pd.read_parquet(network.predictions)
        write_predictions(network.predictions, rows.assign(response="square"))
    stage.main()
    found = json.loads(Path("metrics/shapes/weber.json").read_text())["test_sets"]
    assert found["weber_fraction"] == {"mean": None, "low": None, "high": None, "networks": 0}
    assert found["undefined"] == {"always the same answer": 3}


def test_observers_of_one_number_of_images_are_compared_on_the_same(predicted):
    tables = [stage.read(Network(density).predictions, "test_sets") for density in (10, 50)]
    tables[1] = tables[1].iloc[[1, 1, *range(2, len(tables[1]))]].reset_index(drop=True)
    with pytest.raises(UserError, match="M10-run0, M50-run0: were not tested on the same images"):
        stage.likelihoods(tables, np.random.default_rng(0))
