"""The whole workflow turned: the same lock in a second clone, experiments, what depends on a key, what goes wrong."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
from conftest import edit_params
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.utils.serialize import LOADERS
from ruamel.yaml import YAML
from workflow_helpers import (
    ONE_AT_A_TIME,
    ONE_DENSITY,
    clone,
    commit,
    forget,
    link,
    ran,
    reproduced_once,
    run,
    settle,
    site_cache,
)

from pipeline.workflow.dvc_parts import WHOLE, read_graph, read_yaml

pytestmark = pytest.mark.slow

FROM_TARGET = {"train_resnet", "train_variant"}  # and who scores ties
FROM_TARGET |= {"predict_shapes", "predict_variant", "renormalise_shapes", "boundary_path", "count_shapes"}
FROM_TRAINING = {
    "predict_shapes",
    "predict_variant",
    "collect_decisions",
    "evaluate_shapes",
    "renormalise_shapes",
    "evaluate_normalisation",
    "boundary_path",
    "figures_shapes",
    "weigh_margins",
    "analyse_consistency",
    "trials_needed",
    "figures_consistency",
}
FROM_COUNTER = {"extract_counter_features", "train_posenet", "evaluate_posenet", "figures_posenet"}
FROM_NETWORKS = {"explain_counters", "compare_counters", "figures_localize"}
FROM_M50 = {"probe_counter", "shift_counter"}
JUDGED = {"claims", "report"}
FROM_LAMBDA = {"train_countclip", "evaluate_countclip", "figures_countbench"}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second clone in which all has run, stage by stage as `dvc repro` does it, and its results are committed.

    Of stages that differ only in the density of their images, or in the training run, one has run: the first clone's
    runs stand for the others.
    """
    first = reproduced_once(tmp_path_factory)
    second = clone(tmp_path_factory.mktemp("second") / "clone")
    link(first / "cache", second / ".dvc/cache")
    stages = YAML(typ="safe").load(first / "dvc.lock")["stages"]
    firsts = {re.sub(r"(?<=[@-])\d+", "", name): name for name in reversed(stages)}.values()
    forget(second / ".dvc/cache", {stages[name]["cmd"] for name in firsts})
    assert ran(run(*ONE_AT_A_TIME, cwd=second), values=True) == set(firsts)
    commit(second)
    return second


@pytest.fixture
def turned(reproduced: Path) -> Iterator[Path]:
    """That clone, to be changed: the next test finds it as it was committed."""
    yield reproduced
    settle(reproduced)


def test_another_lambda_trains_and_evaluates_only(turned):
    """The line that people type most: `dvc exp run -S lambda=modal`, then both confusion matrices side by side."""
    result = run("dvc", "exp", "run", "--name", "modal", "-S", "lambda=modal", cwd=turned)
    assert ran(result) - {"claims"} == FROM_LAMBDA | {"report"}  # at this scale answers may be the same
    diff = run("dvc", "plots", "diff", "HEAD", "modal", "--out", "diff", cwd=turned)
    page = Path(diff.stdout.strip().removeprefix("file://")).read_text()
    assert "Confusion on CountBench, fine-tuned" in page
    for revision in ("HEAD", "modal"):
        assert f'"rev": "{revision}"' in page
        pictures = [path.name for path in (turned / "diff/static").glob(f"{revision}*confusion.png")]
        assert len(pictures) == 1, pictures
    table = pd.read_csv(io.StringIO(run("dvc", "exp", "show", "--only-changed", "--csv", cwd=turned).stdout))
    columns = {name.split(":")[-1]: name for name in table}
    assert set(table[columns["lambda"]]) == {"one", "modal"}
    assert len(columns) < 40  # readable: what did not change is not there
    assert "modal" in run("dvc", "exp", "list", "--name-only", cwd=turned).stdout.split()
    back = run("dvc", "exp", "run", "-S", "lambda=one", cwd=turned)
    assert ran(back) == {"report"}  # it has no outputs, so none that the run cache could give back
    assert run("git", "diff", "HEAD", "--stat", "--", "dvc.lock", cwd=turned).stdout == ""


def test_a_run_of_table_1_is_an_experiment_and_is_not_run_twice(turned):
    name = "table1-modal-scheduler-plus-run1"
    code = (
        "from pipeline.countclip import table1 as t; wanted = [(t.TABLE[7], 1)]; t.run_missing(wanted);"
        f"print(t.read_run('{name}', 'best')[['image', 'correct']].to_csv())"
    )
    first = run(sys.executable, "-c", code, cwd=turned, extra={"PYTHONPATH": str(turned)})
    assert f"{name}: done" in first.stdout
    assert name in run("dvc", "exp", "list", "--name-only", cwd=turned).stdout.split()
    again = run(sys.executable, "-c", code, cwd=turned, extra={"PYTHONPATH": str(turned)})
    assert "done" not in again.stdout
    assert again.stdout.strip() in first.stdout
    assert run("git", "status", "--porcelain", cwd=turned).stdout == ""


@contextmanager
def opened(folder: Path, **changes: object) -> Iterator[Repo]:
    """DVC in a clone with other parameters, as its commands have it, without their start."""
    params = folder / "params.yaml"
    before = params.read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_SITE_CACHE_DIR", str(site_cache(folder)))
        patch.setitem(LOADERS, ".yaml", read_yaml)
        try:
            edit_params(params, changes)
            with Repo() as repo:
                yield repo
        finally:
            params.write_text(before)


def changed_parameters(repo: Repo) -> dict[str, dict[str, str]]:
    """What `dvc status` says of params.yaml, by stage; it also reads all files."""
    found: dict[str, dict[str, str]] = {}
    for stage in repo.index.stages:
        for dependency in stage.deps:
            if isinstance(dependency, ParamsDependency):
                keys = dependency.status().get("params.yaml", {})
                found |= {stage.addressing: keys} if keys else {}
    return found


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("shapes.target=soft", FROM_TARGET),
        ("scales.smoke.shapes.bootstrap=60", {"evaluate_shapes", "compare_counters"}),
        ("scales.smoke.shapes.margin_images=6", {"margin_sets"}),
        (
            "scales.smoke.consistency.resamples=120",
            {"analyse_consistency"},
        ),
        ("scales.smoke.consistency.trials=112", {"collect_trials"}),
        ("scales.smoke.countclip.detector_epochs=2", {"train_detector"}),
        ("countclip.filter.batch_size=2", {"filter_captions"}),
        ("countclip.training.lambda_0=2", {"train_countclip"}),
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
    name, value = change.split("=")
    with opened(reproduced, **{name: int(value) if value.isdecimal() else value}) as repo:
        assert {stage.split("@")[0] for stage in changed_parameters(repo)} == stages


def test_what_follows_from_training_is_the_graph_of_the_networks(reproduced):
    """And no more: what another study makes of its own images stays as it is."""
    with opened(reproduced) as repo:
        graph = read_graph(repo, WHOLE)
    of_training = {name for name in graph if name.startswith(("train_resnet@", "train_variant@"))}
    after = set().union(*(nx.ancestors(graph, name) for name in of_training))
    after = {name.split("@")[0] for name in after}
    assert after == FROM_TRAINING | FROM_COUNTER | FROM_NETWORKS | FROM_M50 | JUDGED


@pytest.mark.parametrize(("scale", "source"), [("laptop", "generated"), ("paper", "published")])
def test_the_graph_resolves_at_every_scale_and_source(reproduced, scale, source):
    """Every key that dvc.yaml names with ${scale} and ${source} is there, and the same stages stand."""
    with opened(reproduced) as repo:
        names = [stage.addressing for stage in repo.index.stages]
        assert changed_parameters(repo) == {}
    with opened(reproduced, scale=scale, source=source) as repo:
        assert [stage.addressing for stage in repo.index.stages] == names
        found = changed_parameters(repo)
    assert {"claims", "report", "collect_trials"} <= found.keys()
    assert {stage.split("@")[0] for stage in found} >= {"train_resnet"}
    assert not any("deleted" in str(keys) for keys in found.values())


def test_two_fresh_clones_give_the_same_lock_with_two_stages_at_a_time_as_with_one(tmp_path_factory, reproduced):
    lock = run("git", "show", "HEAD:dvc.lock", cwd=reproduced).stdout
    assert lock == (reproduced_once(tmp_path_factory) / "dvc.lock").read_text()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with one density, nothing run yet but what tests run in it."""
    return clone(tmp_path_factory.mktemp("small") / "clone", **ONE_DENSITY)


@pytest.fixture
def cache(small: Path) -> Iterator[Path]:
    """Its empty cache, without write permission."""
    cache = small / ".dvc/cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    cache.chmod(0o555)
    yield cache
    cache.chmod(0o755)


def test_a_cache_without_write_permission_stops_repro(small, cache, unprivileged):
    result = run("dvc", "repro", "generate_shapes@10", cwd=small, check=False, preexec_fn=unprivileged)
    assert result.returncode != 0
    assert "ERROR" in result.stderr
    assert "Permission denied" in result.stderr
    assert ".dvc/cache" in result.stderr
    assert not list(cache.iterdir())
    assert not (small / "dvc.lock").exists()
    cache.chmod(0o755)
    run("dvc", "repro", "generate_shapes@10", cwd=small)


@pytest.fixture
def misspelt(small: Path) -> Iterator[Path]:
    """A clone with a key that there is not."""
    edit_params(small / "params.yaml", {"shapes.taget": "soft"})
    yield small
    run("git", "checkout", "params.yaml", cwd=small)


def test_a_misspelt_key_stops_repro_and_names_it(misspelt):
    result = run("dvc", "repro", "margin_sets", cwd=misspelt, check=False)
    assert result.returncode != 0
    assert "unknown key 'shapes.taget'" in result.stderr


def test_dvc_refuses_an_experiment_with_a_misspelt_key(small):
    result = run("dvc", "exp", "run", "-S", "shapes.taget=soft", cwd=small, check=False)
    assert result.returncode != 0
    assert "taget" in result.stderr
