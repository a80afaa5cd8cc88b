"""What a killed `dvc repro` can leave that DVC then refuses to read, put aside; `make repro` does it first.

    python -m pipeline.workflow.mend

DVC 3.67 writes dvc.lock and .dvc/tmp/rwlock in place, and makes a run's folder in its cache before it fills it. Killed
in between, it refuses to read the first two, fails at the empty third with 'join() argument must be str', and, in a
container without an init, takes the killed process for one that still has its files. None of it is a loss: what was
done comes back from the run cache, to the same bytes (benchmarks/soak.py).

While another DVC command runs here all of these may look broken, so then nothing is touched.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import psutil
from dvc.repo import Repo

from pipeline.stage import run
from pipeline.workflow.dvc_parts import lock_is_readable

DVC, LOCK = Path(".dvc"), Path("dvc.lock")
RWLOCK, RUNS = DVC / "tmp/rwlock", DVC / "cache/runs"


def dvc_commands() -> list[psutil.Process]:
    """DVC's other commands that run in this folder, or in one below it."""
    here, found = Path.cwd().resolve(), []
    own = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()  # none of a process that has ended, which nobody has asked how
            if process.pid not in own and _is_dvc(words) and Path(process.cwd()).is_relative_to(here):
                found.append(process)
    return found


def _is_dvc(words: list[str]) -> bool:
    """Whether a command line is DVC's: `dvc repro`, `python -m dvc repro`, `python -m pipeline.workflow.dvc_parts`."""
    return any(Path(word).name in ("dvc", "pipeline.workflow.dvc_parts") for word in words[:4])


def mend(repo: Repo) -> str:
    """Put aside what is broken, unless another DVC command runs here; what was done, in words, or ''."""
    if running := dvc_commands():
        named = ", ".join(f"{process.pid} ({' '.join(process.cmdline()[:6])})" for process in running)
        return f"nothing touched, as a DVC command runs here: process {named}"
    done = []
    if not lock_is_readable(repo):
        LOCK.replace("dvc.lock.cut-off")
        done.append(f"{LOCK}, which broke off, is dvc.lock.cut-off now")
    if _names_files():
        RWLOCK.unlink()
        done.append(f"{RWLOCK} is gone: it named files of DVC commands that no longer run")
    empty = [folder for folder in RUNS.glob("*/*") if folder.is_dir() and not any(folder.iterdir())]
    for folder in empty:
        folder.rmdir()
    if empty:
        done.append(f"{RUNS} no longer has {len(empty)} empty folders")
    return "; ".join(done)


def _names_files() -> bool:
    """Whether rwlock names any file, or cannot be read."""
    try:
        return any(json.loads(RWLOCK.read_text()).values())
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def main() -> str:
    """The same in a folder that DVC may not know."""
    if not DVC.is_dir():
        return "nothing to mend"
    with Repo() as repo:
        return mend(repo) or "nothing to mend"


if __name__ == "__main__":
    run(main)
