"""What we use of DVC that it does not document; a new DVC that changes one fails here, with the name."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dpath
import pytest
from conftest import REPOSITORY
from dvc import dvcfile
from dvc.dependency import param
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import dumps_yaml
from ruamel.yaml import YAML

from pipeline.stage import UserError
from pipeline.workflow import dvc_parts

DOCUMENTED = {"dvc.api", "dvc.repo", "dvc.exceptions"}  # Repo and what it raises


def imports_of_dvc(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in ("dvc", "dvc_render", "dvc_data", "dvc_objects")}


def test_one_module_touches_dvcs_private_parts():
    by_module = {
        str(path.relative_to(REPOSITORY)): private
        for path in (REPOSITORY / "pipeline").rglob("*.py")
        if (private := imports_of_dvc(path) - DOCUMENTED)
    }
    assert set(by_module) == {"pipeline/workflow/dvc_parts.py"}, by_module


def test_dvcs_lock_file_is_replaced_by_ours():
    """DVC must look the class up where we put ours, and hand a lock's stages on as a mapping."""
    assert "Lockfile(" in inspect.getsource(dvcfile.ProjectFile._lockfile.fget), "dvc.dvcfile.ProjectFile._lockfile"
    text = (REPOSITORY / "dvc.lock").read_text()
    assert text.startswith(dvc_parts.HEAD)
    assert not dvc_parts.ANCHOR.search(text), "DVC's own, slower class would read and write it"
    entries = dvc_parts.Entries(text.removeprefix(dvc_parts.HEAD))
    assert dict(entries) == YAML(typ="safe").load(text)["stages"]
    assert list(entries) == list(YAML(typ="safe").load(text)["stages"])
    for name in list(entries)[::20]:
        entries.replace(name, entries[name])
    assert dvc_parts.HEAD + "".join(entries.texts.values()) == text


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three stages in a row, and one beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    Repo.init(no_scm=True).close()
    lines = ["stages:"]
    for name, needed in {"c": "b", "b": "a", "a": "", "d": ""}.items():
        lines += [f"  {name}:", f"    cmd: echo {name} > {name}", f"    outs: [{name}]", f"    deps: [{needed}]"]
    Path("dvc.yaml").write_text("\n".join(lines))
    return tmp_path


def test_the_graph_and_its_order(repository):
    with Repo() as repo:
        assert set(dvc_parts.read_graph(repo, dvc_parts.WHOLE)) == set("abcd")
        assert set(dvc_parts.read_graph(repo, "b").edges) == {("b", "a")}
        order = dvc_parts.order_of_repro(repo)
        with pytest.raises(DvcException):
            dvc_parts.read_graph(repo, "e")
    dvc_parts.dvc("repro", "--quiet")
    assert order == list(dvc_parts.read_entries())  # `dvc repro` ran, and wrote, in that order


def test_entries_are_written_as_dvc_writes_them(repository):
    dvc_parts.dvc("repro", "--quiet")
    written = Path("dvc.lock").read_bytes()
    dvc_parts.write_entries(dvc_parts.read_entries())
    assert Path("dvc.lock").read_bytes() == written
    with Repo() as repo:
        assert dvc_parts.lock_is_readable(repo)
        Path("dvc.lock").write_bytes(written[:20])
        assert not dvc_parts.lock_is_readable(repo)


CHANGES = """
from pathlib import Path
from dvc.repo import Repo
from pipeline.workflow import dvc_parts
dvc_parts.quicken()
repo = Repo()
print(*repo.status())
Path("params.yaml").write_text("n: 2")
print(*repo.status())
"""


def test_a_yaml_file_is_read_again_where_it_changed(repository):
    Path("params.yaml").write_text("n: 1\nother: [1, 2]\n")
    with Path("dvc.yaml").open("a") as file:
        file.write("\n  counted:\n    cmd: echo > counted\n    outs: [counted]\n    params: [n]\n")
    dvc_parts.dvc("repro", "--quiet")
    done = subprocess.run([sys.executable, "-c", CHANGES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "counted"]


def test_files_that_share_a_name_and_a_time_of_change_are_told_apart(tmp_path, monkeypatch):
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path)
        Path(name).mkdir()
        monkeypatch.chdir(name)
        for content in (name, f"{name} again"):
            Path("params.yaml").write_text(f"n: {content}\n")
            os.utime("params.yaml", ns=(10**18, 10**18))  # as a copy that keeps its original's
            assert dvc_parts.read_yaml("params.yaml") == {"n": content}
            assert dvc_parts.read_yaml("params.yaml") is dvc_parts.read_yaml("params.yaml")  # read once


def below(section: dict, above: str = "") -> Iterator[str]:
    """Every key of a section, and of the sections in it."""
    for name, value in section.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from below(value, f"{above}{name}.")


def test_a_key_is_found_as_dvc_finds_it():
    """DVC must ask for keys where ours stands; on params.yaml, its own search gives the same."""
    assert "dpath.get(config, key_path" in inspect.getsource(param.read_param_file), "dvc.dependency.param"
    content = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text())
    keys = [*below(content), "densities.1", "shapes.runs.0"]
    assert len(keys) > 180
    for key in keys:
        assert dvc_parts.Keys.get(content, key, separator=".") == dpath.get(content, key, separator="."), key
    for key in ("shapes.no_such_key", "no_such_key", "scale.deeper", "densities.99"):
        with pytest.raises(KeyError):  # DVC takes it for a key that is missing
            dvc_parts.Keys.get(content, key, separator=".")


def test_what_changed_is_what_dvc_status_names(repository):
    dvc_parts.dvc("repro", "--quiet")
    Path("d").unlink()
    Path("a").write_text("other")
    with Repo() as repo:
        assert dvc_parts.changed(repo, {*"abcd"}) == set(repo.status()) == {"a", "b", "d"}
        assert dvc_parts.changed(repo, {"b", "c"}) == {"b"}


def test_a_lock_with_marks_of_a_conflict_is_refused_and_left_alone(repository, monkeypatch):
    dvc_parts.dvc("repro", "--quiet")
    marked = Path("dvc.lock").read_text().replace("  b:\n", "<<<<<<< HEAD\n  b:\n", 1)
    Path("dvc.lock").write_text(marked)
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("echo a >", "printf a >"))
    monkeypatch.setattr(dvcfile, "Lockfile", dvc_parts.FastLock)
    with pytest.raises(UserError, match=r"dvc\.lock"), dvc_parts.errors_in_a_line(), Repo() as repo:
        repo.reproduce("a", single_item=True)
    assert Path("dvc.lock").read_text() == marked


SHARED = """  twice:
    cmd: echo twice > twice
    params: [first, second]
    outs: [twice]
"""


@pytest.mark.parametrize("target", ["b", "dvc.yaml"])
def test_dvcs_own_class_reads_and_writes_no_lock_of_dvcs_form(repository, monkeypatch, target):
    """DVC names the lock by another path where a stage is asked for by its name."""
    dvc_parts.dvc("repro", "--quiet")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("echo b >", "printf b >"))

    def refuse(self: object, *arguments: object, **options: object) -> None:
        raise AssertionError("DVC's own class was asked")

    for name in ("_load", "dump_stages"):
        monkeypatch.setattr(dvcfile.Lockfile, name, refuse)
    monkeypatch.setattr(dvcfile, "Lockfile", dvc_parts.FastLock)
    with Repo() as repo:
        assert "b" in [stage.name for stage in repo.reproduce(target, single_item=target == "b")]
    assert dvc_parts.read_entries()["b"]["cmd"] == "printf b > b"


@pytest.mark.parametrize("more", ["", SHARED], ids=["plain", "shared"])
def test_our_dvc_leaves_the_lock_that_plain_dvc_leaves(repository, more):
    """Entries added at the end, and changed in their places; with what an entry holds twice too."""
    with Path("dvc.yaml").open("a") as file:
        file.write("\n  '10':\n    cmd: echo 10 > ten\n    outs: [ten]\n" + more)
    changed = Path("dvc.yaml").read_text().replace("echo b >", "printf b >")
    found = []
    for start in ([sys.executable, "-m", "dvc"], dvc_parts.command()):
        Path("params.yaml").write_text("first: &one [1, 2]\nsecond: *one\n")
        subprocess.run([*start, "repro", "--quiet"], check=True)
        found.append(Path("dvc.lock").read_text())
        before, after = Path("dvc.yaml").read_text(), changed
        Path("dvc.yaml").write_text(after)
        subprocess.run([*start, "repro", "--quiet", "--single-item", "b"], check=True)
        subprocess.run([*start, "repro", "--quiet", "a", "d"], check=True)
        found.append(Path("dvc.lock").read_text())
        Path("dvc.yaml").write_text(before)
        Path("dvc.lock").unlink()
    assert found[:2] == found[2:]
    assert "printf b" in found[3]


def test_what_an_entry_holds_twice_is_written_as_dvc_writes_it(repository):
    """sources.yaml's anchors come to dvc.lock; a node hands its entry over in YAML, which keeps them."""
    shared = ["openai", "clip_vit_b_32"]
    entry = {"cmd": "a", "params": {"params.yaml": {"first": shared, "second": shared}}}
    text = dvc_parts.dumps_yaml({"entry": entry})
    assert dumps_yaml(YAML(typ="safe").load(text)) == text
    assert "*id001" in text


def test_the_remote_is_opened_or_refused(repository):
    with Repo() as repo, pytest.raises(UserError, match="dvc remote add --default"):
        dvc_parts.open_remote(repo)
    Path(".dvc/config").write_text(
        "[core]\n    no_scm = true\n    remote = web\n['remote \"web\"']\n    url = https://x.test/\n"
    )
    with Repo() as repo, pytest.raises(UserError, match="no run cache"):
        dvc_parts.open_remote(repo)
    store = repository.parent / "store"
    Path(".dvc/config").write_text(
        f"[core]\n    no_scm = true\n    remote = store\n['remote \"store\"']\n    url = {store}\n"
    )
    with Repo() as repo:
        name, settings, path, fs = dvc_parts.open_remote(repo)
        assert (name, Path(settings["url"])) == ("store", store)
        fs.makedirs(path)
        fs.pipe_file(fs.join(path, "x"), b"1")
    assert [file.read_bytes() for file in store.rglob("x")] == [b"1"]


def test_a_failure_is_a_line(repository):
    with pytest.raises(UserError, match="'dvc repro' failed"):
        dvc_parts.dvc("repro", "--quiet", "no-such-stage")
    with pytest.raises(UserError, match="no-such-stage"), dvc_parts.errors_in_a_line(), Repo() as repo:
        dvc_parts.read_graph(repo, "no-such-stage")
