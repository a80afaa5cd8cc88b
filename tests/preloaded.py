"""Stages in processes that have the libraries already: forked from one that has imported them, seconds less each.

Each is a process of its own all the same, with its own import of `pipeline`, folder, environment, output and exit
status. It shares with the others what `python -m` would have anew, the seed of hashes; that results do not depend on
that is seen where a cluster runs the stages, each with its own start of Python (test_cluster.py).

Stages that DVC starts can be such processes too: `python` is then the script of `stand_in`, which asks for one.
"""

from __future__ import annotations

import atexit
import functools
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

HANGS = 900  # seconds: what takes longer hangs, however busy the machine is
LIBRARIES = ["captum.attr", "cv2", "matplotlib.pyplot", "open_clip", "pandas", "psutil", "pydantic", "ruamel.yaml"]
LIBRARIES += ["scipy.stats", "torch", "torchmetrics.detection", "torchvision", "webdataset"]

TESTS = str(Path(__file__).parent)
STAND_IN = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] != ["-m"] or not sys.argv[2].startswith("pipeline."):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    wanted = {{"command": sys.argv[2:], "cwd": os.getcwd(), "environment": dict(os.environ), "cores": cores}}
    socket.send_fds(asked, [b"-"], [1, 2])
    asked.sendall(json.dumps(wanted).encode())
    asked.shutdown(socket.SHUT_WR)
    sys.exit(int(asked.recv(16)))
"""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__, *LIBRARIES])
one_at_a_time = threading.Lock()  # in starting a process, multiprocessing also asks how the others ended


def run_stage(
    module: str, *arguments: object, cwd: Path, environment: Mapping[str, str], timeout: float = HANGS
) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.<module> <arguments>` to its end; PYTHONPATH is one folder, of which `pipeline` is taken."""
    command = [f"pipeline.{module}", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "stdout", Path(folder) / "stderr"
        streams = [Connection(os.open(path, os.O_WRONLY | os.O_CREAT), readable=False) for path in paths]
        status = _to_its_end(timeout, command, cwd, dict(environment), streams)
        output, errors = (path.read_text() for path in paths)
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout, output, errors)
        return subprocess.CompletedProcess(command, status, output, errors)


def start_stage(module: str, *arguments: object, cwd: Path, environment: Mapping[str, str]) -> BaseProcess:
    """The same without waiting for its end, for tests that kill it; its output is not kept."""
    streams = [Connection(os.open(os.devnull, os.O_WRONLY), readable=False), Connection(os.dup(2), readable=False)]
    return _start([f"pipeline.{module}", *map(str, arguments)], cwd, dict(environment), streams)


@functools.cache
def stand_in() -> Path:
    """A folder with a script `python`, for PATH: stages are run as above, all else by this Python.

    It is for what runs to its end: an interrupt of the script does not reach the stage.
    """
    folder = tempfile.TemporaryDirectory()  # not pytest's: an address has a hundred characters at most
    atexit.register(folder.cleanup)
    script, address = Path(folder.name) / "python", f"{folder.name}/socket"
    server = socket.create_server(address, family=socket.AF_UNIX)
    script.write_text(STAND_IN.format(python=sys.executable, address=address))
    script.chmod(0o755)
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    return script.parent


def _serve(server: socket.socket) -> None:
    while True:
        asked, _ = server.accept()
        threading.Thread(target=_answer, args=(asked,), daemon=True).start()


def _answer(asked: socket.socket) -> None:
    with asked, suppress(BrokenPipeError):  # who asked may have been killed
        _, descriptors, _, _ = socket.recv_fds(asked, 1, 2)
        with asked.makefile() as file:
            wanted = json.load(file)
        streams = [Connection(descriptor, readable=False) for descriptor in descriptors]
        status = _to_its_end(None, wanted["command"], wanted["cwd"], wanted["environment"], streams, wanted["cores"])
        asked.sendall(str(status).encode())


def _start(
    command: list[str], cwd: Path | str, environment: dict[str, str], streams: list[Connection], *others: object
) -> BaseProcess:
    process = context.Process(target=_run, args=(command, cwd, environment, streams, *others))
    try:
        with one_at_a_time:
            process.start()
    finally:
        for stream in streams:
            stream.close()
    return process


def _to_its_end(timeout: float | None, *arguments: object) -> int | None:
    """Its exit status; None where it took longer."""
    process = _start(*arguments)
    ended = wait_for([process.sentinel], timeout)
    with one_at_a_time:
        if not ended:
            process.kill()
        process.join()
        return process.exitcode if ended else None


def _run(
    command: list[str],
    cwd: Path | str,
    environment: dict[str, str],
    streams: list[Connection],
    cores: list[int] | None = None,
) -> None:
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    if cores:
        os.sched_setaffinity(0, cores)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    own = environment.get("PYTHONPATH", str(cwd))
    sys.path[:] = [own, *(path for path in sys.path if not path.startswith(TESTS))]
    sys.argv = command
    multiprocessing.set_start_method(None, force=True)  # else a stage's pool would start, and fill, such a server anew
    np.random.seed()  # noqa: NPY002 (else all would go on from one state)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
