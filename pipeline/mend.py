"""What a killed `dvc repro` can leave that DVC then refuses to read, put aside; `make repro` does it first.

    python -m pipeline.mend

DVC 3.67 writes dvc.lock and .dvc/tmp/rwlock in place. One that was cut off is no loss: what was done comes back from
the run cache, to the same bytes (benchmarks/soak.py). A dvc.lock that is whole is left as it is.

In rwlock, DVC notes which process has which files. It takes a killed one for running as long as nothing has asked how
it ended: for seconds under some inits, and for ever in a container that has none.

The run cache has a folder a run, which DVC makes first and fills then. Where it is killed in between, every later `dvc
repro` of that stage fails at the empty folder, with 'join() argument must be str'.

A DVC that runs writes these in place too, and they look cut off meanwhile: each is changed under DVC's own lock of it
only, and what belongs to a process that runs is left to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML, YAMLError

from pipeline.stage import UserError, run, write_bytes

DVC = Path(".dvc")
LOCK, RWLOCK, RUNS = Path("dvc.lock"), DVC / "tmp/rwlock", DVC / "cache/runs"
# held by DVC while it writes the file that stands before it
LOCKED_BY = {LOCK: DVC / "tmp/lock", RWLOCK: DVC / "tmp/rwlock.lock", RUNS: DVC / "tmp/lock"}

Holders = dict[str, dict[str, Any]]  # {'read': {file: [process]}, 'write': {file: process}}


def is_cut_off(lock: Path) -> bool:
    """Whether a dvc.lock breaks off: it cannot be parsed, or an entry lacks what DVC writes of every one."""
    try:
        content = YAML(typ="safe").load(lock)
    except FileNotFoundError:
        return False
    except (YAMLError, UnicodeDecodeError):
        return True
    if not isinstance(content, dict) or not {"schema", "stages"} <= content.keys():
        return True
    stages = content["stages"]
    return not isinstance(stages, dict) or not all(_is_whole(stage) for stage in stages.values())


def _is_whole(stage: Any) -> bool:
    if not isinstance(stage, dict) or not stage.get("cmd"):
        return False
    files = [*(stage.get("deps") or []), *(stage.get("outs") or [])]
    if any(name in stage and not stage[name] for name in ("deps", "params", "outs")):
        return False
    if not all(isinstance(values, dict) for values in (stage.get("params") or {}).values()):
        return False
    return all(isinstance(file, dict) and file.get("path") and file.get("md5") for file in files)


def still_held(holders: Holders) -> Holders:
    """Of DVC's holders of files, those whose processes run."""
    read = {file: [process for process in of if _runs(process["pid"])] for file, of in holders["read"].items()}
    return {
        "read": {file: of for file, of in read.items() if of},
        "write": {file: process for file, process in holders["write"].items() if _runs(process["pid"])},
    }


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _read_holders() -> Holders | None:
    """What rwlock says; None where it is none of DVC's. Raises ValueError where it breaks off."""
    try:
        content = json.loads(RWLOCK.read_text())
    except FileNotFoundError:
        content = {}
    if not isinstance(content, dict) or not content.keys() <= {"read", "write"}:
        return None
    return {"read": {}, "write": {}, **content}  # DVC leaves out what is empty


def _rwlock_is_broken() -> bool:
    try:
        holders = _read_holders()
    except ValueError:
        return True
    return holders is not None and still_held(holders) != holders


def _mend_lock() -> str:
    LOCK.replace(LOCK.with_name("dvc.lock.cut-off"))
    return f"{LOCK}, which broke off, is dvc.lock.cut-off now"


def _mend_rwlock() -> str:
    try:
        holders = _read_holders()
    except ValueError:
        RWLOCK.unlink()
        return f"{RWLOCK} broke off and is gone"
    assert holders is not None
    write_bytes(RWLOCK, json.dumps(still_held(holders)).encode())
    return f"{RWLOCK} no longer names processes that have ended"


def _empty_runs() -> list[Path]:
    return [folder for folder in RUNS.glob("*/*") if folder.is_dir() and not any(folder.iterdir())]


def _mend_runs() -> str:
    empty = _empty_runs()
    for folder in empty:
        folder.rmdir()
    return f"{RUNS} no longer has {len(empty)} empty folders"


@contextmanager
def locked(file: Path) -> Iterator[bool]:
    """With DVC's lock of a file, False where another has it; DVC waits for it as long (3 s)."""
    from dvc.config import Config  # a tenth of a second in all; mostly there is nothing to mend
    from dvc.exceptions import DvcException
    from dvc.lock import LockError, make_lock

    try:
        links = Config(str(DVC))["core"].get("hardlink_lock", False)
    except DvcException as error:
        raise UserError(f"{DVC}: {' '.join(str(error).split())}") from None
    LOCKED_BY[file].parent.mkdir(exist_ok=True)
    lock = make_lock(str(LOCKED_BY[file]), tmp_dir=str(LOCKED_BY[file].parent), hardlink_lock=links)
    try:
        lock.lock()
    except LockError:
        yield False
        return
    try:
        yield True
    finally:
        lock.unlock()


def _mended(file: Path, is_broken: Callable[[], bool], mend: Callable[[], str]) -> str:
    """What was done to a file, '' if nothing. It is looked at twice: it may have been in the midst of being written."""
    if not is_broken():
        return ""
    with locked(file) as ours:
        if not ours:
            return (
                f"{file} is left as it is: another DVC command has {LOCKED_BY[file]}, run this again when it has ended"
            )
        return mend() if is_broken() else ""


def _at_work() -> str:
    """The processes that run and hold files, in words; '' where there are none."""
    try:
        holders = _read_holders()
    except ValueError:
        return ""
    held = still_held(holders or {"read": {}, "write": {}})
    processes = [*held["write"].values(), *(process for of in held["read"].values() for process in of)]
    named = {process["pid"]: f"{process['pid']} ({process['cmd']})" for process in processes}
    return f"files of what runs are left to it: process {', '.join(named.values())}" if named else ""


def main() -> str:
    """Put aside what is cut off, beside whatever else runs.

    Raises:
        UserError: DVC's configuration cannot be read.
    """
    if not DVC.is_dir():
        return "nothing to mend"
    done = [
        _mended(LOCK, lambda: is_cut_off(LOCK), _mend_lock),
        _mended(RWLOCK, _rwlock_is_broken, _mend_rwlock),
        _mended(RUNS, lambda: bool(_empty_runs()), _mend_runs),
    ]
    said = list(filter(None, done)) or ["nothing to mend"]
    return "; ".join(filter(None, [*said, _at_work()]))


if __name__ == "__main__":
    run(main)
