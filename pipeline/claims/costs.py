"""Where the time of the last run went: studies, the chain of stages that it waited for, and how busy the cores were.

A stage whose results came from DVC's run cache, or from a remote, cost nothing here.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from pipeline.claims.record import read_stages
from pipeline.shards import cores
from pipeline.stage import costs

PAUSE = 60  # seconds without a stage, after which one belongs to another run


def stage_costs() -> list[dict[str, Any]]:
    """`pipeline.stage.costs` of stages alone: commands for people are none."""
    return [cost for cost in costs() if "." in cost["stage"].split()[0]]


def by_study(spent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds of each study's stages, and of all."""
    studies: dict[str, dict[str, Any]] = {}
    for cost in spent:
        study = studies.setdefault(cost["stage"].partition(".")[0], {"stages": 0, "seconds": 0.0, "with_start": 0.0})
        study["stages"] += 1
        study["seconds"] += cost["seconds"]
        study["with_start"] += cost["with_start"]
    total = {key: sum(study[key] for study in studies.values()) for key in ("stages", "seconds", "with_start")}
    return [{"study": name, **study} for name, study in studies.items()] + [{"study": "all", **total}]


def last_run(spent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that ran one after another, or side by side, up to the last end; 'began' and 'until' are added, in seconds.

    Of a cost without a time ('ended'), nothing can be said: it is left out.
    """
    timed = []
    for cost in spent:
        until = datetime.fromisoformat(cost["ended"]).timestamp()
        timed.append({**cost, "began": until - cost["with_start"], "until": until})
    run: list[dict[str, Any]] = []
    for cost in sorted(timed, key=lambda cost: -cost["until"]):
        if run and cost["until"] < min(other["began"] for other in run) - PAUSE:
            break
        run.append(cost)
    return run[::-1]


def busy(run: list[dict[str, Any]]) -> dict[str, float] | None:
    """Minutes from the first stage's start to the last one's end, and the share of all cores' time that they used.

    DVC's own work between stages is not in that share.
    """
    if not run:
        return None
    seconds = max(cost["until"] for cost in run) - min(cost["began"] for cost in run)
    used = sum(cost.get("cpu", cost["with_start"]) for cost in run)
    return {"minutes": seconds / 60, "share": used / seconds / cores(), "cores": cores()}


def needs(lock: dict[str, Any]) -> dict[str, set[str]]:
    """For each stage of a dvc.lock, the stages whose outputs it reads."""
    makers = {PurePosixPath(out["path"]): name for name, stage in lock.items() for out in stage.get("outs", [])}
    within: dict[PurePosixPath, set[str]] = {}  # who makes something in a folder
    for out, name in makers.items():
        for folder in out.parents:
            within.setdefault(folder, set()).add(name)

    @cache
    def read(dependency: str) -> set[str]:
        path = PurePosixPath(dependency)
        return {makers[out] for out in (path, *path.parents) if out in makers} | within.get(path, set())

    return {
        name: set().union(*(read(dep["path"]) for dep in stage.get("deps", []))) - {name}
        for name, stage in lock.items()
    }


def critical_path(run: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chain of stages, each needing the one before, that took longest: 'stage' and 'seconds', first to last.

    With ever so many cores the run would still take so long.
    """
    lock = read_stages()
    seconds = {cost["command"]: cost["with_start"] for cost in run}
    took = {name: seconds.get(stage["cmd"], 0.0) for name, stage in lock.items()}
    needed = needs(lock)
    chains: dict[str, tuple[float, list[str]]] = {}

    def chain(name: str) -> tuple[float, list[str]]:
        if name not in chains:
            before = max((chain(other) for other in needed[name]), default=(0.0, []))
            chains[name] = before[0] + took[name], [*before[1], name]
        return chains[name]

    _, names = max(map(chain, lock), default=(0.0, []))
    return [{"stage": name, "seconds": took[name]} for name in names if took[name]]
