"""What every stage shares: its command line, one-line errors, files that appear whole, a closing line, its cost."""

from __future__ import annotations

import argparse
import errno
import inspect
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF
from typing import Any

import psutil

DECIMALS = 6  # of floats in JSON
COSTS = Path(os.environ.get("DVC_ROOT", ".")) / "report" / "costs.jsonl"  # undeclared: no run has another's times
ADVICE = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some of your quota and run again",
    errno.EFBIG: "raise the limit on file size (ulimit -f) and run again",
    errno.EACCES: "make it writable for this user and run again",
    errno.EPERM: "make it writable for this user and run again",
    errno.EROFS: "choose a folder on a writable file system",
    errno.ENOENT: "'dvc repro' makes what is missing",
}


class UserError(Exception):
    """Something a person can mend: names the file or key, what was found, what is allowed, what to do."""


def run(main: Callable[..., str], **arguments: type) -> None:
    """Run a stage from the command line; `arguments` are its options, by name and type.

    An option is required unless `main` has a default for it. `--help` shows the module's docstring as it is written.

    `main` returns what it made ('2,000 images'), which is printed with the time it took. A
    UserError or an OSError becomes one line on standard error and exit status 1.
    """
    module = sys.modules[main.__module__]
    assert module.__spec__, "run stages as 'python -m pipeline.<study>.<stage>'"
    name = module.__spec__.name
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for argument, kind in arguments.items():
        default = inspect.signature(main).parameters[argument].default
        parser.add_argument(f"--{argument}", type=kind, default=default, required=default is inspect.Parameter.empty)
    options = vars(parser.parse_args())
    label = " ".join([name.removeprefix("pipeline."), *map(str, options.values())])
    start = time.perf_counter()
    with one_line_errors(label):
        made = main(**options)
    if os.environ.get("RANK", "0") == "0":  # of several processes under torchrun, the first speaks
        seconds = time.perf_counter() - start
        print(f"{label}: {made} in {seconds:.1f} s", flush=True)
        _keep_cost(label, " ".join(["python -m", name, *sys.argv[1:]]), seconds)


@contextmanager
def one_line_errors(label: str) -> Iterator[None]:
    """A UserError or an OSError ends the program: one line on standard error, which begins so, and exit status 1."""
    try:
        yield
    except UserError as error:
        said = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        advice = ADVICE.get(error.errno or 0)
        said = f"{where}{error.strerror or error}" + (f"; {advice}" if advice else "")
    else:
        return
    sys.exit(f"error: {label}: {' '.join(line.strip() for line in said.splitlines())}")


def _keep_cost(label: str, command: str, seconds: float) -> None:
    """A line for the report."""
    process = psutil.Process()
    whole = time.time() - process.create_time()
    ended = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"stage": label, "command": command, "seconds": round(seconds, 2), "with_start": round(whole, 2)}
    line["cpu"] = round(sum(process.cpu_times()[:4]), 2)  # user and system, its own and its children's
    unit = 1 if sys.platform == "darwin" else 1024
    line["memory"] = unit * sum(resource.getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    keep_cost({**line, "ended": ended})


def keep_cost(line: Mapping[str, Any]) -> None:
    """Add to COSTS. What the stage made is whole already, so a full disk costs only this line."""
    try:
        COSTS.parent.mkdir(parents=True, exist_ok=True)
        with COSTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        print(f"{COSTS}: {error.strerror}; the report will not know what {line['stage']} cost", flush=True)


def costs(path: Path | None = None) -> list[dict[str, Any]]:
    """What each stage cost when it last ran here, in the order of their ends; or as another such file has it.

    'stage', 'command', 'seconds' of work, 'with_start': with Python's and the libraries' start, 'cpu': seconds that
    cores were busy with it, 'memory': bytes, the most that it held and the most that a process of its own held, 'ended'
    (UTC).
    """
    path = path or COSTS
    if not path.exists():
        return []
    last: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        cost = json.loads(line)
        last.pop(cost["stage"], None)
        last[cost["stage"]] = cost
    return list(last.values())


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place only once it is complete and on disk.

    The name is fixed, so that what a killed run left is overwritten by the next one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON whole or not at all; floats to DECIMALS, and null where undefined (NaN, infinite)."""
    write_bytes(path, (json.dumps(_plain(content), indent=1) + "\n").encode())


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case _ if hasattr(value, "tolist"):  # NumPy's arrays and numbers: its import would slow what needs none
            return _plain(value.tolist())
        case list() | tuple():
            return [_plain(item) for item in value]
        case float():
            return round(value, DECIMALS) if math.isfinite(value) else None
        case _:
            return value
