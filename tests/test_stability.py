"""Which verdicts differ between runs, on verdicts written by hand."""

from __future__ import annotations

import json

import pytest
from conftest import REPOSITORY

from benchmarks.stability import compare, show
from pipeline.claims.judge import THIS_RUN
from pipeline.claims.stability import verdicts_in
from pipeline.claims.verdicts import CANNOT, NOT, REPRODUCED
from pipeline.stage import UserError

RESULTS = REPOSITORY / "results/laptop"
RUNS = {
    "this run": {"a/flips": REPRODUCED, "a/same": NOT, "b/unsure": CANNOT, "b/new": NOT},
    "seed-1": {"a/flips": NOT, "a/same": NOT, "b/unsure": REPRODUCED},
    "seed-2": {"a/flips": REPRODUCED, "a/same": NOT, "b/unsure": CANNOT},
}


def test_what_flips_and_what_only_differs():
    found = compare(RUNS)
    assert (found["claims"], found["judged"], found["differ"], found["flip"]) == (3, 3, 2, 1)
    assert found["share_that_differs"] == pytest.approx(2 / 3)
    assert found["flipping"] == ["a/flips"]
    assert found["differing"]["b/unsure"] == {"this run": CANNOT, "seed-1": REPRODUCED, "seed-2": CANNOT}
    assert found["left_out"] == ["b/new"]
    lines = show(found).splitlines()
    assert lines[1].split() == ["a/flips", "yes", "NO", "yes", "flips"]
    assert lines[2].split() == ["b/unsure", "-", "yes", "-"]
    assert lines[3] == "2 of 3 verdicts differ (66.7%), 1 flip between reproduced and not reproduced"
    assert lines[4] == "3 could be judged in any run"


def test_runs_that_agree():
    found = compare({"this run": RUNS["seed-1"], "again": RUNS["seed-1"]})
    assert (found["differ"], found["flip"], found["differing"]) == (0, 0, {})
    assert show(found).splitlines() == [
        "0 of 3 verdicts differ (0.0%), 0 flip between reproduced and not reproduced",
        "3 could be judged in any run",
    ]


def test_the_recorded_table_is_of_the_recorded_verdicts():
    recorded = json.loads((RESULTS / "stability.json").read_text())
    paths = {name: RESULTS / name / "claims.json" for name in recorded["runs"] if name != THIS_RUN}
    seeds = {name: verdicts_in(path.read_text(), str(path)) for name, path in paths.items()}
    ours = verdicts_in((RESULTS / "claims.json").read_text(), "results/laptop/claims.json")
    found = compare({THIS_RUN: ours, **seeds})
    assert found == {**recorded, "share_that_differs": pytest.approx(recorded["share_that_differs"], abs=1e-6)}


def test_what_cannot_be_compared_is_said():
    with pytest.raises(UserError, match=r"one run only, this run; --seeds or --beside"):
        compare({"this run": RUNS["seed-1"]})
    with pytest.raises(UserError, match="no claim is judged in all of them"):
        compare({"this run": {"a/x": NOT}, "old": {"b/y": NOT}})
    for text in ("{", "[]", '{"claims": {"a/x": 1}}', json.dumps({"counts": {}})):
        with pytest.raises(UserError, match=r"old.json: not a metrics/claims.json .*'dvc repro claims' writes one"):
            verdicts_in(text, "old.json")
