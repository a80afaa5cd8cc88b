"""DVC experiments, several at a time: on this machine, or all at once on a Ray cluster. `dvc exp show` knows them all.

On a cluster, nodes run what differs, and leave it in the DVC remote and its run cache; the experiment itself is then
made here from these, within seconds.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.repo import Repo

from pipeline.params import load_params
from pipeline.stage import UserError
from pipeline.workflow import dvc_parts
from pipeline.workflow.executors import Executor, Needs, Processes, Share
from pipeline.workflow.reproduce import Stage, count_gpus, run_graph


@dataclass(frozen=True)
class Experiment:
    """A name for `dvc exp show`; 'key=value' settings of params.yaml; the stage that is wanted."""

    name: str
    settings: tuple[str, ...]
    target: str

    @property
    def options(self) -> list[str]:
        return ["--temp", "--name", self.name, *(part for setting in self.settings for part in ("-S", setting))]


def existing() -> set[str]:
    """Names of the experiments of this commit."""
    return set(dvc_parts.output_of("exp", "list", "--name-only").split())


class Local(Processes):
    """`dvc exp run --temp` of an experiment each, in a folder of its own; none begins after `until` (monotonic)."""

    def __init__(self, places: dict[str, Any], wanted: Mapping[str, Experiment], until: float, pull: bool):
        """places: what `Processes` takes. pull: take from the DVC remote what was run elsewhere."""
        super().__init__(**places)
        self.wanted, self.until, self.pull = wanted, until, pull

    def reserve(self, needs: Needs) -> Share | None:
        return super().reserve(needs) if time.monotonic() < self.until else None

    def run(self, name: str, place: Share) -> bool:
        made = super().run(name, place)
        if made:
            print(f"{name}: done", flush=True)
        return made

    def environment(self, name: str) -> dict[str, str]:
        """Checkpoints outside the folder that DVC makes for the experiment and removes: run again, it continues."""
        return {"CHECKPOINT_FOLDER": str(Path(os.environ.get("CHECKPOINT_FOLDER", ".checkpoints")).resolve() / name)}

    def arguments(self, name: str) -> list[str]:
        experiment = self.wanted[name]
        options = [*(["--pull"] if self.pull else []), *experiment.options]
        return dvc_parts.command("--wait-for-lock", "exp", "run", *options, experiment.target)


def run_missing(
    wanted: Sequence[Experiment], jobs: int | None = None, ray: str = "", minutes: float = math.inf
) -> None:
    """Run the experiments that this commit does not have yet; start none after so many minutes.

    jobs: how many at a time; None: as many as there are cores for. ray: a cluster's address.

    Raises UserError where one fails; others have run to their end.
    """
    until, there = time.monotonic() + 60 * minutes, existing()
    missing = {experiment.name: experiment for experiment in wanted if experiment.name not in there}
    graph = nx.empty_graph(list(missing), nx.DiGraph)
    params = load_params()
    needs = Needs(params.threads, gpu=True)
    # the first that is wanted is the most urgent
    stages = {name: Stage(len(missing) - i, needs) for i, name in enumerate(missing)}
    places = {"jobs": jobs, "threads": params.threads, "gpus": count_gpus() if jobs != 1 else 0}
    local = Local(places, missing, until, pull=bool(ray))
    executors: list[Executor] = [local]
    if ray and missing:
        from pipeline.workflow.cluster import Cluster  # Ray is optional

        with dvc_parts.errors_in_a_line(), Repo() as repo:
            executors.insert(
                0, Cluster(ray, jobs, {name: stage.needs for name, stage in stages.items()}, repo, missing)
            )
            dvc_parts.dvc("push", "--run-cache", *{experiment.target for experiment in wanted}, "--with-deps")
    for executor in executors:
        try:
            failed = run_graph(graph, stages, executor)
        except KeyboardInterrupt:
            raise UserError(dvc_parts.INTERRUPTED) from None
        if failed:
            raise UserError(f"{', '.join(sorted(failed))} failed, as said above; once that is mended, run it again")
    if left := set(missing) - existing():
        print(f"{minutes} minutes are over, {len(left)} are left; run again to go on", flush=True)
