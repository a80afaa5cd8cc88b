"""`dvc repro` with several stages at a time, on this machine or on a Ray cluster; `make repro` calls it.

    python -m pipeline.workflow.reproduce                            # as many at a time as there are cores for them
    python -m pipeline.workflow.reproduce --jobs 2 --target report   # what one stage needs, two at a time
    python -m pipeline.workflow.reproduce --ray auto                 # on the cluster that this machine belongs to

DVC runs one stage after another. Here each is a `dvc repro --single-item` of its own, begun when all that it needs is
done. Results are those of `dvc repro`, which has the last word where anything ran: it looks at every stage again, and
runs what may still differ. At first it checks params.yaml, and puts aside what a kill has cut off (mend.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import mean

import networkx as nx
from dvc.repo import Repo

from pipeline.params import load_params
from pipeline.stage import UserError, costs, run
from pipeline.workflow import dvc_parts
from pipeline.workflow.dvc_parts import INTERRUPTED, WHOLE
from pipeline.workflow.executors import UNKNOWN_MEMORY, Executor, Needs, Processes
from pipeline.workflow.mend import mend

RECORDED = Path("results/laptop/costs.jsonl")
UNKNOWN = 5.0  # seconds of a stage of which nothing is known
PATIENCE = 5  # seconds, after an interrupt, for what runs to end by itself
USES_GPU = "pipeline/training.py"  # stages that depend on it compute on a GPU where there is one


@dataclass(frozen=True)
class Stage:
    """How long it should take, in seconds, and what it needs."""

    seconds: float = UNKNOWN
    needs: Needs = field(default_factory=Needs)


def outdated(repo: Repo, graph: nx.DiGraph) -> nx.DiGraph:
    """Of a graph of stages, those that have changed and all that depend on them."""
    changed = dvc_parts.changed(repo, graph)
    return graph.subgraph(changed.union(*(nx.ancestors(graph, name) for name in changed)))


def describe(commands: Mapping[str, str], threads: int = 1, on_gpu: frozenset[str] = frozenset()) -> dict[str, Stage]:
    """Each stage as its command last ran here, else where results/laptop was recorded.

    commands: by the stages' names. One that neither has takes as long, and as much memory, as others of its module do
    on average. on_gpu: names of those that compute on a GPU.
    """
    known = {cost["command"]: cost for cost in [*costs(RECORDED), *costs()]}

    def expect(command: str, key: str, unknown: float) -> float:
        if key in known.get(command, {}):
            return known[command][key]
        same = [c[key] for other, c in known.items() if module_of(other) == module_of(command) and key in c]
        return mean(same) if same else unknown

    return {
        name: Stage(
            expect(command, "with_start", UNKNOWN),
            Needs(threads, int(expect(command, "memory", UNKNOWN_MEMORY)), name in on_gpu),
        )
        for name, command in commands.items()
    }


def module_of(command: str) -> str:
    """'python -m pipeline.shapes.train --density 50' without its options."""
    return command.partition(" --")[0]


def urgency(graph: nx.DiGraph, seconds: Mapping[str, float]) -> dict[str, float]:
    """For each stage, the seconds of the longest chain of stages from it on, itself included."""
    result: dict[str, float] = {}
    for name in nx.topological_sort(graph):  # edges lead to what a stage needs: the last stages come first
        result[name] = seconds[name] + max((result[later] for later in graph.predecessors(name)), default=0)
    return result


def run_graph(graph: nx.DiGraph, stages: Mapping[str, Stage], executor: Executor) -> list[str]:
    """Run every stage after all that it needs, as many at a time as there are places; the names of those that failed.

    Of those that may begin, the first is that from which the longest chain follows; where there is no place for it, one
    that takes less may begin.

    Args:
        graph: names of stages, with an edge from each to what it depends on.

    After a failure no other stage begins; those that run are waited for. After an interrupt they are interrupted too:
    a terminal does that, but not to what has only just begun.
    """
    urgent = urgency(graph, {name: stages[name].seconds for name in graph})
    order = TopologicalSorter({name: set(graph.successors(name)) for name in graph})
    order.prepare()
    ready: list[str] = []
    running: dict[Future[bool], tuple[str, object]] = {}
    failed: list[str] = []
    with ThreadPoolExecutor(executor.at_once) as pool:
        try:
            while order.is_active():
                ready = sorted([*ready, *order.get_ready()], key=lambda name: (urgent[name], name), reverse=True)
                for name in list(ready) if not failed else []:
                    if len(running) < executor.at_once and (place := executor.reserve(stages[name].needs)) is not None:
                        ready.remove(name)
                        running[pool.submit(executor.run, name, place)] = name, place
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name, place = running.pop(future)
                    executor.release(place)
                    if future.result():
                        order.done(name)
                    else:
                        failed.append(name)
        except KeyboardInterrupt:
            while wait(running, timeout=PATIENCE).not_done:
                executor.interrupt()
            raise
    return failed


def put_in_order(repo: Repo, names: list[str]) -> None:
    """Order dvc.lock as one stage after another leaves it; stages that there are no more come last."""
    with repo.lock:
        stages = dvc_parts.read_entries()
        place = {name: i for i, name in enumerate(names)}
        ordered = sorted(stages, key=lambda name: place.get(name, len(place)))
        if list(stages) != ordered:
            dvc_parts.write_entries({name: stages[name] for name in ordered})


def main(jobs: str = "auto", target: str = WHOLE, ray: str = "") -> str:
    """Reproduce a stage and what it needs, or everything.

    Args:
        jobs: how many stages at a time, or 'auto': as many as there are cores, memory and GPUs for.
        target: a stage.
        ray: a Ray cluster's address, 'auto' for the one of this machine, '' for processes here.

    Raises:
        UserError: no such stage, number or cluster, or a stage failed.
    """
    if jobs != "auto" and not (jobs.isdecimal() and int(jobs)):
        raise UserError(f"jobs '{jobs}': allowed are 'auto' and numbers from 1")
    number, threads = None if jobs == "auto" else int(jobs), load_params().threads
    dvc_parts.quicken()
    with dvc_parts.errors_in_a_line(), Repo() as repo:
        if mended := mend(repo):
            print(mended, flush=True)
        whole = dvc_parts.read_graph(repo, target)
        graph = outdated(repo, whole)
        if not graph:
            return "data and pipelines are up to date,"
        order = dvc_parts.order_of_repro(repo)
        found = [stage for stage in repo.index.stages if stage.addressing in graph]
        on_gpu = frozenset(stage.addressing for stage in found if USES_GPU in map(str, stage.deps))
        stages = describe({stage.addressing: str(stage.cmd) for stage in found}, threads, on_gpu)
        executor = choose(ray, number, threads, stages, repo)
        if ray:
            exchange("push", set(whole) - set(graph))
            # what a stage without outputs makes, as the report, is for this machine: `dvc repro` runs it at last
            graph = graph.subgraph(stage.addressing for stage in found if stage.outs)
        if ray or executor.at_once > 1:
            try:
                failed = run_graph(graph, stages, executor)
            except KeyboardInterrupt:
                raise UserError(INTERRUPTED) from None
            finally:
                put_in_order(repo, order)
            if failed:
                raise UserError(f"{', '.join(sorted(failed))} failed, as said above; once that is mended, run it again")
    if ray:
        exchange("pull", set(graph))
    dvc_parts.dvc("repro", target)
    return f"{len(graph)} stages, {executor.at_once} at a time,"


def exchange(what: str, names: set[str]) -> None:
    """Push or pull what these stages have made."""
    if names:
        dvc_parts.dvc(what, *sorted(names))


def choose(ray: str, jobs: int | None, threads: int, stages: Mapping[str, Stage], repo: Repo) -> Executor:
    """The cluster at this address, or this machine."""
    if ray:
        from pipeline.workflow.cluster import Cluster  # Ray is optional

        return Cluster(ray, jobs, {name: stage.needs for name, stage in stages.items()}, repo)
    gpus = count_gpus() if jobs != 1 and any(stage.needs.gpu for stage in stages.values()) else 0
    return Processes(jobs, threads, gpus)


def count_gpus() -> int:
    import torch  # a second or more

    return torch.cuda.device_count()


if __name__ == "__main__":
    run(main, jobs=str, target=str, ray=str)
