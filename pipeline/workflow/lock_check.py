"""Is dvc.lock true to the code and parameters that are checked out? Says so without data, as in a fresh clone.

`dvc repro --allow-missing --dry` cannot: it stops at a stage that reads a folder which is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipeline.stage import UserError, run

SHOWN = 5


def stale(status: Mapping[str, Sequence[Any]], made: Iterable[str]) -> dict[str, list[str]]:
    """Stages that dvc.lock does not describe, and by what: `seed`, `pipeline/shards.py`, `command`.

    `status` is what `dvc status --json` prints; `made` are the outputs of all stages. Those may be missing or
    half there: what is asked is whether dvc.lock belongs to this code, not whether its data is here.
    """
    made = [PurePosixPath(path) for path in made]
    found: dict[str, list[str]] = {}
    for stage, reasons in status.items():
        for reason in reasons:
            if isinstance(reason, str):  # 'changed command'
                if reason != "always changed":  # a stage that looks at a guest in every run
                    found.setdefault(stage, []).append(reason.removeprefix("changed "))
                continue
            for path, change in reason.get("changed deps", {}).items():
                here = PurePosixPath(path)
                if isinstance(change, Mapping):  # a file of parameters, by key
                    found.setdefault(stage, []).extend(change)
                elif not any(here.is_relative_to(output) or output.is_relative_to(here) for output in made):
                    found.setdefault(stage, []).append(path)
    return found


def _handed_on(stages: Sequence[Any]) -> dict[str, list[str]]:
    """Stages that, by dvc.lock, read something else than what the stage before them wrote."""
    outputs = {str(output): output.hash_info for stage in stages for output in stage.outs}
    found: dict[str, list[str]] = {}
    for stage in stages:
        for path, read in ((str(dep), dep.hash_info) for dep in stage.deps):
            if read and outputs.get(path, read) != read:
                found.setdefault(stage.addressing, []).append(path)
    return found


def main() -> str:
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as repo:
            stages = [stage for stage in repo.index.stages if stage.cmd]
            found = stale(repo.status(), [str(output) for stage in stages for output in stage.outs])
            for stage, paths in _handed_on(stages).items():
                found.setdefault(stage, []).extend(paths)
    except DvcException as error:
        raise UserError(f"dvc status: {error}") from error
    if found:
        families: dict[str, dict[str, None]] = {}  # of a matrix, one line; dicts keep order
        for stage, why in found.items():
            families.setdefault(stage.split("@")[0], {}).update(dict.fromkeys(why))
        named = "; ".join(f"{name} ({', '.join(why)})" for name, why in list(families.items())[:SHOWN])
        more = f"; {len(families) - SHOWN} more" if len(families) > SHOWN else ""
        raise UserError(
            f"dvc.lock is not of this state in {len(found)} of {len(stages)} stages: {named}{more}; "
            "run 'dvc repro' and commit dvc.lock"
        )
    return f"dvc.lock is true of {len(stages)} stages"


if __name__ == "__main__":
    run(main)
