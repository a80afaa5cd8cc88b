"""claims.yaml: the documents' statements and tables, and what goes wrong in writing one."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML

from pipeline.claims.evidence import Run, recorded_runs
from pipeline.claims.judge import evidence, summary, verdicts
from pipeline.claims.schema import Measure, Table, cells, read_claims
from pipeline.claims.verdicts import REPRODUCED
from pipeline.countclip.published import FREQUENCIES, STATEMENTS, TABLE, published, published_test
from pipeline.posenet.published import table_2
from pipeline.stage import UserError
from pipeline.workflow import dependencies

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
    for name, claim in claims.items():
        if name.startswith("effects"):
            table, better, worse, column = name.split("/")
            assert claim.published == pytest.approx(published(better, column) - published(worse, column))
            if table == "effects":
                assert claim.rule.kind == ("above" if claim.published > 0 else "below")
                # a difference that cannot be more than chance has no sign to reproduce
                cannot_stand = published_test(better, worse, column)["verdict"] == "cannot stand"
                assert (claim.cannot is not None) == cannot_stand, name


def test_each_of_the_24_differences_of_table_1_is_asked_whether_it_stands(documents):
    _, claims = documents["countclip"]
    asked = [
        claim.measure.where for name, claim in claims.items() if name.startswith(("effects-stand/", "gain-stands"))
    ]
    drawn = [(*pair, column) for pairs in STATEMENTS.values() for pair in pairs for column in ("last", "best")]
    assert sorted((w["better"], w["worse"], w["column"]) for w in asked) == sorted(drawn)
    assert len(drawn) == 24


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
    made = dependencies.outputs_of(stages)
    recorded_only = {file for run in runs for file in run.files if not any(dependencies.within(file, o) for o in made)}
    compared = {"table1.json", "ties.json", "small-margins.json", "remedies.json"}  # of commands that compare trainings
    compared |= {"filters.json", "filter_units.json"}  # of a command beside the stages, which no claim measures
    assert recorded_only <= compared
    for file in measures(documents) - compared:
        assert any(Path(file).is_relative_to(dep) for dep in stages["claims"]["deps"]), file
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
    assert found["by_evidence"] == {"experiments": found["counts"]}


def test_an_experiment_is_told_from_arithmetic_and_from_others_answers(documents):
    """Or arithmetic on a document's own table would pass for a study that was run again."""
    for study, name, expected in (
        ("implicit-counting", "own-test-sets", "experiments"),
        ("implicit-counting", "convergence", "experiments"),
        ("posenet", "not-as-well-as-the-original", "nothing"),
        ("error-consistency", "people-fair-edges", "published answers"),
        ("error-consistency", "resnet50-people", "published answers"),
        ("error-consistency", "irrespective-of-architecture", "experiments"),
        ("error-consistency", "identical-is-one", "definitions"),
        ("countclip", "gain", "definitions"),
        ("countclip", "table-1-answers/modal/last", "published answers"),
        ("countclip", "learned-2", "experiments"),
        ("posenet", "table-2/H/VGG/bear-SPC", "experiments"),
        ("convnets-in-vision", "huber-near", "definitions"),
    ):
        assert evidence(documents[study][1][name]) == expected, name


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


TABLE_2 = """
paper:
  title: A paper
  authors: Someone
  study: shapes
  tables:
    table-2:
      where: Table 2
      keys: [pattern, network]
      columns: [last, best]
      cells: |
        H PosENet 1 2
        V PosENet 3 4
        V VGG     5 6
      words: {n: {PosENet: pixels, VGG: vgg16}}
      tolerance: {last: 1, best: 2}
      claim:
        says: '{network} on {pattern}, {column} epoch'
        measure: {file: metrics/x.json, where: {network: '{n}'}, value: '{column}'}
      overrides:
        - match: {network: PosENet, column: [last, best]}
          note: small
        - match: {pattern: V, network: VGG}
          note: large
"""


def test_an_override_changes_the_cells_that_it_matches(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(TABLE_2)
    _, claims = read_claims(path)["paper"]
    assert {name.removeprefix("table-2/"): claim.note for name, claim in claims.items()} == {
        **dict.fromkeys(["H/PosENet/last", "H/PosENet/best", "V/PosENet/last", "V/PosENet/best"], "small"),
        **dict.fromkeys(["V/VGG/last", "V/VGG/best"], "large"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("- match: {pattern", "- mach: {pattern"), r"overrides, entry 2: 'mach' is none of match, .*'match'\?"),
        (("- match: {pattern: V, network: VGG}\n          note", "- note"), r"entry 2: match should say .* found None"),
        (("match: {network: PosENet, col", "match: {netwrok: PosENet, col"), r"entry 1: match: 'netwrok' is none of"),
        (
            ("match: {network: PosENet", "match: {network: PoseNet"),
            r"network: 'PoseNet' is none of PosENet, VGG; .*'PosE",
        ),
        (("column: [last, best]}", "column: [last, bets]}"), r"1: match.column: 'bets' is none of last, best"),
        (("{pattern: V, network: VGG}", "{pattern: H, network: VGG}"), r"entry 2: match: no cell has all of .*VGG"),
        (("note: large", "notes: large"), r"entry 2: 'notes' is none of match, .*'note'\?"),
        (("keys: [pattern, network]", "keys: [patern, network]"), r"match: 'pattern' is none of patern, network, col"),
        (("{n: {PosENet", "{n: {PoseNet"), r"words.n: 'PoseNet' is none of .*PosENet, VGG"),
        (
            ("PosENet: pixels, VGG: vgg16", "VGG: vgg16"),
            r"/H/PosENet/last: '\{n\}': 'n' is none of pattern, network, column",
        ),
        (("{last: 1, best: 2}", "{last: 1, best: 2, bst: 2}"), r"tolerance: 'bst' is none of last, best"),
        (("'{network} on", "'{netwrk} on"), r"/H/PosENet/last: .*'netwrk' is none of .*'network'\?"),
        (("V PosENet 3 4", "H PosENet 3 4"), r"one row of 'H PosENet', found several"),
        (("V VGG     5 6", "V VGG     5 6%"), r"/V/VGG/best: '6%' should be a number or NaN"),
    ],
)
def test_what_is_misspelt_in_a_table_is_named(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    assert TABLE_2.count(change[0]) == 1
    path.write_text(TABLE_2.replace(*change))
    with pytest.raises(UserError, match=rf"claims.yaml: paper: table-2.*{message}"):
        read_claims(path)


@pytest.mark.parametrize(("content", "found"), [("- title: A paper\n", "a list"), ("A paper\n", "a str")])
def test_claims_that_are_no_documents_by_name_are_an_error(tmp_path, content, found):
    path = tmp_path / "claims.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"claims.yaml: should be documents by name .*, found {found}"):
        read_claims(path)
