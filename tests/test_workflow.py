"""The whole workflow as a person runs it: `dvc repro` in fresh clones, experiments, and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, edit_params

pytestmark = pytest.mark.slow

DENSITIES = [10, 50, 90]  # of the nine: each is two stages, and every stage starts Python
FROM_TRAINING = {
    "train_resnet",
    "train_variant",
    "predict_shapes",
    "predict_variants",
    "evaluate_shapes",
    "figures_shapes",
    "consistency_counters",
    "figures_consistency",
}
FROM_COUNTER = {"extract_counter_features", "train_posenet", "evaluate_posenet", "figures_posenet"}
FROM_NETWORKS = {"explain_counters", "compare_counters", "consistency_purpose", "figures_localize"}
FROM_M50 = {"probe_counter", "shift_counter"}
LOCALIZE = {"train_counter", "count_shapes", "explain_clip"} | FROM_NETWORKS | FROM_M50
FROM_LAMBDA = {"train_countclip", "evaluate_countclip", "figures_countbench"}
COUNTCLIP = {
    "pool",
    "train_detector",
    "filter_captions",
    "figures_countclip",
    "pretrain_clip",
    "countbench",
} | FROM_LAMBDA


def run(
    *command: str, cwd: Path, check: bool = True, extra: dict[str, str] | None = None, **options
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("DVC_ROOT", None)
    environment.pop("PYTHONPATH", None)
    environment |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(cwd.parent / f"{cwd.name}-site-cache")}
    environment |= extra or {}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, **options)
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def clone(folder: Path, **changes: object) -> Path:
    """A clone of what is checked out, uncommitted changes of tracked files included, at `scale: smoke`."""
    run("git", "clone", "--quiet", str(REPOSITORY), str(folder), cwd=folder.parent)
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_file():
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)  # what was run at another scale says nothing here
    edit_params(folder / "params.yaml", {"scale": "smoke", "threads": 1, "densities": DENSITIES, **changes})
    run("git", "config", "user.email", "tests@example.org", cwd=folder)
    run("git", "config", "user.name", "tests", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--allow-empty", "--message", "state under test", cwd=folder)
    return folder


def ran(result: subprocess.CompletedProcess) -> set[str]:
    """Names of the stages whose commands ran, without their matrix values."""
    lines = (line.strip() for line in (result.stdout + result.stderr).splitlines())
    return {line.split("'")[1].split("@")[0] for line in lines if line.startswith("Running stage '")}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` has run, and its results are committed."""
    folder = clone(tmp_path_factory.mktemp("first") / "clone")
    result = run("dvc", "repro", cwd=folder)
    drawn = {"generate_shapes", "margin_sets"}
    trials = {"collect_trials", "consistency_trials"}
    posenet = {"posenet_images", "extract_features"} | FROM_COUNTER
    assert ran(result) == drawn | FROM_TRAINING | trials | COUNTCLIP | posenet | LOCALIZE
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", "reproduced", cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did to the clone that several share, the next one finds it as it was committed."""
    yield
    if "reproduced" not in request.fixturenames:
        return
    folder = request.getfixturevalue("reproduced")
    if (folder / ".git/refs/exps").exists():
        run("dvc", "exp", "remove", "--all-commits", cwd=folder)
    if run("git", "status", "--porcelain", cwd=folder).stdout:
        run("git", "checkout", ".", cwd=folder)
        run("git", "clean", "--force", "-d", "--quiet", cwd=folder)
        run("dvc", "checkout", cwd=folder)


def test_every_declared_result_is_there(reproduced):
    metrics = json.loads((reproduced / "metrics/shapes.json").read_text())
    assert set(metrics["own_test_accuracy"]) == {"mean", "low", "high"} | {f"M{n}" for n in DENSITIES}
    assert len(json.loads((reproduced / "plots/shapes/accuracy.json").read_text())) == 3 * 3
    margins = pd.DataFrame(json.loads((reproduced / "plots/shapes/margins.json").read_text()))
    assert len(margins) == 3 * 3 * 9
    assert margins["in_paper"].sum() == 3 * 21
    for density in DENSITIES:
        decisions = pd.read_parquet(reproduced / f"data/shapes/predictions/paper/M{density}.parquet")
        assert len(decisions) == 3 * 8 + 27 * 4
        chosen = np.where(decisions["logit_circle"] > decisions["logit_square"], "circle", "square")
        assert (decisions["response"].astype(str) == chosen).all()


def test_the_table_is_what_the_decisions_say(reproduced):
    for cell in json.loads((reproduced / "plots/shapes/accuracy.json").read_text())[::2]:
        decisions = pd.read_parquet(reproduced / f"data/shapes/predictions/paper/M{cell['network']}.parquet")
        these = decisions[decisions["condition"].astype(str) == f"test/density-{cell['test']}"]
        majority = np.where(these["circles"] > these["squares"], "circle", "square")  # a tie is a square
        assert cell["accuracy"] == pytest.approx((these["response"].astype(str) == majority).mean())


def test_figures_are_pictures(reproduced):
    names = {path.name for path in (reproduced / "plots/shapes").glob("*.png")}
    assert names == {"training.png", "accuracy_table.png", "margins.png", "psychometric.png", "bias.png"}
    for name in names:
        pixels = matplotlib.image.imread(reproduced / "plots/shapes" / name)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.02


def test_metrics_and_plots_show(reproduced):
    assert "own_test_accuracy.mean" in run("dvc", "metrics", "show", cwd=reproduced).stdout
    run("dvc", "plots", "show", "--out", "shown", cwd=reproduced)
    page = (reproduced / "shown/index.html").read_text()
    for title in (
        "Training loss",
        "Error consistency of observers, published or simulated",
        "Error consistency of the counters",
        "Confusion on CountBench, fine-tuned",
        "Position in held-out images, by backbone",
        "Majority by counting on purpose",
        "Error consistency of those that count on purpose",
    ):
        assert title in page


def test_a_second_run_does_nothing(reproduced):
    result = run("dvc", "repro", cwd=reproduced)
    assert ran(result) == set()
    assert "up to date" in result.stdout
    assert run("git", "status", "--porcelain", cwd=reproduced).stdout == ""


def test_soft_targets_train_and_evaluate_only_and_switching_back_runs_nothing(reproduced):
    locked = (reproduced / "dvc.lock").read_bytes()
    result = run("dvc", "exp", "run", "-S", "shapes.target=soft", cwd=reproduced)
    # M50 differs only if its few images have a tie; that ties are no one's is part of the answers' category
    assert ran(result) - FROM_COUNTER - FROM_M50 == FROM_TRAINING | FROM_NETWORKS | {"count_shapes"}
    assert (reproduced / "dvc.lock").read_bytes() != locked
    diff = run("dvc", "plots", "diff", "HEAD", "workspace", "--out", "diff", cwd=reproduced)
    page = Path(diff.stdout.strip().removeprefix("file://")).read_text()
    assert '"rev": "HEAD"' in page
    assert '"rev": "workspace"' in page
    shutil.rmtree(reproduced / "diff")

    back = run("dvc", "exp", "run", "-S", "shapes.target=hard", cwd=reproduced)
    assert ran(back) == set()
    assert (reproduced / "dvc.lock").read_bytes() == locked
    # DVC lays params.yaml out anew when it sets a key, and leaves nothing else behind
    assert run("git", "status", "--porcelain", cwd=reproduced).stdout in ("", " M params.yaml\n")


def test_another_lambda_trains_and_evaluates_only(reproduced):
    """The line that people type most: `dvc exp run -S lambda=modal`, then both confusion matrices side by side."""
    result = run("dvc", "exp", "run", "--name", "modal", "-S", "lambda=modal", cwd=reproduced)
    assert ran(result) == FROM_LAMBDA
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


def test_two_fresh_clones_give_the_same_lock(reproduced, tmp_path):
    other = clone(tmp_path / "clone")
    run("dvc", "repro", cwd=other)
    assert (other / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A clone with one density, nothing run yet."""
    folder = clone(
        tmp_path / "clone",
        densities=[10],
        **{
            "shapes.variants.density": 10,
            "shapes.margin_densities": [10],
            "posenet.counter_density": 10,
            "localize.density": 10,
        },
    )
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
