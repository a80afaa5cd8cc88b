"""Several machines: two clones share the training through a directory remote, and a third takes it all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from conftest import assert_one_line_error
from ruamel.yaml import YAML
from workflow_helpers import clone, ran, run

from pipeline.share import preparation, share_out

TARGET = "explain_counters"  # of the networks of both densities
IN_ORDER = {"PYTHONHASHSEED": "0"}  # by which DVC orders the stages that a target needs, in dvc.lock too
SHAPES = {"densities": [10, 50], "shapes.margin_densities": [10]}


def machine(folder: Path, remote: Path) -> Path:
    """A clone, on a machine of its own as far as DVC can tell, that knows the remote."""
    fresh = clone(folder, **SHAPES)
    run("dvc", "remote", "add", "--default", "store", str(remote), cwd=fresh)
    return fresh


def share(folder: Path, part: str, *options: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline.share", "--part", part, *options]
    return run(*command, cwd=folder, check=check, extra=IN_ORDER)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which one machine did all."""
    folder = clone(tmp_path_factory.mktemp("alone") / "clone", **SHAPES)
    run("dvc", "repro", TARGET, cwd=folder, extra=IN_ORDER)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[set[str]]]:
    """The remote, after both parts; the stages that each machine ran."""
    base = tmp_path_factory.mktemp("machines")
    machines = [machine(base / name, base / "remote") for name in ("first", "second")]
    results = [share(folder, f"{number}/2", "--target", TARGET) for number, folder in enumerate(machines, 1)]
    return base / "remote", [ran(result, values=True) for result in results]


@pytest.mark.slow
def test_each_machine_runs_its_share_only(shared):
    first, second = shared[1]
    assert first == {"generate_shapes@10", "margin_sets", "train_resnet@10"}
    assert second == {"generate_shapes@50", "train_resnet@50"}


@pytest.mark.slow
def test_the_rest_runs_nothing_that_was_shared_and_ends_in_the_same_lock(shared, undisturbed, tmp_path):
    third = machine(tmp_path / "third", shared[0])
    result = share(third, "rest", "--target", TARGET)
    assert ran(result) == {TARGET}
    assert (third / "dvc.lock").read_bytes() == (undisturbed / "dvc.lock").read_bytes()
    for name in ("metrics/localize/explanations.json", "data/localize/heat_maps.safetensors"):
        assert (third / name).read_bytes() == (undisturbed / name).read_bytes()
    assert ran(share(third, "1/2", "--target", TARGET)) == set()


@pytest.mark.slow
def test_what_was_shared_counts_although_the_lock_names_other_bytes(shared, undisturbed, tmp_path):
    """The committed dvc.lock is another kind of machine's: the same inputs, other weights, which no one has."""
    third = machine(tmp_path / "third", shared[0])
    yaml = YAML()
    lock = yaml.load(undisturbed / "dvc.lock")
    for name, stage in lock["stages"].items():
        if name.startswith("train_resnet"):
            for out in stage["outs"]:
                out["md5"] = out["md5"][::-1]
    yaml.dump(lock, third / "dvc.lock")
    result = share(third, "rest", "--target", TARGET)
    assert ran(result) == {TARGET}
    assert YAML(typ="safe").load(third / "dvc.lock") == YAML(typ="safe").load(undisturbed / "dvc.lock")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("fresh") / "clone", **SHAPES)


@pytest.mark.parametrize("part", ["4/3", "0/3", "1", "1/0", "first"])
def test_a_part_that_there_is_not(fresh, part):
    assert_one_line_error(share(fresh, part, check=False), f"part '{part}'", "'1/3'", "'rest'")


def test_without_a_remote_it_says_what_to_do(fresh):
    assert_one_line_error(share(fresh, "1/2", check=False), "no DVC remote", "dvc remote add --default")


def test_a_target_that_there_is_not(fresh):
    assert_one_line_error(share(fresh, "1/2", "--target", "evaluate_shape", check=False), "'evaluate_shape' not found")


def test_a_remote_without_a_run_cache_is_refused(fresh):
    (fresh / ".dvc/config.local").write_text(
        "[core]\n    remote = web\n['remote \"web\"']\n    url = https://x.test/\n"
    )
    try:
        assert_one_line_error(share(fresh, "1/2", check=False), "no run cache", "ssh")
    finally:
        (fresh / ".dvc/config.local").unlink()


def test_shares_are_disjoint_even_and_keep_together_what_depends():
    graph = nx.DiGraph()
    for name in "abcd":
        graph.add_edge(f"train_{name}", f"images_{name}")
    graph.add_edges_from(
        [("extract_a", "train_a"), ("train_e", "extract_a"), ("train_e", "merge"), ("merge", "train_a")]
    )
    graph.add_edges_from([("evaluate", f"train_{name}") for name in "abcde"])
    assert share_out(graph, 1) == [["train_a", "extract_a", "train_e", "train_b", "train_c", "train_d"]]
    assert share_out(graph, 2) == [["train_a", "extract_a", "train_e"], ["train_b", "train_c", "train_d"]]
    assert share_out(graph, 5) == [["train_a", "extract_a", "train_e"], ["train_b"], ["train_c"], ["train_d"], []]
    assert preparation(graph, ["train_a", "extract_a", "train_e"]) == ["images_a"]
