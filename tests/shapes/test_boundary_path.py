"""Where boundaries lie epoch by epoch: planted answers and paths, against arithmetic by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import assert_one_line_error

from pipeline.shapes import epochs, snapshot
from pipeline.shapes.boundary_path import accuracy, equality, share_of_circle
from pipeline.shapes.paths import Network, margin_name
from pipeline.shapes.snapshot import AS_SAVED, OWN, RE_ESTIMATED, changes, variation


def answers(circles: dict[int, tuple[int, int]]) -> pd.DataFrame:
    """circles: of each margin, how many of its images are answered 'circle', and how many there are."""
    rows = [(margin, i < of) for margin, (of, images) in circles.items() for i in range(images)]
    return pd.DataFrame(rows, columns=["margin", "circle"])


def test_readings_are_named_as_training_names_them():
    assert snapshot.READINGS == epochs.READINGS


def test_share_of_circle_weighs_both_sides_alike():
    given = answers({-30: (0, 9), -2: (1, 2), 0: (5, 5), 2: (3, 4), 8: (4, 4), 9: (1, 1)})
    assert share_of_circle(given) == pytest.approx((1 / 2 + 7 / 8) / 2)
    assert np.isnan(share_of_circle(answers({2: (1, 2)})))


def test_a_tie_is_a_square_or_half_right():
    given = answers({-2: (1, 4), 0: (1, 4), 2: (2, 2)})  # right: 3, 3 and 2
    assert accuracy(given, "hard") == pytest.approx(8 / 10)
    assert accuracy(given, "soft") == pytest.approx((3 + 2 + 2) / 10)


def test_point_of_subjective_equality_is_where_answers_are_even():
    rising = {-3: (2, 100), 0: (12, 100), 3: (50, 100), 6: (88, 100), 9: (98, 100)}  # symmetric about 3
    assert equality(answers(rising)) == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize("circles", [{-2: (9, 9), 2: (9, 9)}, {-2: (8, 9), 2: (1, 9)}, {-2: (4, 9), 2: (5, 9)}])
def test_answers_that_do_not_clearly_rise_have_none(circles):
    assert np.isnan(equality(answers(circles)))


def row(network: int, reading: str, of: str, circle: float, pse: float, halves: tuple[float, float]) -> dict:
    parts = dict(zip(("even", "odd"), halves, strict=True))
    ends = {f"circle_{half}": circle for half in parts} | {f"pse_{half}": value for half, value in parts.items()}
    found = {"network": network, "run": 0, "epoch": 1, "reading": reading, "set": of, "accuracy": 0.8}
    return {**found, "circle": circle, "pse": pse, **ends}


def test_changes_are_paired_and_their_direction_is_of_the_other_half():
    paths = pd.DataFrame(
        [
            row(10, AS_SAVED, OWN, 0.9, -6.0, (-5.0, -7.0)),
            row(10, RE_ESTIMATED, OWN, 0.6, 1.0, (1.0, 1.0)),  # halves move by 6 and 8
            row(20, AS_SAVED, OWN, 0.5, 2.0, (2.0, 2.0)),
            row(20, RE_ESTIMATED, OWN, 0.5, 2.0, (3.0, 1.0)),  # by 1 and -1: nothing but chance
            row(10, AS_SAVED, "density-10", 0.7, 0.0, (0.0, 0.0)),
            row(10, RE_ESTIMATED, "density-10", 0.4, 0.0, (0.0, 0.0)),
            row(20, AS_SAVED, "density-10", 0.2, 0.0, (0.0, 0.0)),
            row(20, RE_ESTIMATED, "density-10", 0.2, np.nan, (0.0, 0.0)),
        ]
    )
    found = changes(paths)
    assert found["pse_size"]["mean"] == pytest.approx((-5 + 0) / 2)
    assert found["pse_moves"]["mean"] == pytest.approx((7 - 1) / 2)
    assert found["far_from_half"]["mean"] == pytest.approx((-0.1 + 0) / 2)
    assert found["far_from_half_own"]["mean"] == pytest.approx((-0.3 + 0) / 2)
    assert found["circle_moves"]["mean"] == pytest.approx((0.3 + 0) / 2)
    undefined = paths.assign(pse=paths["pse"].where(paths["network"] != 10))
    assert changes(undefined)["pse_size"] == {"mean": 0.0, "low": None, "high": None, "networks": 1}


def planted(networks: list[int], runs: list[float], swings: list[float]) -> pd.DataFrame:
    """Four epochs: the first two far off, then `run - swing` and `run + swing`. A swing for each network."""
    rows = []
    for network, swing in zip(networks, swings, strict=True):
        for number, mean in enumerate(runs):
            for epoch, circle in enumerate([0.0, 1.0, mean - swing, mean + swing], start=1):
                rows.append({"network": network, "run": number, "epoch": epoch, "set": OWN, "circle": circle})
    return pd.DataFrame(rows)


def test_variances_of_epochs_and_of_runs_by_hand():
    found = variation(planted([10, 50, 90], runs=[0.4, 0.5, 0.6], swings=[0.05, 0.05, 0.05]))
    # within a run 2 x 0.05^2; between the means 0.1^2, of which 0.005 / 2 is the epochs'
    assert found["epochs_share"]["value"] == pytest.approx(0.005 / (0.005 + 0.01 - 0.0025))
    assert found["epochs_share"]["low"] == found["epochs_share"]["high"] == pytest.approx(0.4)
    assert found["epochs_share"]["reason"] is None
    assert found["sd_of_epochs"]["mean"] == pytest.approx(0.005**0.5)
    assert found["sd_of_runs"]["mean"] == pytest.approx(0.1)


def test_runs_that_differ_only_by_their_moment_leave_all_to_epochs():
    rng = np.random.default_rng(0)
    rows = [
        {"network": network, "run": number, "epoch": epoch, "set": OWN, "circle": rng.normal(0.5, 0.1)}
        for network in range(200)
        for number in range(3)
        for epoch in range(12)
    ]
    share = variation(pd.DataFrame(rows))["epochs_share"]
    assert share["low"] < 1 < share["high"]
    assert share["high"] - share["low"] < 0.3


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (planted([10, 50, 90], [0.4, 0.6], [0.1] * 3).query("epoch > 2"), "2 epochs; 4 are needed"),
        (planted([10, 50, 90], [0.4], [0.1] * 3), "one training run of each network; two are needed"),
        (planted([10, 50], [0.4, 0.6], [0.1] * 2), "2 networks have several runs; 3 are needed"),
    ],
)
def test_what_cannot_be_had_is_null_with_a_reason(paths, reason):
    share = variation(paths)["epochs_share"]
    assert (share["value"], share["low"], share["reason"]) == (None, None, reason)


def write(network: Network) -> None:
    """Two epochs. As saved the boundary lies at 4, re-estimated at 0; no answer is by chance."""
    conditions = {f"test/density-{network.density}": range(-20, 21)}
    conditions |= {margin_name(10, margin): [margin] * 4 for margin in (-2, 2)}
    rows = [
        {
            "epoch": epoch,
            "reading": reading,
            "condition": condition,
            "image": str(image),
            "circles": 30 + margin,
            "squares": 30,
            "logit_difference": margin - boundary,
        }
        for epoch in (1, 2)
        for reading, boundary in ((AS_SAVED, 4.5), (RE_ESTIMATED, 0.5))
        for condition, margins in conditions.items()
        for image, margin in enumerate(margins)
    ]
    network.epochs.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(network.epochs)


def test_the_stage_says_which_networks_are_there(workspace, run_stage):
    folder = workspace(densities=[10, 50], **{"shapes.runs": [0, 1]})
    assert_one_line_error(run_stage("shapes.boundary_path"), "data/shapes/epochs/paper")
    write(Network(50))
    assert run_stage("shapes.boundary_path").returncode == 0
    found = json.loads((folder / "metrics/shapes/epochs.json").read_text())
    assert found["networks"] == {"M50": [0]}
    assert found["missing"] == ["M10-run0", "M10-run1", "M50-run1"]
    # margins 1 to 4 are answered 'square', 37 of 41 right; of margins -8 to 8 no square is missed, and 4 of 8 circles
    assert found["as_saved"]["accuracy"]["mean"] == pytest.approx(37 / 41, abs=1e-6)
    assert found["as_saved"]["far_from_half_own"]["mean"] == pytest.approx(0.25)
    assert found["as_saved"]["far_from_half"]["mean"] == pytest.approx(0.5)  # margins of 2 and -2: all 'square'
    assert found["re_estimated"]["far_from_half"]["mean"] == 0
    assert found["as_saved"]["pse_size"]["mean"] == pytest.approx(4.5, abs=0.1)
    assert found["change"]["pse_size"]["mean"] == pytest.approx(-4, abs=0.2)
    assert found["undefined_at_the_end"] == {"as_saved": 0, "re_estimated": 0, "of": 1}
    assert found["change"]["pse_moves"]["mean"] == pytest.approx(4, abs=1)  # each half has every other margin
    assert found["snapshot"]["as_saved"]["own_test_set"]["sd_of_epochs"]["reason"] == "2 epochs; 4 are needed"
    assert (folder / "plots/shapes/epochs.png").stat().st_size > 10_000
    (folder / Network(10).epochs).write_bytes(b"half a file")
    assert_one_line_error(run_stage("shapes.boundary_path"), "M10-run0.parquet")


@pytest.mark.slow
def test_accuracies_are_those_that_training_saw(workspace, run_stage):
    folder = workspace(densities=[10, 50], **{"shapes.margin_densities": [10], "shapes.margins": [-2, 2]})
    for stage in (("margin_sets",), ("generate", "--density", 50), ("train", "--density", 50), ("boundary_path",)):
        assert run_stage(f"shapes.{stage[0]}", *stage[1:]).returncode == 0
    paths = pd.DataFrame(json.loads((folder / "plots/shapes/epochs.json").read_text()))
    of_training = json.loads((folder / Network(50).training_metrics).read_text())["epochs"]
    for reading, key in ((AS_SAVED, "test_accuracy"), (RE_ESTIMATED, "test_accuracy_re_estimated")):
        seen = paths[(paths["set"] == OWN) & (paths["reading"] == reading)]["accuracy"].tolist()
        assert seen == pytest.approx([epoch[key] for epoch in of_training], abs=1e-6)
