"""`dvc repro` with several stages at a time, on the cores of one machine; `make repro` calls it.

    python -m pipeline.parallel                              # as many jobs as there are cores for them
    python -m pipeline.parallel --jobs 2 --target report     # what one stage needs, two at a time

DVC runs one stage after another. Here each is a `dvc repro --single-item` of its own, begun when all that it
needs is done, on `threads` cores that no other stage uses. Results are those of `dvc repro`, which has the last
word where anything ran: it looks at every stage again, and runs what may still differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue
from statistics import mean

import networkx as nx
import psutil
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro

from pipeline.dvc_command import interrupt_children
from pipeline.mend import LOCK, locked
from pipeline.params import load_params
from pipeline.shards import cores
from pipeline.share import INTERRUPTED, WHOLE, dvc, dvc_errors, read_graph, read_lock, write_lock
from pipeline.stage import UserError, costs, run

MEMORY = 3 * 2**30  # bytes for a stage; at `laptop` VGG16's features take most, 2.4 GiB
RECORDED = Path("results/laptop/costs.jsonl")
UNKNOWN = 5.0  # seconds of a stage of which nothing is known
PINS = hasattr(os, "sched_setaffinity")  # Linux
PATIENCE = 5  # seconds, after an interrupt, for what runs to end by itself
# DVC's after each stage:
HINTS = ("Updating lock file", "To track the changes", "\tgit add", "To enable auto", "\tdvc config", "Use `dvc push`")


def possible_jobs(threads: int) -> int:
    """Stages that have cores and memory of their own side by side; 1 where they would share a GPU."""
    jobs = min(cores() // threads, psutil.virtual_memory().total // MEMORY)
    if jobs > 1:
        import torch

        jobs = 1 if torch.cuda.is_available() else jobs
    return max(1, jobs)


def outdated(repo: Repo, graph: nx.DiGraph) -> nx.DiGraph:
    """Of a graph of stages, those that have changed and all that depend on them."""
    changed = set(repo.status()) & set(graph)
    return graph.subgraph(changed.union(*(nx.ancestors(graph, name) for name in changed)))


def expected_seconds(commands: dict[str, str]) -> dict[str, float]:
    """How long each stage should take: as its command last did here, else where results/laptop was recorded.

    commands: by the stages' names. A command that neither has takes as long as others of its module do on average.
    """
    known = {cost["command"]: cost["with_start"] for cost in [*costs(RECORDED), *costs()]}
    modules: dict[str, list[float]] = {}
    for command, seconds in known.items():
        modules.setdefault(module_of(command), []).append(seconds)
    means = {module: mean(seconds) for module, seconds in modules.items()}
    return {name: known.get(command, means.get(module_of(command), UNKNOWN)) for name, command in commands.items()}


def module_of(command: str) -> str:
    """'python -m pipeline.shapes.train --density 50' without its options."""
    return command.partition(" --")[0]


def urgency(graph: nx.DiGraph, seconds: Mapping[str, float]) -> dict[str, float]:
    """For each stage, the seconds of the longest chain of stages from it on, itself included."""
    result: dict[str, float] = {}
    for name in nx.topological_sort(graph):  # edges lead to what a stage needs: the last stages come first
        result[name] = seconds[name] + max((result[later] for later in graph.predecessors(name)), default=0)
    return result


def run_graph(
    graph: nx.DiGraph, execute: Callable[[str], bool], jobs: int, threads: int, seconds: Mapping[str, float]
) -> list[str]:
    """Execute every stage after all that it needs, `jobs` at a time; the names of those that failed.

    Of those that may begin, the first is that from which the longest chain follows.

    Args:
        graph: names of stages, with an edge from each to what it depends on.
        seconds: how long each should take.
        execute: runs one stage, in a thread that only `threads` cores are open to; False if it fails.

    After a failure no other stage begins; those that run are waited for. After an interrupt they are interrupted too:
    a terminal does that, but not to what has only just begun.
    """
    urgent = urgency(graph, seconds)
    order = TopologicalSorter({name: set(graph.successors(name)) for name in graph})
    order.prepare()
    ready: list[str] = []
    running: dict[Future[bool], str] = {}
    failed: list[str] = []
    with ThreadPoolExecutor(jobs, initializer=_take_cores, initargs=(_portions(jobs, threads),)) as pool:
        try:
            while order.is_active():
                ready = sorted([*ready, *order.get_ready()], key=lambda name: (urgent[name], name))
                while ready and len(running) < jobs and not failed:
                    name = ready.pop()
                    running[pool.submit(execute, name)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if future.result():
                        order.done(name)
                    else:
                        failed.append(name)
        except KeyboardInterrupt:
            _interrupt(running)
            raise
    return failed


def _interrupt(running: Iterable[Future[bool]]) -> None:
    while wait(running, timeout=PATIENCE).not_done:
        interrupt_children()


def _portions(jobs: int, threads: int) -> SimpleQueue[set[int]]:
    portions: SimpleQueue[set[int]] = SimpleQueue()
    available = sorted(os.sched_getaffinity(0)) if PINS else []
    for i in range(jobs):
        own = available[i * threads : (i + 1) * threads]
        portions.put(set(own if len(own) == threads else available))  # where there are too few, they share
    return portions


def _take_cores(portions: SimpleQueue[set[int]]) -> None:
    if PINS:
        os.sched_setaffinity(0, portions.get())  # of this thread, and of the processes that it starts


def reproduce_stage(name: str) -> bool:
    """`dvc repro` of one stage whose needs are met; each line that it prints is shown with its name."""
    command = [sys.executable, "-m", "pipeline.dvc_command", "--wait-for-lock", "repro", "--single-item", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        for line in process.stdout:
            shown = line.decode(errors="replace").rstrip().rpartition("\r")[2]  # the last state of a progress bar
            if shown and not shown.startswith(HINTS):
                print(f"{name} | {shown}\n", end="", flush=True)  # at once, or lines of two stages would mix
    return process.returncode == 0


def put_in_order(names: list[str]) -> None:
    """Order dvc.lock as one stage after another leaves it; stages that there are no more come last."""
    if not LOCK.exists():
        return
    content = read_lock()
    place = {name: i for i, name in enumerate(names)}
    stages = content["stages"]
    ordered = sorted(stages, key=lambda name: place.get(name, len(place)))
    if list(stages) != ordered:
        content["stages"] = {name: stages[name] for name in ordered}
        write_lock(content)


def reproduce(graph: nx.DiGraph, order: list[str], jobs: int, threads: int, seconds: Mapping[str, float]) -> None:
    """Reproduce these stages, `jobs` at a time; `order` is dvc.lock's, of all stages. Raises UserError."""
    try:
        failed = run_graph(graph, reproduce_stage, jobs, threads, seconds)
    except KeyboardInterrupt:
        raise UserError(INTERRUPTED) from None
    finally:
        with locked(LOCK) as ours:
            if ours:
                put_in_order(order)
            else:
                print(f"{LOCK}: its stages stay in the order of their ends, as another DVC command has its lock")
    if failed:
        raise UserError(f"{', '.join(sorted(failed))} failed, as said above; once that is mended, run it again")


def main(jobs: str = "auto", target: str = WHOLE) -> str:
    """Reproduce a stage and what it needs, or everything.

    Args:
        jobs: how many stages at a time, or 'auto': as `possible_jobs` says.
        target: a stage.

    Raises:
        UserError: no such stage, no such number, or a stage failed.
    """
    if jobs != "auto" and not (jobs.isdecimal() and int(jobs)):
        raise UserError(f"jobs '{jobs}': allowed are 'auto' and numbers from 1")
    with dvc_errors(), Repo() as repo:
        graph = outdated(repo, read_graph(repo, target))
        order = [stage.addressing for stage in plan_repro(repo.index.graph)]
        commands = {stage.addressing: str(stage.cmd) for stage in repo.index.stages if stage.addressing in graph}
    if not graph:
        return "data and pipelines are up to date,"
    threads = load_params().threads
    number = possible_jobs(threads) if jobs == "auto" else int(jobs)
    if number > 1:
        reproduce(graph, order, number, threads, expected_seconds(commands))
    dvc("repro", target)
    return f"{len(graph)} stages, {number} at a time," if number > 1 else "one stage at a time,"


if __name__ == "__main__":
    run(main, jobs=str, target=str)
