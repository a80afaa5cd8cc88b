"""A Ray cluster of two nodes on this machine, each with a copy of the repository of its own, and a directory remote.

CLUSTER_TARGET=dvc.yaml python -m pytest tests/workflow/test_cluster.py -n 0    the whole smoke graph in place of a part
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import HANGS, assert_one_line_error, edit_params
from ruamel.yaml import YAML
from workflow_helpers import ONE_DENSITY, clone, ran, run

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow

TARGET = os.environ.get("CLUSTER_TARGET", "explain_counters")  # of the networks of two training runs
SMALL = ONE_DENSITY if TARGET != "dvc.yaml" else {}
IN_ORDER = {"PYTHONHASHSEED": "0"}  # by which DVC orders the stages that a target needs, in dvc.lock too
GIBIBYTE = 2**30


@contextmanager
def cluster(folder: Path, cores: int = 1, memory: int = 6 * GIBIBYTE) -> Iterator[Cluster]:
    """A head without cores, and two nodes."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for name in ("first", "second"):
            variables = {"STUDIES_COPIES": str(folder / name), "CHECKPOINT_FOLDER": str(folder / "checkpoints")}
            made.add_node(num_cpus=cores, memory=memory, env_vars=variables | {"CHECKPOINT_SECONDS": "0"})
        yield made
    finally:
        made.shutdown()


def on_cluster(folder: Path, address: str, *options: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline.workflow.reproduce", "--ray", address, *options]
    return run(*command, cwd=folder, check=check, preloaded=False, extra=IN_ORDER, timeout=4 * HANGS)


def machine(folder: Path, remote: Path, **changes: object) -> Path:
    """A clone that knows the remote."""
    fresh = clone(folder, **SMALL, **changes)
    run("dvc", "remote", "add", "--local", "--default", "store", str(remote), cwd=fresh)
    return fresh


def results(folder: Path) -> dict[str, object]:
    """Bytes of all metrics and plots, and of dvc.lock; of a part of the graph, dvc.lock's entries, in any order."""
    paths = [path for name in ("metrics", "plots") for path in (folder / name).rglob("*") if path.is_file()]
    found: dict[str, object] = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    lock = (folder / "dvc.lock").read_bytes()
    return found | {"dvc.lock": lock if TARGET == "dvc.yaml" else YAML(typ="safe").load(lock)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of the target, one stage after another."""
    folder = clone(tmp_path_factory.mktemp("alone") / "clone", **SMALL)
    run("dvc", "repro", TARGET, cwd=folder, extra=IN_ORDER)
    return results(folder)


def test_two_nodes_of_which_one_is_killed_as_it_trains_end_in_what_one_machine_makes(alone, tmp_path):
    """It costs the stage that it ran, which goes on elsewhere."""
    fresh = machine(tmp_path / "clone", tmp_path / "remote")
    with cluster(tmp_path) as made, killing_what_trains(made, tmp_path) as killed:
        result = on_cluster(fresh, made.address, "--target", TARGET)
    assert killed, "it was over before a node could be killed"
    assert results(fresh) == alone
    at_last = set(re.findall(r"^Running stage '(.+)'", result.stdout, re.MULTILINE))
    assert at_last <= {"report"}, "the last `dvc repro`, here, ran what has outputs"
    for name in ("first", "second"):
        assert list((tmp_path / name).glob("*/data/**/*.*")), f"{name} ran nothing"
    assert json.loads((fresh / "report/costs.jsonl").read_text().splitlines()[0])["memory"] > 0
    again = on_cluster(fresh, "auto", "--target", TARGET)  # nothing to do: no cluster is asked for
    assert "up to date" in again.stdout


@contextmanager
def killing_what_trains(made: Cluster, folder: Path) -> Iterator[list[str]]:
    """One node is killed, once it has written a checkpoint; its name is then in the list."""
    nodes, killed, over = list(made.worker_nodes), [], threading.Event()

    def kill_one() -> None:
        while not killed and not over.wait(0.05):
            for process in psutil.process_iter(["cmdline", "cwd"]):
                if "pipeline.shapes.train" in (process.info["cmdline"] or []) and process.info["cwd"]:
                    where = Path(process.info["cwd"])
                    if where.is_relative_to(folder) and list((folder / "checkpoints").rglob("*.pt")):
                        name = where.relative_to(folder).parts[0]
                        made.remove_node(node_of(nodes, name, folder), allow_graceful=False)
                        killed.append(name)
                        return

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def node_of(nodes: Iterable, name: str, folder: Path) -> object:
    """The node whose copies lie there: its processes have that in their environment."""
    for node in nodes:
        for info in node.all_processes["raylet"]:
            if psutil.Process(info.process.pid).environ().get("STUDIES_COPIES") == str(folder / name):
                return node
    raise AssertionError(name)


def test_experiments_run_on_nodes_and_are_made_here_of_what_these_left(tmp_path):
    fresh = machine(tmp_path / "clone", tmp_path / "remote")
    run("dvc", "repro", "margin_sets", cwd=fresh)
    code = (
        "import sys; sys.path.insert(0, '.'); from pipeline.workflow.experiments import *;"
        "run_missing([Experiment(f'seed{n}', (f'seed={n}',), 'generate_shapes@10') for n in (1, 2)], ray=sys.argv[1])"
    )
    with cluster(tmp_path) as made:
        result = run(sys.executable, "-c", code, made.address, cwd=fresh, preloaded=False)
        on_nodes = [line for line in result.stdout.splitlines() if "Running stage" in line and "pid=" in line]
        here = [line for line in result.stdout.splitlines() if "Running stage" in line and "pid=" not in line]
    assert len(on_nodes) == 2
    assert here == []
    shown = json.loads(run("dvc", "exp", "show", "--json", cwd=fresh).stdout)
    found = {e["name"]: e["revs"][0]["data"]["params"]["params.yaml"]["data"]["seed"] for e in shown[1]["experiments"]}
    assert found == {"seed1": 1, "seed2": 2}
    again = run(sys.executable, "-c", code, "nobody:1", cwd=fresh, preloaded=False)  # none is missing: none is asked
    assert "Running" not in again.stdout


def test_nodes_get_the_files_that_are_here_and_no_lock(tmp_path, monkeypatch):
    from pipeline.workflow.cluster import copy_on_node, pack

    fresh = clone(tmp_path / "clone")
    monkeypatch.chdir(fresh)
    Path("dvc.lock").write_text("schema: '2.0'\n")
    packed = pack()
    assert packed == pack()
    edit_params(fresh / "params.yaml", {"seed": 5})  # not committed
    changed = pack()
    assert changed != packed
    monkeypatch.setenv("STUDIES_COPIES", str(tmp_path / "copies"))
    copies = [copy_on_node(archive, "[core]\n    no_scm = true\n") for archive in (packed, changed, changed)]
    assert copies[1] == copies[2] != copies[0]
    assert (copies[1] / "params.yaml").read_bytes() == (fresh / "params.yaml").read_bytes()
    assert (copies[0] / "dvc.yaml").read_bytes() == (fresh / "dvc.yaml").read_bytes()
    assert not (copies[0] / "dvc.lock").exists()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("fresh")
    return machine(base / "clone", base / "remote")


def test_without_ray_it_says_how_to_install_it(fresh):
    code = "import runpy, sys; sys.modules['ray'] = None; sys.argv[1:] = ['--ray', 'auto']"
    code += "; runpy.run_module('pipeline.workflow.reproduce', run_name='__main__', alter_sys=True)"
    result = run(sys.executable, "-c", code, cwd=fresh, check=False)
    assert_one_line_error(result, "Ray is not installed", "requirements-ray.txt")


def test_an_address_that_nobody_answers(fresh):
    result = on_cluster(fresh, "127.0.0.1:1", check=False)
    assert result.returncode == 1
    assert "no cluster answers" in result.stderr.splitlines()[-1]
    assert "ray start --head" in result.stderr.splitlines()[-1]


def test_without_a_remote_it_says_what_to_do(tmp_path):
    folder = clone(tmp_path / "clone", **SMALL)
    assert_one_line_error(on_cluster(folder, "auto", check=False), "no DVC remote", "dvc remote add --default")


def test_what_a_cluster_lacks_is_said_before_anything_runs(fresh, tmp_path):
    """A stage that asks for more than any node has, other packages, a remote that is not the same for all."""
    edit_params(fresh / "params.yaml", {"threads": 3})
    other = tmp_path / "site"
    (other / "scipy-0.1.dist-info").mkdir(parents=True)
    (other / "scipy-0.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 0.1\n")
    try:
        with cluster(tmp_path) as made:
            result = on_cluster(fresh, made.address, check=False)
            assert "needs 3 cores" in result.stderr.splitlines()[-1]
            assert "add a larger node, or lower 'threads'" in result.stderr.splitlines()[-1]
            run("git", "checkout", "params.yaml", cwd=fresh)
            elsewhere = {"STUDIES_COPIES": str(tmp_path / "third"), "PYTHONPATH": str(other)}
            node = made.add_node(num_cpus=1, memory=6 * GIBIBYTE, env_vars=elsewhere)
            result = on_cluster(fresh, made.address, check=False)
            assert "has other packages: scipy 0.1, here" in result.stderr.splitlines()[-1]
            made.remove_node(node)
            (tmp_path / "elsewhere.py").write_text(NOWHERE)
            result = run(
                sys.executable, str(tmp_path / "elsewhere.py"), made.address, cwd=fresh, check=False, preloaded=False
            )
            assert "does not reach the DVC remote" in result.stderr.splitlines()[-1]
    finally:
        run("git", "checkout", "params.yaml", cwd=fresh)
    assert ran(result) == set()
    assert not (fresh / "dvc.lock").exists()


# what this machine writes to the remote goes where no node looks, as to a folder of its own with the same name
NOWHERE = """
import runpy, sys
sys.path.insert(0, ".")
from pipeline.workflow import dvc_parts
opened = dvc_parts.open_remote
def open_elsewhere(repo):
    name, settings, path, fs = opened(repo)
    return name, settings, path + "-elsewhere", fs
dvc_parts.open_remote = open_elsewhere
sys.argv = ["reproduce", "--ray", sys.argv[1]]
runpy.run_module("pipeline.workflow.reproduce", run_name="__main__", alter_sys=True)
"""
