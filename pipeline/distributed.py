"""Several processes, on one machine or many, that train one model together: under torchrun, and only there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed


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


def from_the_first(value: Callable[[], Any]) -> Any:
    """What `value()` returns in the process that leads; the others get it from there, and don't call it."""
    if not distributed.is_initialized():
        return value()
    values = [value() if leads() else None]
    distributed.broadcast_object_list(values)
    return values[0]
