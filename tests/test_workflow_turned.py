"""The whole workflow turned: the same lock in a second clone, experiments, what depends on a key, what goes wrong."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import edit_params
from workflow_helpers import ONE_AT_A_TIME, ONE_DENSITY, TWO_AT_A_TIME, clone, ran, reproduce_once, run, settle

pytestmark = pytest.mark.slow

FROM_LAMBDA = {"train_countclip", "evaluate_countclip", "figures_countbench"}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which all has run, two stages at a time, and its results are committed."""
    return reproduce_once(tmp_path_factory, "second", *TWO_AT_A_TIME) / "clone"


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds that clone as it was committed."""
    yield
    if "reproduced" in request.fixturenames:
        settle(request.getfixturevalue("reproduced"))


def test_another_lambda_trains_and_evaluates_only(reproduced):
    """The line that people type most: `dvc exp run -S lambda=modal`, then both confusion matrices side by side."""
    result = run("dvc", "exp", "run", "--name", "modal", "-S", "lambda=modal", cwd=reproduced)
    assert ran(result) - {"claims"} == FROM_LAMBDA | {"report"}  # at this scale answers may be the same
    diff = run("dvc", "plots", "diff", "HEAD", "modal", "--out", "diff", cwd=reproduced)
    page = Path(diff.stdout.strip().removeprefix("file://")).read_text()
    assert "Confusion on CountBench, fine-tuned" in page
    for revision in ("HEAD", "modal"):
        assert f'"rev": "{revision}"' in page
        pictures = [path.name for path in (reproduced / "diff/static").glob(f"{revision}*confusion.png")]
        assert len(pictures) == 1, pictures
    table = pd.read_csv(io.StringIO(run("dvc", "exp", "show", "--only-changed", "--csv", cwd=reproduced).stdout))
    columns = {name.split(":")[-1]: name for name in table}
    assert set(table[columns["lambda"]]) == {"one", "modal"}
    assert len(columns) < 40  # readable: what did not change is not there
    assert "modal" in run("dvc", "exp", "list", "--name-only", cwd=reproduced).stdout.split()


def test_a_run_of_table_1_is_an_experiment_and_is_not_run_twice(reproduced):
    name = "table1-modal-scheduler-plus-run1"
    code = (
        "from pipeline.countclip import table1 as t; wanted = [(t.TABLE[7], 1)]; t.run_missing(wanted);"
        f"print(t.read_run('{name}', 'best')[['image', 'correct']].to_csv())"
    )
    first = run(sys.executable, "-c", code, cwd=reproduced, extra={"PYTHONPATH": str(reproduced)})
    assert f"{name}: done" in first.stdout
    assert name in run("dvc", "exp", "list", "--name-only", cwd=reproduced).stdout.split()
    again = run(sys.executable, "-c", code, cwd=reproduced, extra={"PYTHONPATH": str(reproduced)})
    assert "done" not in again.stdout
    assert again.stdout.strip() in first.stdout
    assert run("git", "status", "--porcelain", cwd=reproduced).stdout == ""


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("scales.smoke.shapes.bootstrap=60", {"evaluate_shapes", "compare_counters"}),
        ("scales.smoke.shapes.margin_images=6", {"margin_sets"}),
        (
            "scales.smoke.consistency.resamples=120",
            {"consistency_trials", "consistency_counters", "consistency_purpose"},
        ),
        ("scales.smoke.consistency.trials=112", {"collect_trials"}),
        ("scales.smoke.countclip.detector_epochs=2", {"train_detector"}),
        ("countclip.filter.batch_size=2", {"filter_captions"}),
        ("countclip.training.run=1", {"train_countclip"}),
        ("scales.smoke.countclip.pretraining.steps=3", {"pretrain_clip"}),
        ("scales.smoke.countclip.benchmark_per_number=3", {"countbench"}),
        ("scales.smoke.posenet.held_out=2", {"posenet_images"}),
        ("posenet.map_size=24", {"extract_features", "extract_counter_features"}),
        ("scales.smoke.posenet.runs=1", {"train_posenet", "evaluate_posenet"}),
        ("scales.smoke.localize.training.ssd.epochs=2", {"train_counter"}),
        ("scales.smoke.localize.lime_samples=17", {"explain_counters", "explain_clip"}),
        ("scales.smoke.localize.shift_images=2", {"shift_counter"}),
        ("scales.laptop.shapes.images=6000", set()),
        ("scales.paper.shapes.training.epochs=13", set()),
    ],
)
def test_a_stage_depends_on_exactly_what_it_uses(reproduced, change, stages):
    edited = dict([change.split("=")])
    before = (reproduced / "params.yaml").read_text()
    edit_params(reproduced / "params.yaml", {name: int(value) for name, value in edited.items()})
    status = json.loads(run("dvc", "status", "--json", cwd=reproduced).stdout)
    changed = {
        name.split("@")[0]
        for name, reasons in status.items()
        if any("params.yaml" in str(reason.get("changed deps", {})) for reason in reasons if isinstance(reason, dict))
    }
    (reproduced / "params.yaml").write_text(before)
    assert changed == stages


@pytest.mark.parametrize(("scale", "source"), [("laptop", "generated"), ("paper", "published")])
def test_the_graph_resolves_at_every_scale_and_source(reproduced, scale, source):
    """Every key that dvc.yaml names with ${scale} and ${source} is there, and the same stages stand."""
    names = run("dvc", "stage", "list", "--name-only", cwd=reproduced).stdout.split()
    edit_params(reproduced / "params.yaml", {"scale": scale, "source": source})
    assert run("dvc", "stage", "list", "--name-only", cwd=reproduced).stdout.split() == names
    status = json.loads(run("dvc", "status", "--json", cwd=reproduced).stdout)
    changed = {name.split("@")[0] for name in status}
    assert {"claims", "report", "collect_trials", "train_resnet"} <= changed
    assert not any(
        "deleted" in str(reason.get("changed deps", {}).get("params.yaml"))
        for reasons in status.values()
        for reason in reasons
        if isinstance(reason, dict)
    )


def test_two_fresh_clones_give_the_same_lock_with_two_stages_at_a_time_as_with_one(tmp_path_factory):
    first = reproduce_once(tmp_path_factory, "first", *ONE_AT_A_TIME)
    second = reproduce_once(tmp_path_factory, "second", *TWO_AT_A_TIME)
    assert (first / "dvc.lock").read_bytes() == (second / "dvc.lock").read_bytes()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A clone with one density, nothing run yet."""
    folder = clone(tmp_path / "clone", **ONE_DENSITY)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def test_a_cache_without_write_permission_stops_repro(small, unprivileged):
    cache = small / ".dvc/cache"
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    result = run("dvc", "repro", "generate_shapes@10", cwd=small, check=False, preexec_fn=unprivileged)
    assert result.returncode != 0
    assert "ERROR" in result.stderr
    assert "Permission denied" in result.stderr
    assert ".dvc/cache" in result.stderr
    assert not list(cache.iterdir())
    assert not (small / "dvc.lock").exists()
    cache.chmod(0o755)
    run("dvc", "repro", "generate_shapes@10", cwd=small)


def test_a_misspelt_key_stops_repro_and_names_it(small):
    edit_params(small / "params.yaml", {"shapes.taget": "soft"})
    result = run("dvc", "repro", "generate_shapes@10", cwd=small, check=False)
    assert result.returncode != 0
    assert "unknown key 'shapes.taget'" in result.stderr


def test_dvc_refuses_an_experiment_with_a_misspelt_key(small):
    result = run("dvc", "exp", "run", "-S", "shapes.taget=soft", cwd=small, check=False)
    assert result.returncode != 0
    assert "taget" in result.stderr
