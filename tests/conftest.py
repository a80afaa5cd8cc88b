"""Shared by all tests: a workspace with its own params.yaml, and stages run as a person runs them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parent.parent


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
    edit_params(folder / "params.yaml", {"scale": "smoke", **changes})


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
        return subprocess.run(
            [*wrap, *stage_command(module, *arguments)],
            env=stage_environment(**env),
            capture_output=True,
            text=True,
            preexec_fn=preexec,
            timeout=300,
        )

    return run


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
