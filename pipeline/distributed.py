"""Several processes, on one machine or many, that train one model together: under torchrun, and only there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from pipeline.training import Checkpoint


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """Yield this process's rank and the number of processes; (0, 1) where torchrun was not used."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def leads() -> bool:
    """Whether this process writes the results: the first of several, or the only one."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


class SharedCheckpoint(Checkpoint):
    """A checkpoint that the first process writes and reads, and all continue from; other machines need no copy."""

    def beside(self, name: str) -> Path:
        """Where the run may keep a file of its own until its end."""
        return self.folder.with_name(f"{self.folder.name}.kept") / f"{self.path.stem}.{name}"

    def load(self) -> dict[str, Any] | None:
        if not distributed.is_initialized():
            return super().load()
        states = [super().load() if leads() else None]
        distributed.broadcast_object_list(states)
        return states[0]

    def save(self, state: dict[str, Any]) -> None:
        if leads():
            super().save(state)
        else:
            self.last_save = time.monotonic()

    def discard(self) -> None:
        if leads():
            super().discard()
            shutil.rmtree(self.beside("").parent, ignore_errors=True)
