"""What tests of the whole workflow share: clones, commands in them, and clones in which all has run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, edit_params
from filelock import FileLock

DENSITIES = [10, 50, 90]  # of the nine: each is two stages, and every stage starts Python
FEWER = {"shapes.variants.runs": [1], "posenet.backbones": ["pixels", "vgg16", "squeezenet1_1"]}
ONE_DENSITY = {"densities": [10], "shapes.margin_densities": [10], "shapes.variants.density": 10}
ONE_DENSITY |= {"posenet.counter_density": 10, "localize.density": 10}
ONE_AT_A_TIME = ("dvc", "repro")
TWO_AT_A_TIME = (sys.executable, "-m", "pipeline.parallel", "--jobs", "2")


def environment(cwd: Path, **extra: str) -> dict[str, str]:
    """Of commands in a clone: the same Python's programs, and none of what the tests themselves run with."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("DVC_ROOT", "PYTHONPATH")}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(cwd.parent / f"{cwd.name}-site-cache")}
    return inherited | own | extra


def run(
    *command: str, cwd: Path, check: bool = True, extra: dict[str, str] | None = None, **options
) -> subprocess.CompletedProcess:
    env = environment(cwd, **extra or {})
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900, **options)
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def clone(folder: Path, **changes: object) -> Path:
    """A clone of what is checked out, uncommitted changes of tracked files included, at `scale: smoke`."""
    run("git", "clone", "--quiet", str(REPOSITORY), str(folder), cwd=folder.parent)
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_file():
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)  # what was run at another scale says nothing here
    edit_params(folder / "params.yaml", {"scale": "smoke", "threads": 1, "densities": DENSITIES, **FEWER, **changes})
    run("git", "config", "user.email", "tests@example.org", cwd=folder)
    run("git", "config", "user.name", "tests", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--allow-empty", "--message", "state under test", cwd=folder)
    return folder


def ran(result: subprocess.CompletedProcess, values: bool = False) -> set[str]:
    """Names of the stages whose commands ran, with or without their matrix values."""
    names = set(re.findall(r"^(?:.* \| )?Running stage '(.+)'", result.stdout + result.stderr, re.MULTILINE))
    return names if values else {name.split("@")[0] for name in names}


def reproduce_once(tmp_path_factory: pytest.TempPathFactory, name: str, *command: str) -> Path:
    """A folder with `clone`, in which a command has run all and that is committed, and with dvc.lock as it was then.

    It is made once for all of pytest-xdist's processes; others wait for it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / name
    with FileLock(base / f"{name}.lock"):
        if not (folder / "dvc.lock").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            reproduce(folder, *command)
    return folder


def reproduce(folder: Path, *command: str) -> None:
    fresh = clone(folder / "clone")
    stages = run("dvc", "stage", "list", "--name-only", cwd=fresh).stdout.split()
    assert ran(run(*command, cwd=fresh), values=True) == set(stages)
    run("git", "add", "--all", cwd=fresh)
    run("git", "commit", "--quiet", "--message", "reproduced", cwd=fresh)
    shutil.copy(fresh / "dvc.lock", folder)


def settle(folder: Path) -> None:
    """Whatever a test did to a clone that several share, the next one finds it as it was committed."""
    if (folder / ".git/refs/exps").exists():
        run("dvc", "exp", "remove", "--all-commits", cwd=folder)
    if run("git", "status", "--porcelain", cwd=folder).stdout:
        run("git", "checkout", ".", cwd=folder)
        run("git", "clean", "--force", "-d", "--quiet", cwd=folder)
        run("dvc", "checkout", cwd=folder)
