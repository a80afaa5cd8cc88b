"""Where stages run: as processes on this machine, or (cluster.py) as tasks on a Ray cluster.

An executor has places for stages, and runs a stage at a place. The scheduler (reproduce.py) knows no more of it.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import psutil

from pipeline.shards import cores
from pipeline.workflow.dvc_parts import command, interrupt_children

UNKNOWN_MEMORY = 3 * 2**30  # bytes of a stage that has not run yet
PINS = hasattr(os, "sched_setaffinity")  # Linux
# DVC's after each stage:
HINTS = ("Updating lock file", "To track the changes", "\tgit add", "To enable auto", "\tdvc config", "Use `dvc push`")


@dataclass(frozen=True)
class Needs:
    """Of a stage: CPU cores, bytes of memory, and whether it computes on a GPU where there is one."""

    cores: int = 1
    memory: int = UNKNOWN_MEMORY
    gpu: bool = False


Place = TypeVar("Place")


class Executor(Protocol, Generic[Place]):
    """`reserve` and `release` are called by one thread, `run` by a thread a stage."""

    at_once: int  # stages, at most

    def reserve(self, needs: Needs) -> Place | None:
        """A place for such a stage; None where there is none now. With nothing running, there is one."""

    def release(self, place: Place) -> None: ...

    def run(self, name: str, place: Place) -> bool:
        """Run a stage that has all that it depends on, to its end; False where it fails."""

    def interrupt(self) -> None:
        """End what runs. May be called several times."""


@dataclass(frozen=True)
class Share:
    """Of this machine: cores by number (None where they cannot be chosen), bytes of memory, and a GPU by number."""

    cores: frozenset[int] | None
    memory: int
    gpu: int | None


class Processes:
    """`dvc repro` of a stage each. Stages side by side have cores of their own, and a GPU each if they use one.

    Memory is only counted: a stage begins when what all should take fits into the machine's, or when it is alone.
    """

    def __init__(self, jobs: int | None, threads: int, gpus: int):
        """jobs: stages at a time; None: one for every `threads` cores. gpus: of this machine."""
        self.at_once = jobs or max(1, cores() // threads)
        self.gpus, self.has_gpus = list(range(gpus)), gpus > 0
        self.memory = psutil.virtual_memory().total
        self.portions = _portions(self.at_once, threads)

    def reserve(self, needs: Needs) -> Share | None:
        alone = len(self.portions) == self.at_once
        with_gpu = needs.gpu and self.has_gpus
        if not alone and (not self.portions or needs.memory > self.memory or (with_gpu and not self.gpus)):
            return None
        self.memory -= needs.memory
        return Share(self.portions.pop(0), needs.memory, self.gpus.pop(0) if with_gpu else None)

    def release(self, place: Share) -> None:
        self.memory += place.memory
        self.portions.append(place.cores)
        self.gpus += [] if place.gpu is None else [place.gpu]

    def arguments(self, name: str) -> list[str]:
        return command("--wait-for-lock", "repro", "--single-item", name)

    def environment(self, name: str) -> dict[str, str]:
        """What differs from ours in that of a stage."""
        return {}

    def run(self, name: str, place: Share) -> bool:
        """Each line that DVC prints is shown with the stage's name."""
        if place.cores:
            os.sched_setaffinity(0, place.cores)  # of this thread, and of the processes that it starts
        visible = {} if place.gpu is None else {"CUDA_VISIBLE_DEVICES": str(place.gpu)}
        visible |= self.environment(name)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(self.arguments(name), env=os.environ | visible, **pipes) as process:
            for line in process.stdout:
                show(name, line.decode(errors="replace"))
        return process.returncode == 0

    def interrupt(self) -> None:
        interrupt_children()


def show(name: str, line: str) -> None:
    """Print a line of a stage's, unless it is one of DVC's hints."""
    shown = line.rstrip().rpartition("\r")[2]  # the last state of a progress bar
    if shown and not shown.startswith(HINTS):
        print(f"{name} | {shown}\n", end="", flush=True)  # at once, or lines of two stages would mix


def _portions(jobs: int, threads: int) -> list[frozenset[int] | None]:
    if not PINS:
        return [None] * jobs
    available = sorted(os.sched_getaffinity(0))
    own = [available[i * threads : (i + 1) * threads] for i in range(jobs)]
    # where there are too few, they share
    return [frozenset(some if len(some) == threads else available) for some in own]
