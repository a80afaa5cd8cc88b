"""Stages in processes that have the libraries already: forked from one that has imported them, seconds less each.

Each is a process of its own all the same, with its own import of `pipeline`, folder, environment, output and exit
status. What a start of Python would have anew, and a fork has not, is the seed of hashes; that results do not hang on
it is for test_workflow.py to see, whose stages DVC starts.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = ["matplotlib.pyplot", "open_clip", "pandas", "pyarrow.parquet", "pydantic", "scipy.stats", "torch"]
LIBRARIES += ["torchvision", "webdataset"]

context = multiprocessing.get_context("forkserver")


def run_stage(module: str, *arguments: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.<module> <arguments>` to its end, in a folder."""
    context.set_forkserver_preload([__name__, *LIBRARIES])
    command = [f"pipeline.{module}", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "stdout", Path(folder) / "stderr"
        process = context.Process(target=_run, args=(command, cwd, dict(os.environ), output, errors))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout, output.read_bytes(), errors.read_bytes())
        return subprocess.CompletedProcess(command, process.exitcode, output.read_text(), errors.read_text())


def _run(command: list[str], cwd: Path, environment: dict[str, str], output: Path, errors: Path) -> None:
    for descriptor, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    np.random.seed()  # the one of numpy's that a fork would have in common with the others
    sys.path[:] = [str(REPOSITORY), *(path for path in sys.path if path != str(Path(__file__).parent))]
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
