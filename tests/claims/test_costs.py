"""Where the time went, from costs and a dvc.lock made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.claims import costs

LOCK = """
schema: '2.0'
stages:
  draw:
    cmd: python -m pipeline.shapes.draw
    outs: [{path: data/images.tar}]
  train@1:
    cmd: python -m pipeline.shapes.train --density 1
    deps: [{path: data/images.tar}, {path: pipeline/shapes/train.py}]
    outs: [{path: models/M1.safetensors}]
  train@2:
    cmd: python -m pipeline.shapes.train --density 2
    deps: [{path: data}]
    outs: [{path: models/M2.safetensors}]
  evaluate:
    cmd: python -m pipeline.shapes.evaluate
    deps: [{path: models}]
    outs: [{path: metrics/shapes.json}]
  page:
    cmd: python -m pipeline.claims.page
    deps: [{path: claims.yaml}]
"""


def cost(stage: str, seconds: float, ended: str, cpu: float, options: str = "") -> dict:
    command = f"python -m pipeline.{stage}{options}"
    times = {"seconds": seconds - 1, "with_start": seconds, "cpu": cpu, "ended": f"2026-01-01T10:{ended}.000+00:00"}
    return {"stage": f"{stage}{options.rpartition(' ')[2]}", "command": command, **times}


COSTS = [
    cost("shapes.draw", 50, "00:00", 50),  # of an earlier run
    cost("shapes.draw", 10, "10:10", 20),
    cost("shapes.train", 30, "10:40", 30, " --density 1"),
    cost("shapes.train", 40, "10:50", 35, " --density 2"),
    cost("params", 1, "10:51", 1),  # a command for people
    cost("claims.page", 2, "10:12", 2),
    cost("shapes.evaluate", 5, "11:00", 5),
]


@pytest.fixture
def run(tmp_path, monkeypatch) -> list[dict]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.stage.COSTS", tmp_path / "report/costs.jsonl")
    Path("report").mkdir()
    Path("report/costs.jsonl").write_text("\n".join(map(json.dumps, COSTS)))
    Path("dvc.lock").write_text(LOCK)
    return costs.last_run(costs.stage_costs())


def test_the_critical_path_is_the_chain_that_takes_longest(run):
    assert costs.critical_path(run) == [
        {"stage": "draw", "seconds": 10},
        {"stage": "train@2", "seconds": 40},
        {"stage": "evaluate", "seconds": 5},
    ]


def test_cores_were_busy_with_what_stages_used(run, monkeypatch):
    monkeypatch.setattr(costs, "cores", lambda: 2)
    found = costs.busy(run)  # from 10:00 to 11:00: 20 + 30 + 35 + 2 + 5 of 120 seconds of a core
    assert found == {"minutes": pytest.approx(1), "share": pytest.approx(92 / 120), "cores": 2}


def test_a_run_ends_where_for_a_minute_nothing_ran(run):
    assert [cost["command"].split()[2:] for cost in run if "draw" in cost["command"]] == [["pipeline.shapes.draw"]]
    later = [*costs.stage_costs(), cost("shapes.figures", 3, "12:04", 3)]  # began 61 s after the last end
    assert [item["stage"] for item in costs.last_run(later)] == ["shapes.figures"]
    sooner = [*costs.stage_costs(), cost("shapes.figures", 3, "12:02", 3)]
    assert len(costs.last_run(sooner)) == len(run) + 1


def test_without_costs_or_a_lock_there_is_nothing_to_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.stage.COSTS", tmp_path / "report/costs.jsonl")
    assert costs.busy(costs.last_run(costs.stage_costs())) is None
    assert costs.critical_path([]) == []
