"""What a kill has cut off is put aside, what is whole stays, and beside another DVC command nothing is touched."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipeline.workflow import mend


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
    put_aside = 0
    for place in places:
        Path("dvc.lock").write_bytes(content[:place])
        mend.main()
        if Path("dvc.lock").exists():
            with Repo() as repo:
                Lockfile(repo, "dvc.lock").load()  # raises where DVC would stop
        else:
            put_aside += 1
            assert Path("dvc.lock.cut-off").read_bytes() == content[:place]
    assert put_aside


def test_dvc_does_refuse_what_is_cut_off(repository):
    Path("dvc.lock").write_bytes(b"")
    with Repo() as repo, pytest.raises(DvcException):
        Lockfile(repo, "dvc.lock").load()


@pytest.mark.parametrize("content", ['{"a": {"wri', ""])
def test_a_torn_rwlock_goes(repository, content):
    mend.RWLOCK.parent.mkdir(parents=True, exist_ok=True)
    mend.RWLOCK.write_text(content)
    assert "rwlock" in mend.main()
    assert not mend.RWLOCK.exists()


@pytest.mark.parametrize("content", ["{}", '{"read": {}, "write": {}}'])
def test_an_rwlock_that_names_no_files_is_nothing_to_speak_of(repository, content):
    mend.RWLOCK.parent.mkdir(parents=True, exist_ok=True)
    mend.RWLOCK.write_text(content)
    assert mend.main() == "nothing to mend"


def test_files_are_not_held_by_a_killed_command(repository):
    """Nobody has asked how it ended, as in a container that has no init: DVC takes it for running, and waits."""
    Path("dvc.yaml").write_text("stages:\n  a:\n    cmd: echo a > a\n    outs: [a]\n")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    held = {"write": {str(Path("a").absolute()): {"pid": ended.pid, "cmd": "dvc repro"}}, "read": {}}
    mend.RWLOCK.parent.mkdir(parents=True, exist_ok=True)
    mend.RWLOCK.write_text(json.dumps(held))
    with Repo() as repo, pytest.raises(DvcException) as error:
        repo.reproduce()
    assert "busy" in str(error.value.__cause__)
    assert "rwlock" in mend.main()
    with Repo() as repo:
        assert [stage.addressing for stage in repo.reproduce()] == ["a"]
    ended.wait()


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


@pytest.mark.parametrize("below", [".", "data"])
def test_beside_another_dvc_command_nothing_is_touched(repository, below):
    """All may look broken while it writes. It may have been started in a folder below."""
    Path("dvc.lock").write_text("")
    Path("data").mkdir()
    script = repository / "dvc"
    script.write_text("import time; print('runs', flush=True); time.sleep(3600)")
    with subprocess.Popen([sys.executable, str(script), "repro"], cwd=below, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            assert mend.main().startswith(f"nothing touched, as a DVC command runs here: process {other.pid} (")
            assert Path("dvc.lock").exists()
        finally:
            other.kill()
    assert "dvc.lock.cut-off" in mend.main()


def test_dvc_elsewhere_is_nothing_to_wait_for(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "dvc").write_text("import time; print('runs', flush=True); time.sleep(3600)")
    with subprocess.Popen([sys.executable, "dvc", "repro"], cwd=elsewhere, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            assert mend.dvc_commands() == []
        finally:
            other.kill()


def test_outside_a_repository_there_is_nothing_to_mend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mend.main() == "nothing to mend"
    assert list(tmp_path.iterdir()) == []
