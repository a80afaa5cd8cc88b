"""Images and their labels in WebDataset tar shards: one file where there would be thousands.

A sample is a dict {'__key__': str, extension: bytes, ...}; in the shard, its members are named
'<key>.<extension>'. The same samples give the same bytes: members carry no times, owners or names
of the machine. Written with the standard library, because importing webdataset imports torch,
which costs a drawing stage more than its work; webdataset reads these shards (see the tests).
"""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.stage import UserError, replacing

Sample = dict[str, str | bytes]


def item_rng(seed: int, key: str) -> np.random.Generator:
    """The random stream of one item: it depends on `seed` and `key` alone, not on order or process."""
    return np.random.default_rng([seed, *key.encode()])


def write_shard(path: str | Path, samples: Iterable[Sample]) -> int:
    """Write samples, in the order given, to a shard that appears whole or not at all; returns their number."""
    written = 0
    with replacing(path) as partial_path, tarfile.open(partial_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for extension in sorted(sample.keys() - {"__key__"}):
                member = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                member.size = len(sample[extension])
                tar.addfile(member, io.BytesIO(sample[extension]))
            written += 1
    return written


def read_shard(path: str | Path) -> Iterator[Sample]:
    """Yield the samples of a shard. Raises UserError where it is not a whole tar archive."""
    damaged = f"{path}: not a whole shard (%s); delete it and run 'dvc repro', or fetch it again"
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # tarfile takes an archive cut between two members for a whole one: look for the end mark.
        if size < tarfile.RECORDSIZE or size % tarfile.RECORDSIZE:
            raise UserError(damaged % f"{size:,} bytes, should be a multiple of {tarfile.RECORDSIZE:,}")
        file.seek(-2 * tarfile.BLOCKSIZE, os.SEEK_END)
        if any(file.read()):
            raise UserError(damaged % "its end mark is missing")
        file.seek(0)
        sample: Sample = {}
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    folder, slash, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    key = folder + slash + stem
                    if sample and sample["__key__"] != key:
                        yield sample
                        sample = {}
                    sample["__key__"] = key
                    sample[extension] = tar.extractfile(member).read()
        except tarfile.TarError as error:
            raise UserError(damaged % error) from None
        if sample:
            yield sample


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def process_pool(workers: int | None = None, chunk: int = 64) -> Iterator[Callable[[Callable, Iterable], Iterator]]:
    """A parallel `map(function, items)` over processes, results in order; they end when this process is killed.

    `chunk` items go to a process at a time: many where an item is little work, one where it is much.
    """
    with ProcessPoolExecutor(workers or cores(), initializer=_end_with_parent) as pool:
        yield partial(pool.map, chunksize=chunk)


def _end_with_parent() -> None:
    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
