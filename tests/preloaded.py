"""Stages in processes that have the libraries already: forked from one that has imported them, seconds less each.

Each is a process of its own all the same, with its own import of `pipeline`, folder, environment, output and exit
status. It shares with the others what `python -m` would have anew, the seed of hashes; that results do not depend on
that is seen where DVC runs the stages (test_workflow.py).
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

LIBRARIES = ["matplotlib.pyplot", "open_clip", "pandas", "pydantic", "scipy.stats"]
LIBRARIES += ["torch", "torchvision", "webdataset"]

TESTS = str(Path(__file__).parent)

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__, *LIBRARIES])


def run_stage(
    module: str, *arguments: object, cwd: Path, environment: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.<module> <arguments>` to its end; PYTHONPATH is one folder, of which `pipeline` is taken."""
    command = [f"pipeline.{module}", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder) / "stdout", Path(folder) / "stderr"
        process = context.Process(target=_run, args=(command, cwd, dict(environment), streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, *(path.read_bytes() for path in streams))
        output, errors = (path.read_text() for path in streams)
        return subprocess.CompletedProcess(command, process.exitcode, output, errors)


def _run(command: list[str], cwd: Path, environment: dict[str, str], streams: tuple[Path, Path]) -> None:
    for descriptor, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [environment["PYTHONPATH"], *(path for path in sys.path if not path.startswith(TESTS))]
    sys.argv = command
    multiprocessing.set_start_method(None, force=True)  # else a stage's pool would start, and fill, such a server anew
    np.random.seed()  # noqa: NPY002 (else all would go on from one state)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
