"""`dvc`, as our commands call it; and the only use of what DVC does not document.

    python -m pipeline.workflow.dvc_parts repro --single-item train_resnet@50

Two things differ from plain `dvc`. It reads less (`quicken`): of dvc.lock only the entries that are asked for, and only
those that change are written anew; and params.yaml once, not for every stage, and not whole for every key. With 145
stages DVC spends seconds on each, and holds its lock meanwhile. What is written is the same, byte for byte. And an
interrupt also ends the command of the stage: one that comes in the millisecond in which DVC starts it ends DVC alone.

Each name that is not in DVC's documentation has its reason here; tests/workflow/test_dvc_parts.py fails where a new
DVC changes one.
"""

from __future__ import annotations

import functools
import re
import signal
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dpath
import psutil
from dvc import dvcfile
from dvc.cli import main
from dvc.dependency import param
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import LOADERS, dumps_yaml, load_yaml, parse_yaml

from pipeline.stage import UserError, write_bytes

if TYPE_CHECKING:
    import networkx as nx

LOCK = Path("dvc.lock")
WHOLE = "dvc.yaml"  # as a target of DVC's: every stage
INTERRUPTED = "interrupted; the same command continues"
STATUS_OF_INTERRUPTED = 252  # DVC's exit status
HEAD = "schema: '2.0'\nstages:\n"  # of dvc.lock
ENTRY = re.compile(r"^  (?! )(.+):$", re.MULTILINE)  # a stage's name
ANCHOR = re.compile(r": [&*]id\d+$|^ *- [&*]id\d+$", re.MULTILINE)  # what holds beyond one entry
OUTSIDE = re.compile(r"^\S", re.MULTILINE)  # a line of no entry: a mark of a conflict, or another section


def command(*arguments: str) -> list[str]:
    """`dvc` with these arguments, as above."""
    return [sys.executable, "-m", "pipeline.workflow.dvc_parts", *arguments]


def dvc(*arguments: str) -> None:
    """Run DVC, its output shown. Raises UserError if it fails or is interrupted."""
    with subprocess.Popen(command(*arguments)) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it puts its locks away; subprocess.run would kill it after a quarter of a second
            raise UserError(INTERRUPTED) from None
    if status:
        raise UserError(f"'dvc {arguments[0]}' failed, as said above; the same command continues, once that is mended")


def output_of(*arguments: str) -> str:
    """What plain `dvc` prints. Raises UserError with its last line where it fails."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc {' '.join(arguments)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """What DVC raises becomes a UserError of one line."""
    try:
        yield
    except DvcException as error:
        raise UserError(" ".join(str(error).split())) from error


def read_graph(repo: Repo, target: str) -> nx.DiGraph:
    """A stage, or dvc.yaml for all, with what it needs: names, an edge from each to what it depends on.

    `Repo.index.graph` and `Repo.stage.collect`: `dvc dag` prints no graph that names outputs and stages apart.
    Raises DvcException where there is no such stage.
    """
    import networkx as nx  # a fifth of a second, which every stage's start would take

    graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    if target == WHOLE:
        return graph
    wanted = {stage.addressing for stage in repo.stage.collect(target)}
    return graph.subgraph(wanted.union(*(nx.descendants(graph, name) for name in wanted)))


def changed(repo: Repo, names: Container[str]) -> set[str]:
    """Of these stages, those that are not as dvc.lock has them (`Stage.status`: `Repo.status` reads dvc.yaml anew)."""
    with repo.lock:
        return {stage.addressing for stage in repo.index.stages if stage.addressing in names and stage.status()}


def order_of_repro(repo: Repo) -> list[str]:
    """Names of all stages in the order in which `dvc repro` runs them, and so writes dvc.lock (`plan_repro`)."""
    return [stage.addressing for stage in plan_repro(repo.index.graph)]


def read_entries() -> dict[str, dict]:
    """What dvc.lock says of each stage, in its order."""
    return load_yaml(LOCK)["stages"] if LOCK.exists() else {}


def write_entries(stages: dict[str, dict]) -> None:
    """Write dvc.lock in DVC's form (`dumps_yaml`). The caller holds `Repo.lock`."""
    write_bytes(LOCK, dumps_yaml({"schema": "2.0", "stages": stages}).encode())


def lock_is_readable(repo: Repo) -> bool:
    """Whether DVC can read dvc.lock (`Lockfile`: the same check as DVC's own, before it does anything)."""
    try:
        Lockfile(repo, str(LOCK)).load()
    except DvcException:
        return False
    return True


class Entries(Mapping):
    """dvc.lock's stages; an entry is parsed when it is asked for."""

    def __init__(self, text: str) -> None:
        """Of what follows HEAD."""
        starts = [(match[1], match.start()) for match in ENTRY.finditer(text)]
        ends = [start for _, start in starts[1:]] + [len(text)]
        self.texts = {name.strip("'"): text[start:end] for (name, start), end in zip(starts, ends, strict=True)}
        self.parsed: dict[str, dict] = {}

    def __getitem__(self, name: str) -> dict:
        if name not in self.parsed:
            (self.parsed[name],) = parse_yaml(self.texts[name], LOCK).values()
        return self.parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __contains__(self, name: object) -> bool:
        return name in self.texts

    def replace(self, name: str, entry: dict) -> None:
        """Put another entry in an entry's place, or at the end."""
        whole = dumps_yaml({"schema": "2.0", "stages": {name: entry}})
        self.texts[name] = whole.removeprefix(HEAD)
        self.parsed.pop(name, None)


class FastLock(Lockfile):
    """dvc.lock, entry by entry. Where it is not of the form that DVC gives it, DVC's own class reads and writes it."""

    def _entries(self) -> Entries | None:
        text = LOCK.read_text() if Path(self.path).absolute() == LOCK.absolute() and LOCK.is_file() else ""
        below = text.removeprefix(HEAD)
        if below in ("", text) or ANCHOR.search(below) or OUTSIDE.search(below):
            return None
        return Entries(below)

    def _load(self, **kwargs: Any) -> tuple[Any, str]:
        entries = None if kwargs else self._entries()
        return super()._load(**kwargs) if entries is None else ({"schema": "2.0", "stages": entries}, "")

    def dump_stages(self, stages: list, **kwargs: Any) -> None:
        entries = self._entries()
        if entries is None:
            return super().dump_stages(stages, **kwargs)
        changed = {}
        for stage in stages:
            (entry,) = to_lockfile(stage, **kwargs).values()
            if entries.get(stage.name) != entry:
                changed[stage.name] = entry
        if changed:
            print(f"Updating lock file '{LOCK}'", flush=True)
            for name, entry in changed.items():
                entries.replace(name, entry)
            write_bytes(LOCK, (HEAD + "".join(entries.texts.values())).encode())
            self.repo.scm_context.track_file(self.relpath)
        return None


@functools.cache
def _read(path: str, *_state: int) -> Any:
    return load_yaml(path)


def read_yaml(path: str, fs: Any = None, **options: Any) -> Any:
    """What DVC's reader gives; of a file on this machine, what it gave, until the file changes."""
    if options or (fs is not None and fs.protocol != "local") or not Path(path).is_file():
        return load_yaml(path, fs=fs, **options)
    now = Path(path).stat()
    # a copy may have its original's time of change, and two changes may have the same time
    return _read(str(Path(path).absolute()), now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino)


class Keys:
    """Stands where DVC has `dpath`, which compares a key with every path of the file."""

    @staticmethod
    def get(content: Any, key: str, separator: str) -> Any:
        """The value at 'key.of.section'."""
        found = content
        try:
            for part in key.split(separator):
                found = found[part]
        except (KeyError, TypeError):
            return dpath.get(content, key, separator=separator)  # it knows of places in lists
        return found


def quicken() -> None:
    """From here on this process's DVC reads and writes dvc.lock by entry, a YAML file once, and a key where it is."""
    dvcfile.Lockfile = FastLock  # DVC looks each name up at each use
    LOADERS[".yaml"] = read_yaml
    param.dpath = Keys


def open_remote(repo: Repo) -> tuple[str, dict, Path | str, object]:
    """The default remote's name, its settings, its path, and its file system (`get_remote_odb`: no other way to it).

    Raises UserError where there is none, or one that keeps no run cache.
    """
    name = repo.config["core"].get("remote")
    if not name:
        raise UserError(
            "no DVC remote to share through: run 'dvc remote add --default NAME PLACE', PLACE being a folder, ssh://"
            " or s3:// address that all nodes reach"
        )
    odb = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    if odb.fs.protocol in ("http", "https"):
        raise UserError(
            f"remote '{name}': an http remote keeps no run cache; allowed are folders, ssh, s3, and the like"
        )
    return name, dict(repo.config["remote"][name]), odb.path, odb.fs


def interrupt_children() -> list[psutil.Process]:
    """Interrupt what this process has started, and what that has; those that were still there."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGINT)
    return children


if __name__ == "__main__":
    quicken()
    status = main(sys.argv[1:])
    if status == STATUS_OF_INTERRUPTED:
        psutil.wait_procs(interrupt_children())
    sys.exit(status)
