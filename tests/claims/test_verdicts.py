"""When is a statement reproduced? Rules on intervals, and where numbers and their intervals come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, t

from pipeline.claims.evidence import Number, Run, UnmeasuredError, measure
from pipeline.claims.schema import Claim, Measure, Rule
from pipeline.claims.verdicts import CANNOT, NOT, REPRODUCED, apply, judge
from pipeline.stage import UserError

LAPTOP = Run("this run", "laptop", "generated")


@pytest.mark.parametrize(
    ("rule", "number", "verdict"),
    [
        ({"above": 0.5}, (0.7, 0.6, 0.8), REPRODUCED),
        ({"above": 0.5}, (0.7, 0.4, 0.8), CANNOT),
        ({"above": 0.5}, (0.3, 0.2, 0.4), NOT),
        ({"above": 0.5}, (0.6, 0.5, 0.7), CANNOT),  # touches it
        ({"below": 0.5}, (0.3, 0.2, 0.4), REPRODUCED),
        ({"below": 0.5}, (0.7, 0.6, 0.8), NOT),
        ({"below": 20}, (16, None, None), REPRODUCED),  # exact numbers have no interval
        ({"below": 20}, (20, None, None), NOT),
        ({"above": 20}, (20, None, None), NOT),
        ({"within": [-0.1, 0.1]}, (0.05, 0.0, 0.1), REPRODUCED),
        ({"within": [-0.1, 0.1]}, (0.09, 0.05, 0.13), CANNOT),
        ({"within": [-0.1, 0.1]}, (0.2, 0.11, 0.3), NOT),
        ({"equals": 0.9, "tolerance": 0.1}, (0.95, 0.88, 0.98), REPRODUCED),
        ({"equals": 0.9, "tolerance": 0.1}, (0.95, 0.92, 0.98), NOT),
        ({"equals": 0.9, "tolerance": 0.1, "rounding": 0.05}, (0.95, 0.92, 0.98), REPRODUCED),  # 'roughly 90%'
        ({"equals": 0.9, "tolerance": 0.1}, (0.8, 0.5, 1.0), CANNOT),  # holds it, and much else
        ({"equals": 1.38, "tolerance": 0.01, "rounding": 0.005}, (1.3843, None, None), REPRODUCED),
        ({"equals": 1.38, "tolerance": 0.01, "rounding": 0.005}, (1.39, None, None), NOT),
        ({"undefined": True}, (None, None, None), REPRODUCED),
        ({"undefined": True}, (0.1, 0.0, 0.2), NOT),
        ({"above": 0}, (None, None, None), CANNOT),  # undefined here
        ({"is": "resnet18"}, ("resnet18", None, None), REPRODUCED),
        ({"is": "resnet18"}, ("resnet50", None, None), NOT),
        ({"is": 90}, (80, None, None), NOT),
    ],
)
def test_a_rule_gives_the_verdict(rule, number, verdict):
    assert apply(Rule.model_validate(rule), Number(*number))[0] == verdict


@pytest.mark.parametrize(
    ("other", "verdict"),
    [((0.3, 0.2, 0.4), REPRODUCED), ((0.5, 0.4, 0.61), CANNOT), ((0.9, 0.85, 0.95), NOT), ((None,), CANNOT)],
)
def test_two_measured_numbers_differ_where_their_intervals_do(other, verdict):
    rule = Rule.model_validate({"above": {"file": "x.json", "value": "x"}})
    assert apply(rule, Number(0.7, 0.6, 0.8), Number(*other))[0] == verdict


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("m.json").write_text(
        json.dumps(
            {
                "a": {"mean": 0.8, "low": 0.7, "high": 0.9},
                "b": 0.5,
                "b_low": 0.4,
                "b_high": 0.6,
                "odd.key - x": {"kappa": 0.3, "kappa_low": 0.2, "kappa_high": 0.4},
                "share": 0.9,
                "n": 40,
                "none": None,
                "list": [{"name": "x", "value": 3}],
            }
        )
    )
    rows = [{"network": n, "test": m, "accuracy": n / 100, "low": 0.0, "high": 1.0} for n in (10, 20) for m in (1, 2)]
    Path("rows.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"value": "a.mean"}, (0.8, 0.7, 0.9)),
        ({"value": "b"}, (0.5, 0.4, 0.6)),
        ({"value": "a.mean", "low": "b_low", "high": "b_high"}, (0.8, 0.4, 0.6)),
        ({"value": "odd.key - x.kappa"}, (0.3, 0.2, 0.4)),
        ({"value": "share", "exact": True}, (0.9, None, None)),
        ({"value": "none"}, (None, None, None)),
        ({"rows": "list", "where": {"name": "x"}, "value": "value", "exact": True}, (3, None, None)),
    ],
)
def test_a_number_comes_with_the_interval_beside_it(written, asked, found):
    assert measure(Measure.model_validate({"file": "m.json", **asked}), LAPTOP) == Number(*found)


def test_a_share_has_wilsons_interval(written):
    for of in ("n", 40):
        number = measure(Measure(file="m.json", value="share", of=of), LAPTOP)
        expected = binomtest(36, 40).proportion_ci(0.95, method="wilson")
        assert (number.low, number.high) == pytest.approx((expected.low, expected.high))


def test_one_run_more_lies_in_a_wider_interval_than_the_mean(written):
    """A published number is one run: mean +- t s sqrt(1 + 1/n), where the file has mean +- t s / sqrt(n)."""
    runs = np.array([0.2, 0.3, 0.25, 0.4, 0.31])
    reach = t.ppf(0.975, 4) * runs.std(ddof=1)
    content = {"x": runs.mean(), "x_low": runs.mean() - reach / 5**0.5, "x_high": runs.mean() + reach / 5**0.5}
    Path("runs.json").write_text(json.dumps(content))
    number = measure(Measure(file="runs.json", value="x", runs=5), LAPTOP)
    assert number.high == pytest.approx(runs.mean() + reach * (1 + 1 / 5) ** 0.5)
    assert number.low == pytest.approx(runs.mean() - reach * (1 + 1 / 5) ** 0.5)
    with pytest.raises(UnmeasuredError, match="one training run"):
        measure(Measure(file="runs.json", value="x", runs=1), LAPTOP)


def test_one_run_more_where_the_interval_covers_images_only(written):
    """Images and runs vary independently: their squared reaches add up."""
    runs = [30.0, 33.0, 39.0]
    Path("runs.json").write_text(json.dumps({"x": 34.0, "low": 31.0, "high": 37.0, "each": runs}))
    number = measure(Measure(file="runs.json", value="x", runs="each"), LAPTOP)
    spread = 4.302653 * np.sqrt(21.0) * np.sqrt(4 / 3)  # t of 2 degrees; variance (16 + 1 + 25) / 2
    assert (number.low, number.high) == pytest.approx((34 - np.hypot(3, spread), 34 + np.hypot(3, spread)))
    Path("one.json").write_text(json.dumps({"x": 34.0, "low": 31.0, "high": 37.0, "each": [34.0]}))
    with pytest.raises(UnmeasuredError, match="one training run"):
        measure(Measure(file="one.json", value="x", runs="each"), LAPTOP)


def test_a_number_does_not_take_its_neighbours_interval(written):
    Path("own.json").write_text(json.dumps({"mean": 0.83, "low": 0.82, "high": 0.85, "M10": 0.68}))
    assert measure(Measure(file="own.json", value="mean"), LAPTOP) == Number(0.83, 0.82, 0.85)
    with pytest.raises(UserError, match="no interval beside M10"):
        measure(Measure(file="own.json", value="M10"), LAPTOP)


def test_a_file_that_is_no_json_is_named(written):
    Path("broken.json").write_text('{"a": 1,')
    with pytest.raises(UserError, match=r"broken\.json: no JSON"):
        measure(Measure(file="broken.json", value="a", exact=True), LAPTOP)


def test_what_a_run_does_not_have_is_said_and_what_is_ambiguous_is_an_error(written):
    for asked in (
        {"file": "absent.json", "value": "x"},
        {"file": "m.json", "value": "a.nothing"},
        {"file": "rows.json", "where": {"network": 30}, "value": "accuracy"},
    ):
        with pytest.raises(UnmeasuredError):
            measure(Measure.model_validate(asked), LAPTOP)
    for odd in ({"of": 0}, {"of": "none"}, {"low": "b_low", "high": "b_high", "runs": "none"}):
        with pytest.raises(UnmeasuredError, match="no number of trials or runs"):
            measure(Measure.model_validate({"file": "m.json", "value": "b", **odd}), LAPTOP)
    with pytest.raises(UnmeasuredError, match="no share"):
        measure(Measure(file="m.json", value="n", of=3), LAPTOP)
    assert apply(Rule(above=1.0), Number("a word"))[0] == CANNOT
    with pytest.raises(UserError, match=r"rows.json: 2 rows with network = 10"):
        measure(Measure(file="rows.json", where={"network": 10}, value="accuracy"), LAPTOP)
    with pytest.raises(UserError, match=r"m.json: no interval beside share"):
        measure(Measure(file="m.json", value="share"), LAPTOP)


def claim(**changes: object) -> Claim:
    content = {"says": "x", "where": "y", "measure": {"file": "m.json", "value": "b"}, "rule": {"above": 0.3}}
    return Claim.model_validate({**content, **changes})


def test_the_run_at_full_scale_judges_and_the_others_stand_beside_it(written):
    Path("paper.json").write_text(json.dumps({"b": 0.1, "b_low": 0.0, "b_high": 0.2}))
    recorded = Run("results/paper/x", "paper", "published", {"m.json": Path("paper.json")})
    first, second = judge(claim(), [LAPTOP, recorded])
    assert (first.run.name, first.verdict) == ("results/paper/x", NOT)
    assert (second.run.name, second.verdict) == ("this run", REPRODUCED)


def test_a_claim_that_no_run_can_judge_says_why(written):
    (verdict,) = judge(claim(judged_at={"scale": ["paper"]}, command="do this"), [LAPTOP])
    assert verdict.verdict == CANNOT
    assert verdict.number == Number(0.5, 0.4, 0.6)  # to look at
    assert verdict.reason == "needs scale paper: do this"
    (verdict,) = judge(claim(measure={"file": "absent.json", "value": "b"}), [LAPTOP])
    assert verdict.reason == "this run has no absent.json"
    (verdict,) = judge(claim(cannot="nobody can", measure=None, rule=None), [LAPTOP])
    assert (verdict.verdict, verdict.reason) == (CANNOT, "nobody can")
