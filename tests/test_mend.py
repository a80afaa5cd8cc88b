"""A dvc.lock that a kill has cut off is put aside, and one that is whole or in the midst of being written is not
touched; the dead hold no files, and the living keep theirs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.lock import LockError, make_lock
from dvc.repo import Repo
from dvc.rwlock import rwlock as rwlock_of_dvc

from pipeline import mend


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    return tmp_path


def test_the_committed_lock_is_whole(repository):
    content = (REPOSITORY / "dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(content)
    assert mend.main() == "nothing to mend"
    assert Path("dvc.lock").read_bytes() == content


def test_what_dvc_refuses_is_put_aside_wherever_it_was_cut(repository):
    """Whatever is left in place, DVC can read; at the borders of blocks of 8 KiB above all, as files are written."""
    content = (REPOSITORY / "dvc.lock").read_bytes()
    places = [0, 1, *range(8192, 8192 * 6, 8192), *random.Random(0).choices(range(20_000), k=10)]
    left = 0
    for place in places:
        Path("dvc.lock").write_bytes(content[:place])
        mend.main()
        if Path("dvc.lock").exists():
            left += 1
            with Repo() as repo:
                Lockfile(repo, "dvc.lock").load()  # raises where DVC would stop
        else:
            assert Path("dvc.lock.cut-off").read_bytes() == content[:place]
    assert left < len(places) / 2


def test_dvc_does_refuse_what_is_cut_off(repository):
    Path("dvc.lock").write_bytes(b"")
    with Repo() as repo, pytest.raises(DvcException):
        Lockfile(repo, "dvc.lock").load()


def test_a_torn_rwlock_goes_and_a_whole_one_stays(repository):
    rwlock = Path(".dvc/tmp/rwlock")
    rwlock.parent.mkdir(parents=True, exist_ok=True)
    rwlock.write_text('{"a": {"wri')
    assert "rwlock" in mend.main()
    assert not rwlock.exists()
    rwlock.write_text("")  # DVC empties it, then writes
    assert "broke off" in mend.main()
    assert not rwlock.exists()
    for other in ('{"a": {"read": []}}', "[]", "{}", '{"write": {}}'):  # nothing that a kill leaves
        rwlock.write_text(other)
        assert mend.main() == "nothing to mend"
        assert rwlock.read_text() == other
    whole = json.dumps({"read": {"a": [{"pid": os.getpid(), "cmd": "dvc repro"}]}, "write": {}})
    rwlock.write_text(whole)
    assert mend.main() == f"nothing to mend; files of what runs are left to it: process {os.getpid()} (dvc repro)"
    assert rwlock.read_text() == whole


@contextmanager
def dvc_that_writes(file: Path, content: bytes, seconds: float, links: bool = False) -> Iterator[None]:
    """As DVC writes dvc.lock and rwlock: under a lock, in place. A beginning stands there for so long."""
    lock = Path(".dvc/tmp", "lock" if file.name == "dvc.lock" else "rwlock.lock")
    begun = threading.Event()

    def write() -> None:
        with make_lock(str(lock), tmp_dir=str(lock.parent), hardlink_lock=links), file.open("wb") as opened:
            opened.write(content[:5])
            opened.flush()
            begun.set()
            time.sleep(seconds)
            opened.write(content[5:])

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(10)
    try:
        yield
    finally:
        writer.join()


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("name", ["dvc.lock", ".dvc/tmp/rwlock"])
def test_what_a_run_is_writing_stays_where_it_writes_it(repository, name, links):
    """By either kind of DVC's locks; `hardlink_lock` is for file systems without the other."""
    if links:
        Path(".dvc/config").write_text("[core]\n    hardlink_lock = true\n")
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    runs = json.dumps({"read": {"a": [{"pid": os.getpid(), "cmd": "dvc repro"}]}, "write": {}}).encode()
    content = (REPOSITORY / "dvc.lock").read_bytes() if file == mend.LOCK else runs
    with dvc_that_writes(file, content, 0.6, links):
        assert "nothing to mend" in mend.main()
    assert file.read_bytes() == content
    assert not Path("dvc.lock.cut-off").exists()


@pytest.mark.parametrize("name", ["dvc.lock", ".dvc/tmp/rwlock"])
def test_where_a_run_takes_longer_that_is_said(repository, name, monkeypatch):
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.1)
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with dvc_that_writes(file, b'{"read": {}, "write": {}}', 1):
        said = mend.main()
        assert said.startswith(f"{name} is left as it is: another DVC command has .dvc/tmp/")
    assert file.read_bytes() == b'{"read": {}, "write": {}}'


def test_a_run_that_lives_goes_on_with_what_it_holds(repository):
    """`make repro`, and so mend, beside a `dvc repro` that holds files: DVC says later which one is busy."""
    with rwlock_of_dvc(".dvc/tmp", localfs, "dvc repro", ["a"], ["b"], False):
        before = Path(".dvc/tmp/rwlock").read_bytes()
        assert f"process {os.getpid()} (dvc repro)" in mend.main()
        assert Path(".dvc/tmp/rwlock").read_bytes() == before  # or DVC fails when it gives them back


def test_files_are_not_held_by_processes_that_have_ended(repository):
    """Nobody has asked how this one ended, as in a container that has no init: DVC takes it for running."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    gone, here = ({"pid": pid, "cmd": "dvc repro"} for pid in (ended.pid, os.getpid()))
    path = str(Path("a").absolute())
    rwlock = Path(".dvc/tmp/rwlock")
    rwlock.parent.mkdir(parents=True, exist_ok=True)
    rwlock.write_text(json.dumps({"read": {"b": [gone, here], "c": [gone]}, "write": {path: gone, "d": here}}))

    def hold() -> None:
        with rwlock_of_dvc(str(rwlock.parent), localfs, "dvc repro", [], [path], False):
            pass

    try:
        with pytest.raises(LockError, match="busy"):
            hold()
        assert "ended" in mend.main()
        hold()
    finally:
        ended.wait()
    assert json.loads(rwlock.read_text()) == {"read": {"b": [here]}, "write": {"d": here}}
    rwlock.write_text(json.dumps({"write": {path: {**gone, "pid": ended.pid}}}))  # no readers: DVC leaves them out
    assert "ended" in mend.main()
    hold()


def test_a_run_that_was_killed_before_it_was_noted_can_be_run_again(repository):
    """DVC makes a folder in its run cache, and then the file in it."""
    Path("dvc.yaml").write_text("stages: {one: {cmd: echo 1 > one.txt, deps: [in.txt], outs: [one.txt]}}")
    Path("in.txt").write_text("1")
    with Repo() as repo:
        repo.reproduce("one")
    noted = list(Path(".dvc/cache/runs").glob("*/*/*"))
    assert len(noted) == 1
    assert mend.main() == "nothing to mend"
    noted[0].unlink()
    for made in ("dvc.lock", "one.txt"):
        Path(made).unlink()
    with Repo() as repo, pytest.raises(DvcException):
        repo.reproduce("one")
    assert mend.main() == ".dvc/cache/runs no longer has 1 empty folders"
    with Repo() as repo:
        assert repo.reproduce("one")
    assert Path("one.txt").read_text() == "1\n"
    assert list(Path(".dvc/cache/runs").glob("*/*/*")) == noted


def test_where_nothing_has_run_there_is_nothing_to_mend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mend.main() == "nothing to mend"
