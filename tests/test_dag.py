"""dvc.yaml: a stage that does not name what it reads would be taken for up to date when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML

from pipeline.claims.stability import other_runs
from pipeline.workflow import dependencies

SHARED = {"inputs", "statistics"}  # rooms that any study may use
DVC_YAML = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")
STAGES = {name: dependencies.body(stage) for name, stage in DVC_YAML["stages"].items()}


def test_dvc_yaml_names_what_stages_read(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    dependencies.main(check="yes")  # raises, with the command that writes them


@pytest.mark.parametrize("name", STAGES)
def test_studies_do_not_import_one_another(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    code = dependencies.code_of(STAGES[name]["cmd"])
    rooms = {path.split("/")[1] for path in code if path.count("/") == 2} - SHARED
    assert len(rooms) == 1


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_is_for(name):
    assert len(STAGES[name]["desc"]) > 20


def test_the_report_depends_on_every_other_run_that_it_shows(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    report = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]["report"]
    assert {str(run.path.parent) for run in other_runs()} <= set(report["deps"])
