"""claims.yaml: the documents' statements and tables, and what goes wrong in writing one."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML

from pipeline.claims.evidence import Run, recorded_runs
from pipeline.claims.judge import summary, verdicts
from pipeline.claims.schema import Measure, Table, cells, read_claims
from pipeline.claims.verdicts import REPRODUCED
from pipeline.countclip.authors import FREQUENCIES
from pipeline.countclip.table1 import TABLE
from pipeline.posenet.published import table_2
from pipeline.stage import UserError

PAPERS = {"implicit-counting", "error-consistency", "countclip", "posenet", "convnets-in-vision"}


@pytest.fixture(scope="module")
def documents() -> dict:
    return read_claims(REPOSITORY / "claims.yaml")


def test_every_document_has_claims(documents):
    assert documents.keys() == PAPERS
    assert all(len(claims) >= 15 for _, claims in documents.values())


def test_table_2_of_posenet_is_there_cell_by_cell(documents):
    _, claims = documents["posenet"]
    table = {tuple(name.split("/")[1:]): claim for name, claim in claims.items() if name.startswith("table-2/")}
    assert len(table) == 120
    networks = {"PosENet": "pixels/raw", "VGG": "vgg16/trained-zeros", "ResNet": "resnet152/trained-zeros"}
    images = {"bear": "natural", "black": "black", "white": "white", "noise": "noise"}
    published = table_2()
    for (pattern, network, column), claim in table.items():
        image, score = column.split("-")
        spearman, error = published[pattern, networks[network], images[image]]
        expected = spearman if score == "SPC" else error
        assert claim.published == ("NaN" if expected is None else expected), (pattern, network, column)
        assert claim.measure.where["network"] == networks[network]
        assert claim.measure.where["image"] == images[image]
        assert claim.measure.value == {"SPC": "spearman", "MAE": "mae"}[score]


def test_table_1_and_the_class_counts_of_countclip_are_there(documents):
    _, claims = documents["countclip"]
    table = {name.split("/", 1)[1]: claim.published for name, claim in claims.items() if name.startswith("table-1/")}
    assert table == {f"{row.name}/{column}": row.published[column] for row in TABLE for column in ("last", "best")}
    counts = {
        claim.measure.where["count"]: claim.published
        for name, claim in claims.items()
        if name.startswith("class-counts/")
    }
    assert counts == FREQUENCIES
    by_name = {row.name: row.published for row in TABLE}
    for name, claim in claims.items():
        if name.startswith("effects/"):
            _, better, worse, column = name.split("/")
            assert claim.published == pytest.approx(by_name[better][column] - by_name[worse][column])
            assert claim.rule.kind == ("above" if claim.published > 0 else "below")


def measures(documents: dict) -> set[str]:
    found = set()
    for _, claims in documents.values():
        for claim in claims.values():
            rules = [claim.rule.above, claim.rule.below] if claim.rule else []
            found |= {m.file for m in [claim.measure, *rules] if isinstance(m, Measure)}
    return found


def test_what_is_measured_is_a_dependency_of_the_stage(documents, monkeypatch):
    """Or a claim would be taken for up to date when its number has changed."""
    monkeypatch.chdir(REPOSITORY)
    stages = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]
    runs = recorded_runs()
    made = {out if isinstance(out, str) else next(iter(out)) for s in stages.values() for out in s.get("outs", [])}
    made |= {out for stage in stages.values() for out in stage.get("metrics", [])}
    recorded_only = {file for run in runs for file in run.files} - made
    assert recorded_only == {"table1.json", "ties.json"}  # of commands that compare experiments
    assert measures(documents) - recorded_only <= set(stages["claims"]["deps"])
    for stage in ("claims", "report"):
        assert all(any(Path(run.name).is_relative_to(dep) for dep in stages[stage]["deps"]) for run in runs), stage
    shown = {place for document, _ in documents.values() for place in document.figures}
    assert all(any(Path(place).is_relative_to(dep) for dep in stages["report"]["deps"]) for place in shown)


def test_every_claim_without_evidence_here_says_what_to_do_or_why(documents):
    for name, (_, claims) in documents.items():
        for key, claim in claims.items():
            needs_more = claim.judged_at.scale == ["paper"] or claim.judged_at.source == ["published"]
            assert claim.cannot or claim.command or not needs_more, f"{name}/{key}"


ONE = """
paper:
  title: A paper
  authors: Someone
  study: shapes
  claims:
    it-is-large:
      says: It is large
      where: section 1
      published: large
      measure: {file: metrics/x.json, value: size}
      rule: {above: 2}
"""


def test_a_new_claim_is_a_few_lines_and_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("claims.yaml").write_text(ONE)
    Path("metrics").mkdir()
    Path("metrics/x.json").write_text('{"size": 3.0, "size_low": 2.5, "size_high": 3.5}')
    rows = verdicts(read_claims(), [Run("this run", "laptop", "generated")])
    assert [(row["claim"], row["verdict"], row["value"]) for row in rows] == [("it-is-large", REPRODUCED, 3.0)]
    found = summary(rows)
    assert found["checks"] == {"reproduced": 0, "not_reproduced": 0, "cannot_be_judged_here": 0}
    assert found["counts"] == {"reproduced": 1, "not_reproduced": 0, "cannot_be_judged_here": 0}
    assert found["claims"] == {"paper/it-is-large": {"verdict": "reproduced"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rule: {above: 2}", "rule: {above: 2, below: 3}"), "one of above, below"),
        (("rule: {above: 2}", "rule: {over: 2}"), "rule.over"),
        (("rule: {above: 2}", "rule: {equals: 2}"), "tolerance"),
        (("rule: {above: 2}", "digits: 2"), "measure and rule should be given, or cannot"),
        (("value: size}", "value: size, exact: true, of: 3}"), "one at most"),
        (("says: It is large", "said: It is large"), "says"),
        (("title: A paper\n", "title: A paper\n  title: twice\n"), "not YAML"),
    ],
)
def test_what_is_wrong_in_a_claim_is_named(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    path.write_text(ONE.replace(*change))
    with pytest.raises(UserError, match=message):
        read_claims(path)


def test_a_table_row_of_another_length_is_named():
    table = Table.model_validate(
        {"where": "T", "keys": ["row"], "columns": ["a", "b"], "cells": "y 3", "tolerance": 1.0, "claim": {}}
    )
    with pytest.raises(ValueError, match=r"'y 3' should be 1 words and 2 numbers"):
        list(cells("t", table))
