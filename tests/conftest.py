"""Shared by all tests: a workspace with its own params.yaml, and stages run as a person runs them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import preloaded
import pytest
from filelock import FileLock
from preloaded import HANGS
from ruamel.yaml import YAML

# several tests run at once, and threads that wait for one another would keep the cores busy
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = ("data", "models", "plots", "metrics")
LONGEST = ("test_workflow.py", "test_workflow_turned.py", "test_cluster.py")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: tests of the workflow wait for processes that they started."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that no process is left with one while the others are done."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def edit_params(path: Path, changes: dict[str, object]) -> None:
    """Set keys of a params.yaml by dotted name."""
    yaml = YAML()
    content = yaml.load(path.read_text())
    for name, value in changes.items():
        *parents, key = name.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[key] = value
    with path.open("w") as file:
        yaml.dump(content, file)


def copy_params(folder: Path, **changes: object) -> None:
    """Our params.yaml at `scale: smoke`, changed so, in a folder."""
    shutil.copy(REPOSITORY / "params.yaml", folder)
    edit_params(folder / "params.yaml", {"scale": "smoke", "threads": 1, **changes})


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """workspace(**changes) makes the current folder a fresh one with our params.yaml at `scale: smoke`, changed so."""

    def make(name: str = "workspace", **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        copy_params(folder, **changes)
        monkeypatch.chdir(folder)
        return folder

    return make


def stage_command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"pipeline.{module}", *map(str, arguments)]


def stage_environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": ".", **variables}


def run_stages(folder: Path, *stages: tuple, **variables: str) -> None:
    """Run stages, each a module and its arguments, in a folder, one after another."""
    for stage in stages:
        result = preloaded.run_stage(*stage, cwd=folder, environment=stage_environment(**variables))
        assert result.returncode == 0, f"{stage}: {result.stderr}"


@pytest.fixture
def run_stage() -> Callable[..., subprocess.CompletedProcess]:
    """Run a stage to its end in the current folder; `wrap` comes before the command, `preexec` runs in the child."""

    def run(
        module: str,
        *arguments: object,
        wrap: tuple[str, ...] = (),
        preexec: Callable[[], None] | None = None,
        **env: str,
    ) -> subprocess.CompletedProcess:
        environment = stage_environment(**env)
        if not wrap and not preexec:
            return preloaded.run_stage(module, *arguments, cwd=Path.cwd(), environment=environment)
        return subprocess.run(
            [*wrap, *stage_command(module, *arguments)],
            env=environment,
            capture_output=True,
            text=True,
            preexec_fn=preexec,
            timeout=HANGS,
        )

    return run


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every result in the folder, whole or partial."""
    files = [path for name in RESULTS for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_killed(module: str, *arguments: object, wait_for: str, moments: random.Random, spread: float) -> None:
    """Start a stage in the current folder; SIGKILL it at a random moment after a file of that pattern appears."""
    environment = stage_environment(CHECKPOINT_SECONDS="0")
    process = preloaded.start_stage(module, *arguments, cwd=Path.cwd(), environment=environment)
    try:
        while not list(Path().rglob(wait_for)) and process.is_alive():
            time.sleep(0.002)
        time.sleep(moments.uniform(0, spread))
    finally:  # whatever happens: else pytest would wait at its end until the stage has ended
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL, "the stage ended before it could be killed"


def obey_permissions() -> None:
    """For preexec: file permissions bind this process even if it runs as root (Linux)."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
        for capability in (dac_override, dac_read_search):
            if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl(PR_CAPBSET_DROP)")


@pytest.fixture
def unprivileged() -> Callable[[], None]:
    """A preexec under which a folder with mode 0o555 is read-only; skips where that cannot be had."""
    if os.geteuid() == 0 and sys.platform != "linux":
        pytest.skip("runs as root on a system other than Linux: permissions do not bind")
    return obey_permissions


def assert_one_line_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    """Failed with status 1 and one line that holds these parts, without a traceback."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def published_inputs() -> Path:
    """The folder with copies of published inputs that STUDIES_MIRROR names; skips where there is none."""
    folder = os.environ.get("STUDIES_MIRROR")
    if not folder:
        pytest.skip("STUDIES_MIRROR is not set: no published inputs at hand")
    return Path(folder)


def published_experiments(mirror: Path, *names: str) -> Path:
    """A mirror with these of the error-consistency experiments only, as folders of links; the time grows with them."""
    for name in names:
        experiment = mirror / "error-consistency" / name
        experiment.mkdir(parents=True)
        for path in (published_inputs() / "error-consistency" / name).iterdir():
            (experiment / path.name).symlink_to(path.resolve())
    return mirror


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once for all of pytest-xdist's processes; others wait for it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, whole = base / name, base / f"{name}.whole"
    with FileLock(base / f"{name}.lock"):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def filtered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CountCLIP: a folder with a generated pool, a detector after one epoch, and the filtered pool."""

    def make(folder: Path) -> None:
        copy_params(folder, **{"scales.smoke.countclip.pool_shards": 5})
        run_stages(folder, ("countclip.pool",), ("countclip.train_detector",), ("countclip.filter",))

    return made_once(tmp_path_factory, "filtered", make)


@pytest.fixture(scope="session")
def prepared_once(filtered_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That folder with a benchmark and a pre-trained model: all that fine-tuning needs."""

    def make(folder: Path) -> None:
        shutil.copytree(filtered_once, folder, dirs_exist_ok=True)
        run_stages(folder, ("countclip.countbench",), ("countclip.pretrain",))

    return made_once(tmp_path_factory, "prepared", make)


@pytest.fixture
def work_in_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """work_in_copy(folder) makes the current folder a copy of that one."""

    def copy(folder: Path) -> Path:
        copied = shutil.copytree(folder, tmp_path / "copy")
        monkeypatch.chdir(copied)
        return copied

    return copy


@pytest.fixture
def prepared(prepared_once: Path, work_in_copy: Callable[[Path], Path]) -> Path:
    """The current folder is a copy of it."""
    return work_in_copy(prepared_once)
