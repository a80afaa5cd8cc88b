"""Training runs of one network are repetitions: what their agreement is, and how far others lie from it."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline.consistency.analyse import analyse_experiment
from pipeline.consistency.pairs import describe, repetitions
from pipeline.consistency.params import ConsistencySet
from pipeline.params import load_params

PURPOSE = ConsistencySet(predictions=".", observers=["counter", "run"], compare="groups")


def planted(**runs: list[list[int]]) -> pd.DataFrame:
    """Answers of each run of each counter, 1 for right, to the same images."""
    return pd.DataFrame(
        [
            {
                "experiment": "margins",
                "condition": "density-50",
                "observer": f"{counter}-run{run}",
                "counter": counter,
                "run": run,
                "image": f"{i:03d}",
                "correct": bool(value),
            }
            for counter, of_counter in runs.items()
            for run, values in enumerate(of_counter)
            for i, value in enumerate(values)
        ]
    )


HALF, OTHER_HALF = [1, 1, 0, 0] * 10, [0, 0, 1, 1] * 10


def test_runs_are_one_group():
    observers = describe(planted(ssd=[HALF, HALF], regress=[HALF]), PURPOSE)
    assert observers.names.tolist() == ["regress-run0", "ssd-run0", "ssd-run1"]
    assert observers.group.tolist() == ["regress", "ssd", "ssd"]
    assert sorted(observers.labels) == ["regress - ssd", "regress - ssd", "ssd - ssd"]


def test_the_workflows_own_set_is_of_counters_and_runs():
    settings = load_params().consistency.sets["purpose"]
    assert (settings.observers, settings.compare) == (["counter", "run"], "groups")


def test_how_far_counters_lie_from_their_own_repetitions():
    """Runs of one counter err on the same images (kappa 1), those of the other on the others (kappa -1)."""
    tables = analyse_experiment(planted(ssd=[HALF] * 3, regress=[OTHER_HALF] * 3), PURPOSE, 50, 0)
    groups = tables["groups"].set_index("pair")
    assert groups["pairs"].to_dict() == {"regress - regress": 3, "regress - ssd": 9, "ssd - ssd": 3}
    assert groups["kappa"].to_dict() == pytest.approx({"regress - regress": 1, "regress - ssd": -1, "ssd - ssd": 1})
    assert groups.loc["regress - ssd", "from_repetition"] == pytest.approx(-2)
    assert groups.loc[["regress - regress", "ssd - ssd"], "from_repetition"].isna().all()


def test_the_repetitions_of_both_count_alike():
    """Of 'ssd', two of three pairs of runs have kappa 0, one has 1; of 'regress' all have 1: the mean is 2/3."""
    quarter = [1, 0, 1, 0] * 10  # half of HALF's images are right in it: kappa 0
    tables = analyse_experiment(planted(ssd=[HALF, HALF, quarter], regress=[OTHER_HALF] * 3), PURPOSE, 50, 0)
    row = tables["groups"].set_index("pair").loc["regress - ssd"]
    assert row["kappa_within"] == pytest.approx((-1 - 1 + 0) / 3)
    assert row["from_repetition"] == pytest.approx(-2 / 3 - (1 / 3 + 1) / 2)


def test_what_repeats_what():
    labels = ["classify - ssd", "ssd - ssd"]
    assert repetitions(labels, PURPOSE) == {"classify - ssd": ["ssd - ssd"], "ssd - ssd": []}
    differences = PURPOSE.model_copy(update={"compare": "differences"})
    assert repetitions(["other counter", "other run"], differences) == {
        "other counter": ["other run"],
        "other run": [],
    }
    kinds = PURPOSE.model_copy(update={"observers": ["kind"]})  # of one column, none is a repetition
    assert repetitions(["cnn - cnn", "cnn - person"], kinds) == {"cnn - cnn": [], "cnn - person": []}
