"""The report: one file, offline, with every claim; and what is recorded under results/."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_params, stage_command, stage_environment

from pipeline import stage
from pipeline.claims import judge, record, report
from pipeline.claims.evidence import recorded_runs
from pipeline.claims.schema import Claim
from pipeline.figures import figure
from pipeline.stage import UserError

CLAIMS = """
paper:
  title: A paper of <tags> & such
  authors: Someone
  study: shapes
  figures: [plots/shapes]
  claims:
    it-is-large:
      says: It is <b>large</b>
      where: section 1
      published: large
      measure: {file: metrics/x.json, value: size}
      rule: {above: 2}
    never: {says: Nobody knows, where: section 2, cannot: not at hand}
  tables:
    table-1:
      where: Table 1
      keys: [row]
      columns: [a, b]
      cells: |
        first 3 NaN
      tolerance: 1.0
      claim: {says: '{row} {column}', note: a footnote, measure: {file: metrics/x.json, value: size}}
"""


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    copy_params(tmp_path, scale="laptop")
    Path("claims.yaml").write_text(CLAIMS)
    Path("metrics").mkdir()
    Path("metrics/x.json").write_text('{"size": 3.0, "size_low": 2.5, "size_high": 3.5}')
    with figure("plots/shapes/one.png") as (_, ax):
        ax.plot([0, 1])
    judge.main()
    return tmp_path


def test_the_report_is_one_file_that_needs_no_other(judged):
    report.main()
    page = Path("report/index.html").read_text()
    assert all(
        place.startswith(("data:", "#")) for place in re.findall(r"""(?:src|href)\s*=\s*["']?([^"'> ]*)""", page)
    )
    assert not re.search(r"<script\s|<link|<iframe|@import|url\(|fetch\(|import\(", page)
    # the one figure, small on the first screen and large below
    assert re.findall(r'<img src="([^"]{23})', page) == ["data:image/webp;base64,"] * 2
    for text in ("It is &lt;b&gt;large&lt;/b&gt;", "A paper of &lt;tags&gt; &amp; such", "Nobody knows", "not at hand"):
        assert text in page
    assert "3.00 [2.50, 3.50]" in page
    assert page.count("<sup>1</sup>") == 3  # at both cells, and below the table with its text
    assert "<sup>1</sup> a footnote" in page
    assert "<code>metrics/x.json: size</code>; above 2" in page  # what was measured, and by which rule
    # large, and the cell that 3 is within 2.5 to 3.5; the cell that is a number where NaN was published; never
    found = json.loads(Path("metrics/claims.json").read_text())["counts"]
    assert found == {"reproduced": 2, "not_reproduced": 1, "cannot_be_judged_here": 1}
    assert "Of those reproduced 2 were judged by experiments made here, 0 by analysing published answers" in page
    assert re.search(r'aria-label="2 reproduced, 1 not reproduced, 1 cannot be judged here"', page)


def test_the_report_shows_settings_of_this_run_and_what_stages_cost(judged, monkeypatch):
    costs = [{"stage": "shapes.train 10", "command": "python -m pipeline.shapes.train --density 10"}]
    lines = [
        json.dumps({**cost, "seconds": 60.5, "with_start": 64.25, "cpu": 32.0, "ended": "2026-01-01T10:00:00+00:00"})
        for cost in costs
    ]
    Path("report").mkdir()
    Path("report/costs.jsonl").write_text("\n".join(lines))
    report.main()
    page = Path("report/index.html").read_text()
    assert '<td>shapes</td><td class="r">1</td><td class="r">60.5</td><td class="r">64.2</td>' in page
    assert "scales.laptop.shapes.images" in page
    assert "scales.paper" not in page


def test_a_report_of_other_claims_is_refused(judged):
    Path("claims.yaml").write_text(CLAIMS.replace("never:", "ever:"))
    with pytest.raises(UserError, match=r"plots/claims.json: is of another claims.yaml; 'dvc repro claims'"):
        report.main()


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (0.1234, {}, "0.12"),
        (0.8537, {"percent": True}, "85.4%"),
        (-0.0004, {"digits": 3}, "0.000"),
        (2319, {"digits": 0}, "2319"),
        (None, {}, "undefined"),
        ("resnet18", {}, "resnet18"),
    ],
)
def test_numbers_are_shown_as_the_claim_wants(value, options, text):
    claim = Claim.model_validate({"says": "x", "where": "y", "cannot": "z", **options})
    assert report.shown(value, claim) == text


def test_a_recorded_run_can_judge(judged, monkeypatch):
    copy_params(judged, scale="paper")
    record.main("large", files="metrics/x.json", by="a test", scale="paper", source="generated")
    copy_params(judged, scale="laptop")
    Path("metrics/x.json").write_text('{"size": 1.0, "size_low": 0.5, "size_high": 1.5}')
    (kept,) = recorded_runs()
    assert (kept.name, kept.scale, kept.source) == ("results/paper/large", "paper", "generated")
    assert kept.provenance.by == "a test"
    assert {"python", "torch"} <= kept.provenance.versions.keys()
    judge.main()
    rows = [row for row in json.loads(Path("plots/claims.json").read_text()) if row["claim"] == "it-is-large"]
    assert [(row["run"], row["verdict"]) for row in rows] == [
        ("results/paper/large", "reproduced"),
        ("this run", "not reproduced"),
    ]
    Path("results/paper/large/metrics.x.json").unlink()
    with pytest.raises(UserError, match=r"provenance.json: names files that are not there: .*metrics.x.json"):
        recorded_runs()


def test_what_is_recorded_has_a_name_and_is_there(judged):
    Path("elsewhere.json").write_text("{}")
    record.main("renamed", files="elsewhere.json:metrics/x.json", inputs="others")
    (kept,) = recorded_runs()
    assert kept.files == {"metrics/x.json": Path("results/laptop/renamed/metrics.x.json")}
    assert kept.provenance.inputs == "others"
    with pytest.raises(UserError, match="nothing to keep"):
        record.main("x")
    with pytest.raises(UserError, match=r"not there: metrics/y.json"):
        record.main("x", files="metrics/y.json")
    with pytest.raises(UserError, match=r"--scale 'papr': allowed are smoke, laptop, paper"):
        record.main("x", files="elsewhere.json", scale="papr")


STAGES = """
stages:
  train:
    cmd: echo 1 > model
    params: ["scales.${scale}.shapes.images", "sources.${source}.trials"]
    outs: [model]
  evaluate:
    cmd: mkdir -p plots/x/y && cp model metrics/x.json && cp model plots/x/a.json && cp model plots/x/y/b.json
    deps: [model]
    outs: [metrics/x.json, plots/x]
  about:
    cmd: echo 2 > metrics/about.json
    outs: [metrics/about.json]
"""


@pytest.fixture(scope="module")
def reproduced_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `dvc repro` has run at `laptop`; what `evaluate` writes depends on that by `train` only."""
    folder = tmp_path_factory.mktemp("reproduced")
    copy_params(folder, scale="laptop")
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / "metrics").mkdir()
    for command in ("dvc init --quiet --no-scm", "dvc repro --quiet"):
        subprocess.run([sys.executable, "-m", *command.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def reproduced(reproduced_once: Path, work_in_copy) -> Path:
    return work_in_copy(reproduced_once)


def test_scale_and_source_are_those_that_the_files_were_made_with(reproduced):
    """By dvc.lock, of all stages that a file comes of, whatever params.yaml says by now; folders as well."""
    files = "metrics/x.json,plots/x/y/b.json"
    record.main("x", files=files)
    (kept,) = recorded_runs()
    assert (kept.name, kept.scale, kept.source) == ("results/laptop/x", "laptop", "generated")
    assert kept.provenance.by == "dvc repro"
    copy_params(reproduced, scale="paper")
    for file in files.split(","):
        with pytest.raises(UserError, match=rf"{file}: was made with scale 'laptop', not 'paper', .* of stage train"):
            record.main("x", files=file)
    with pytest.raises(UserError, match=r"was made with scale 'laptop', not 'paper'"):
        record.main("x", files=files, scale="paper", source="generated")  # what is known is not overruled
    record.main("again", files=files, scale="laptop")
    record.main("about", files="metrics/about.json")  # of no scale
    assert {run.name for run in recorded_runs()} == {
        f"results/{n}" for n in ("laptop/x", "laptop/again", "paper/about")
    }
    copy_params(reproduced, scale="laptop", source="published")
    with pytest.raises(UserError, match=r"was made with source 'generated', not 'published'.*--source generated"):
        record.main("x", files=files)


@pytest.mark.parametrize(
    ("changed", "kept"), [("metrics/x.json", "metrics/x.json"), ("plots/x/a.json", "plots/x/y/b.json")]
)
def test_a_file_that_dvc_lock_does_not_have_so_is_what_the_user_says(reproduced, changed, kept):
    Path(changed).write_text("3")  # of a folder it is the whole that dvc.lock has
    for options in ({}, {"scale": "laptop"}):
        with pytest.raises(UserError, match=rf"{kept}: is not what stage evaluate wrote by dvc.lock; .*--source"):
            record.main("x", files=kept, **options)
    record.main("x", files=kept, scale="paper", source="published")
    (run,) = recorded_runs()
    assert (run.scale, run.source, run.provenance.by) == ("paper", "published", "not by dvc repro alone")


def test_what_no_stage_writes_is_of_params_unless_that_was_changed_since(reproduced):
    Path("results/laptop/countclip").mkdir(parents=True)
    for file in ("results/laptop/countclip/table1.json", "report.json"):
        Path(file).write_text("{}")
        record.main("table", files=f"{file}:table1.json")
        copy_params(reproduced, scale="laptop")
        with pytest.raises(UserError, match=rf"{file}: no stage in dvc.lock writes it, and params.yaml was changed"):
            record.main("table", files=file)
        record.main("table", files=file, scale="laptop", source="published")
    for scale in ("", "paper"):
        copy_params(reproduced, scale="paper")
        with pytest.raises(UserError, match="is of scale 'laptop' by its place, not 'paper'"):
            record.main("table", files="results/laptop/countclip/table1.json", scale=scale, source="generated")


@pytest.mark.parametrize("content", ["", "schema: '2", "schema: '2.0'\n"])
def test_a_lock_that_broke_off_vouches_for_nothing(reproduced, content):
    Path("dvc.lock").write_text(content)
    with pytest.raises(UserError, match=r"dvc.lock: not whole; 'make repro'"):
        record.main("x", files="metrics/x.json")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://someone:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://secret@example.org:8443/b.git", "https://example.org:8443/b.git"),
        ("https://someone:sec@ret@example.org/b", "https://example.org/b"),
        ("ssh://git@example.org/a@b.git", "ssh://example.org/a@b.git"),
        ("https://example.org/a@b.git", "https://example.org/a@b.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("../elsewhere", "../elsewhere"),
        ("", ""),
    ],
)
def test_the_report_has_no_password_of_the_repository(judged, address, shown):
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "config", "remote.origin.url", address], check=True)
    assert report.origin() == shown
    if "secret" in address:
        report.main()
        page = Path("report/index.html").read_text()
        assert shown in page
        assert "secret" not in page


def test_a_stage_leaves_its_cost(tmp_path):
    copy_params(tmp_path)
    # from a shell: Linux counts to a process what it was forked from held
    command, env = ["sh", "-c", f"{shlex.join(stage_command('params'))}; true"], stage_environment()
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    first, second = map(json.loads, (tmp_path / "report/costs.jsonl").read_text().splitlines())
    assert first.keys() == second.keys() == {"stage", "command", "seconds", "with_start", "cpu", "memory", "ended"}
    assert first["command"] == "python -m pipeline.params"
    assert 5e6 < first["memory"] < 1e9  # bytes of a process that imports pydantic and numpy
    assert 0 <= first["seconds"] < first["with_start"] < 60


def test_costs_are_those_of_the_last_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stage.costs() == []
    Path("report").mkdir()
    lines = [{"stage": name, "seconds": seconds} for name, seconds in (("a", 1.0), ("b", 2.0), ("a", 3.0))]
    Path("report/costs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [(cost["stage"], cost["seconds"]) for cost in stage.costs()] == [("b", 2.0), ("a", 3.0)]


def test_a_machine_without_cpuinfo_has_a_name(monkeypatch, tmp_path):
    """As on macOS; the report would not be written there."""
    monkeypatch.setattr(record, "CPU_INFO", tmp_path / "absent")
    assert record.machine()
