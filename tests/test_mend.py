"""A dvc.lock that a kill has cut off is put aside; one that is whole is not touched."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import REPOSITORY
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

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
    rwlock.write_text('{"a": {"read": []}}')
    mend.main()
    assert rwlock.exists()


def test_where_nothing_has_run_there_is_nothing_to_mend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mend.main() == "nothing to mend"
