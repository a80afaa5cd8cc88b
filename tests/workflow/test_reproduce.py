"""Several stages at a time: their order, their number, their cores, what a failure stops; errors on the command line.

That the results are those of `dvc repro` is in test_workflow_turned.py, and for a cluster in test_cluster.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import networkx as nx
import psutil
import pytest
from conftest import HANGS, REPOSITORY, assert_one_line_error
from dvc.repo import Repo
from ruamel.yaml import YAML
from workflow_helpers import ONE_DENSITY, clone, environment, ran, run

from pipeline.shards import cores
from pipeline.workflow import executors, reproduce
from pipeline.workflow.executors import UNKNOWN_MEMORY, Needs, Processes
from pipeline.workflow.reproduce import Stage, run_graph, urgency

EQUAL = defaultdict(Stage)


class Recorder(Processes):
    """This machine's places; stages sleep a little. Keeps when each began and ended, and how many ran at once."""

    def __init__(self, jobs: int, failing: str = "", gpus: int = 0):
        super().__init__(jobs, 1, gpus)
        self.failing = failing
        self.times: dict[str, tuple[float, float]] = {}
        self.most = 0
        self.running: set[str] = set()
        self.lock = threading.Lock()

    def run(self, name: str, place: object) -> bool:
        began = time.monotonic()
        with self.lock:
            self.running.add(name)
            self.most = max(self.most, len(self.running))
        time.sleep(random.Random(name).uniform(0.001, 0.02))
        with self.lock:
            self.running.remove(name)
            self.times[name] = began, time.monotonic()
        return name != self.failing


def random_graph(stages: int, seed: int) -> nx.DiGraph:
    """Each stage needs some of those before it."""
    choose = random.Random(seed)
    graph = nx.DiGraph()
    for i in range(stages):
        graph.add_node(f"stage{i}")
        graph.add_edges_from((f"stage{i}", f"stage{choose.randrange(i)}") for _ in range(choose.randrange(3)) if i)
    return graph


@pytest.mark.parametrize("seed", range(5))
def test_every_stage_runs_once_after_all_that_it_needs(seed):
    graph = random_graph(30, seed)
    execute = Recorder(jobs=3)
    assert run_graph(graph, EQUAL, execute) == []
    assert set(execute.times) == set(graph)
    for name, needed in graph.edges:
        assert execute.times[name][0] >= execute.times[needed][1]


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_as_many_run_at_once_as_may(jobs):
    graph = nx.DiGraph([(f"train_{i}", "images") for i in range(10)])
    execute = Recorder(jobs)
    run_graph(graph, EQUAL, execute)
    assert execute.most == jobs


def test_after_a_failure_what_runs_ends_and_nothing_begins():
    graph = nx.DiGraph([("b", "a"), ("c", "b"), ("d", "c")])
    graph.add_edges_from(pairwise(["z3", "z2", "z1", "a"]))
    execute = Recorder(jobs=2, failing="b")
    assert run_graph(graph, EQUAL, execute) == ["b"]
    assert {"a", "b", "z1"} <= set(execute.times)
    assert not {"c", "d"} & set(execute.times)
    late = [name for name, (began, _) in execute.times.items() if began > execute.times["b"][1] + 0.01]
    assert late == []


def test_nothing_to_do_runs_nothing():
    execute = Recorder(jobs=2)
    assert run_graph(nx.DiGraph(), EQUAL, execute) == []
    assert execute.times == {}


def test_the_stage_from_which_the_longest_chain_follows_comes_first():
    graph = nx.DiGraph([("train_a", "images"), ("figures_a", "train_a"), ("train_b", "images")])
    graph.add_edges_from([("extract_b", "train_b"), ("train_c", "extract_b"), ("figures_c", "train_c")])
    seconds = {
        "images": 1.0,
        "train_a": 30,
        "figures_a": 2,
        "train_b": 10,
        "extract_b": 4,
        "train_c": 20,
        "figures_c": 3,
    }
    assert urgency(graph, seconds) == {
        "figures_a": 2,
        "train_a": 32,
        "figures_c": 3,
        "train_c": 23,
        "extract_b": 27,
        "train_b": 37,
        "images": 38,
    }
    execute = Recorder(jobs=1)
    run_graph(graph, {name: Stage(taken) for name, taken in seconds.items()}, execute)
    began = sorted(execute.times, key=lambda name: execute.times[name][0])
    assert began == ["images", "train_b", "train_a", "extract_b", "train_c", "figures_c", "figures_a"]


def test_a_stage_is_expected_to_be_as_it_was_here_or_where_it_was_recorded(tmp_path, monkeypatch):
    def keep(path: Path, **costs: tuple[float, int | None]) -> None:
        path.parent.mkdir(parents=True)
        commands = {
            "a": "python -m pipeline.x.a",
            "b1": "python -m pipeline.x.b --n 1",
            "b3": "python -m pipeline.x.b --n 3",
        }
        lines = [
            {"stage": name, "command": commands[name], "with_start": took} | ({"memory": memory} if memory else {})
            for name, (took, memory) in costs.items()
        ]
        path.write_text("\n".join(map(json.dumps, lines)))

    def expected() -> dict[str, tuple[float, int]]:
        return {name: (stage.seconds, stage.needs.memory) for name, stage in reproduce.describe(commands).items()}

    monkeypatch.chdir(tmp_path)
    commands = {"first": "python -m pipeline.x.a", "one": "python -m pipeline.x.b --n 1"}
    commands |= {"two": "python -m pipeline.x.b --n 2", "new": "python -m pipeline.y"}
    unknown = (reproduce.UNKNOWN, UNKNOWN_MEMORY)
    assert expected() == dict.fromkeys(commands, unknown)
    keep(tmp_path / "results/laptop/costs.jsonl", a=(8.0, None), b1=(20.0, 100), b3=(40.0, 200))
    assert expected() == {"first": (8, UNKNOWN_MEMORY), "one": (20, 100), "two": (30, 150), "new": unknown}
    monkeypatch.setattr("pipeline.stage.COSTS", tmp_path / "report/costs.jsonl")
    keep(tmp_path / "report/costs.jsonl", b1=(10.0, 400))
    assert expected() == {"first": (8, UNKNOWN_MEMORY), "one": (10, 400), "two": (25, 300), "new": unknown}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or cores() < 2, reason="needs two cores, and Linux")
def test_stages_at_once_have_cores_of_their_own(monkeypatch):
    seen: dict[str, set[int]] = {}
    together = threading.Barrier(2)

    class Asking(Processes):
        def run(self, name: str, place: object) -> bool:
            together.wait(HANGS)
            return super().run(name, place)

    code = "import os; print(*os.sched_getaffinity(0), flush=True)"
    monkeypatch.setattr(executors, "command", lambda *words: [sys.executable, "-c", code])
    monkeypatch.setattr(executors, "show", lambda name, line: seen.update({name: set(map(int, line.split()))}))
    graph = nx.DiGraph()
    graph.add_nodes_from(["a", "b"])
    before = os.sched_getaffinity(0)
    assert run_graph(graph, EQUAL, Asking(2, threads=1, gpus=0)) == []
    assert [len(own) for own in seen.values()] == [1, 1]
    assert seen["a"] != seen["b"]
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("cores", "threads", "jobs"), [(8, 2, 4), (8, 1, 8), (2, 2, 1), (1, 2, 1)])
def test_as_many_places_as_there_are_cores_for(monkeypatch, cores, threads, jobs):
    monkeypatch.setattr(executors, "cores", lambda: cores)
    assert Processes(None, threads, gpus=0).at_once == jobs


def test_stages_that_fill_the_memory_wait_and_one_alone_may_take_more(monkeypatch):
    memory = psutil.virtual_memory()._replace(total=8 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    large, small, huge = (Needs(memory=gibibytes * 2**30) for gibibytes in (5, 3, 20))
    machine = Processes(4, 1, gpus=0)
    place = machine.reserve(large)
    assert machine.reserve(large) is None
    other = machine.reserve(small)
    assert other is not None
    assert machine.reserve(Needs(memory=1)) is None
    machine.release(place)
    assert machine.reserve(large) is not None
    machine = Processes(4, 1, gpus=0)
    assert machine.reserve(huge) is not None
    assert machine.reserve(small) is None


def test_each_gpu_has_one_stage_and_stages_without_run_beside_them():
    machine = Processes(8, 1, gpus=2)
    places = [machine.reserve(Needs(memory=1, gpu=True)) for _ in range(3)]
    assert [place and place.gpu for place in places] == [0, 1, None]
    assert places[2] is None
    assert machine.reserve(Needs(memory=1)).gpu is None
    machine.release(places[0])
    assert machine.reserve(Needs(memory=1, gpu=True)).gpu == 0
    cpus_only = Processes(2, 1, gpus=0)
    assert [cpus_only.reserve(Needs(memory=1, gpu=True)) is not None for _ in range(3)] == [True, True, False]


def test_what_has_no_place_now_is_passed_by():
    graph = nx.empty_graph(["gpu1", "gpu2", "cpu"], nx.DiGraph)
    needs = {"gpu1": Needs(memory=1, gpu=True), "gpu2": Needs(memory=1, gpu=True), "cpu": Needs(memory=1)}
    stages = {name: Stage(seconds, needs[name]) for name, seconds in {"gpu1": 9, "gpu2": 8, "cpu": 1}.items()}
    execute = Recorder(jobs=2, gpus=1)
    assert run_graph(graph, stages, execute) == []
    assert execute.times["gpu2"][0] >= execute.times["gpu1"][1]
    assert execute.times["cpu"][0] < execute.times["gpu1"][1]


def test_the_lock_is_in_the_order_of_one_stage_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = "    cmd: python -m {0}\n    outs:\n    - path: {0}.json\n      hash: md5\n      md5: d4\n      size: 2\n"
    text = {name: f"  {name}:\n" + entry.format(name) for name in ("gone", "first@2", "first@1", "second")}
    head = "schema: '2.0'\nstages:\n"
    Path("dvc.lock").write_text(head + "".join(text[name] for name in ("gone", "second", "first@1", "first@2")))
    with Repo.init(no_scm=True) as repo:
        reproduce.put_in_order(repo, ["first@2", "first@1", "never run", "second"])
    wanted = head + "".join(text[name] for name in ("first@2", "first@1", "second", "gone"))
    assert Path("dvc.lock").read_text() == wanted


@contextmanager
def started(*arguments: str, cwd: Path, **extra: str) -> Iterator[subprocess.Popen]:
    """Python in a process group of its own, as a terminal starts it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command, env = [sys.executable, *arguments], environment(cwd, preloaded=False, **extra)
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells have what runs in the background ignore it
    with subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, preexec_fn=heed, **pipes) as process:
        yield process


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    """A project of DVC's with one stage, which says that it has begun and would take an hour."""
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    (tmp_path / "sleep.py").write_text("import time; print('asleep', flush=True); time.sleep(3600)")
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  sleep:\n    cmd: {sys.executable} sleep.py\n")
    return tmp_path


def test_an_interrupt_that_reaches_dvc_alone_as_it_starts_a_command_ends_the_command(sleeper):
    program = """
import runpy, signal, subprocess, sys
start = subprocess.Popen.__init__
def start_and_interrupt(self, args, *others, **options):
    start(self, args, *others, **options)
    if "sleep.py" in str(args):
        signal.raise_signal(signal.SIGINT)
subprocess.Popen.__init__ = start_and_interrupt
sys.argv = ["dvc", "repro"]
runpy.run_module("pipeline.workflow.dvc_parts", run_name="__main__")
"""
    with started("-c", program, cwd=sleeper, PYTHONPATH=str(REPOSITORY)) as process:
        _, errors = process.communicate(timeout=HANGS)  # less than the command takes, whose pipe it is too
    assert process.returncode != 0
    assert "interrupted by the user" in errors


def test_an_interrupt_while_dvc_runs_leaves_it_the_time_to_put_its_locks_away(sleeper):
    program = "from pipeline.workflow.dvc_parts import dvc\nfrom pipeline.stage import UserError\n"
    program += "try:\n dvc('repro')\nexcept UserError as error:\n print(error)"
    with started("-c", program, cwd=sleeper, PYTHONPATH=str(REPOSITORY)) as process:
        assert "asleep\n" in iter(process.stdout.readline, "")
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=HANGS)
    assert said.strip().splitlines()[-1] == "interrupted; the same command continues"
    assert not json.loads((sleeper / ".dvc/tmp/rwlock").read_text()).get("write")


def test_an_interrupt_ends_also_what_did_not_get_it(tmp_path):
    """What begins in that moment; here, as only the process that started them has it, all of them."""
    program = """
import subprocess, sys
import networkx as nx
from pipeline.workflow import executors
from pipeline.workflow.reproduce import Stage, run_graph
code = "import time; print('asleep;', end='', flush=True); time.sleep(3600)"
class Sleeping(executors.Processes):
    def run(self, name, place):
        subprocess.run([sys.executable, "-c", code])
run_graph(nx.empty_graph(["a", "b", "c"], nx.DiGraph), dict.fromkeys("abc", Stage()), Sleeping(2, 1, gpus=0))
"""
    with started("-c", program, cwd=tmp_path, PYTHONPATH=str(REPOSITORY)) as process:
        assert process.stdout.read(len("asleep;asleep;")) == "asleep;asleep;"
        process.send_signal(signal.SIGINT)
        more, errors = process.communicate(timeout=HANGS)
    assert more == ""
    assert errors.strip().endswith("KeyboardInterrupt")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("parallel") / "clone", **ONE_DENSITY)


def repro(folder: Path, *options: str, check: bool = True) -> subprocess.CompletedProcess:
    return run(sys.executable, "-m", "pipeline.workflow.reproduce", *options, cwd=folder, check=check)


@pytest.mark.parametrize("jobs", ["0", "-1", "two", ""])
def test_a_number_of_jobs_that_cannot_be(fresh, jobs):
    assert_one_line_error(repro(fresh, f"--jobs={jobs}", check=False), f"jobs '{jobs}'", "'auto'")


def test_a_target_that_there_is_not(fresh):
    result = repro(fresh, "--jobs", "2", "--target", "evaluate_shape", check=False)
    assert_one_line_error(result, "'evaluate_shape' not found")


@pytest.mark.slow
def test_a_failure_names_its_stage_and_the_same_command_continues(fresh):
    """What runs beside the stage that fails is done; what needs it does not begin."""
    code = fresh / "pipeline/countclip/pool.py"
    right = code.read_text()
    code.write_text("raise SystemExit('error: no pool today')")
    options = ("--jobs", "2", "--target", "figures_countclip")
    failed = repro(fresh, *options, check=False)
    assert failed.returncode == 1
    assert "error: workflow.reproduce 2 figures_countclip : pool failed" in failed.stderr
    assert "pool | error: no pool today" in failed.stdout
    assert set(YAML(typ="safe").load(fresh / "dvc.lock")["stages"]) == {"train_detector"}
    code.write_text(right)
    assert ran(repro(fresh, *options), values=True) == {"pool", "filter_captions", "figures_countclip"}
    again = repro(fresh, *options)
    assert "data and pipelines are up to date" in again.stdout
    assert ran(again) == set()
    lock = fresh / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: whole.rindex("md5:") + 2])  # as a kill leaves it
    mended = repro(fresh, *options)
    assert "dvc.lock, which broke off, is dvc.lock.cut-off now" in mended.stdout.splitlines()
    assert ran(mended) == set()  # from the run cache
    assert lock.read_text() == whole


@pytest.mark.slow
def test_an_interrupt_stops_all_in_one_line_and_the_same_command_continues(fresh):
    options = ("--jobs", "2", "--target", "predict_shapes@10-0")
    with started("-m", "pipeline.workflow.reproduce", *options, cwd=fresh) as process:
        assert any("Running stage 'train_resnet@10-0'" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert errors.strip().splitlines() == [
        "error: workflow.reproduce 2 predict_shapes@10-0 : interrupted; the same command continues"
    ]
    assert not list((fresh / "models").rglob("M10-run0.safetensors"))
    assert {"train_resnet@10-0", "predict_shapes@10-0"} <= ran(repro(fresh, *options), values=True)
