"""What tests of the whole workflow share: clones, commands in them, and a clone in which all has run.

The stages that DVC starts in them have the libraries already (preloaded.py), but on a cluster.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANGS, REPOSITORY, edit_params, made_once
from preloaded import stand_in
from ruamel.yaml import YAML

DENSITIES = [10, 50, 90]  # of the nine: each is two stages, and every stage starts Python
FEWER = {"shapes.runs": [0, 1], "shapes.variants.runs": [1], "localize.runs": [0, 1]}
FEWER |= {"countclip.runs": [0, 1], "posenet.backbones": ["pixels", "vgg16", "squeezenet1_1"]}
ONE_DENSITY = {"densities": [10], "shapes.margin_densities": [10], "shapes.variants.density": 10}
ONE_DENSITY |= {"posenet.counter_density": 10, "localize.density": 10}
ONE_AT_A_TIME, TWO_AT_A_TIME = (
    (sys.executable, "-m", "pipeline.workflow.reproduce", "--jobs", number) for number in "12"
)


def environment(cwd: Path, preloaded: bool, **extra: str) -> dict[str, str]:
    """Of commands in a clone: the same Python's programs, and none of what the tests themselves run with.

    preloaded: `python` has the libraries already.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("DVC_ROOT", "PYTHONPATH")}
    programs = [*([stand_in()] if preloaded else []), Path(sys.executable).parent, os.environ["PATH"]]
    inherited["PATH"] = os.pathsep.join(map(str, programs))
    return inherited | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(site_cache(cwd))} | extra


def site_cache(clone: Path) -> Path:
    """Where DVC keeps what it knows of a clone's files."""
    return clone.parent / f"{clone.name}-site-cache"


def run(
    *command: str,
    cwd: Path,
    check: bool = True,
    preloaded: bool = True,
    extra: dict[str, str] | None = None,
    timeout: float = 2 * HANGS,
    **options,
) -> subprocess.CompletedProcess:
    env = environment(cwd, preloaded, **extra or {})
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, **options)
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


def reproduced_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one graph of a session: a folder with `clone`, in which all has run, two stages at a time, and is committed.

    Beside it are dvc.lock and DVC's cache as they were then: `cache`, for clones that need not run all again.
    """

    def make(folder: Path) -> None:
        fresh = clone(folder / "clone")
        stages = run("dvc", "stage", "list", "--name-only", cwd=fresh).stdout.split()
        assert ran(run(*TWO_AT_A_TIME, cwd=fresh), values=True) == set(stages)
        commit(fresh)
        link(fresh / ".dvc/cache", folder / "cache")
        shutil.copy(fresh / "dvc.lock", folder)

    return made_once(tmp_path_factory, "graph", make)


def commit(folder: Path) -> None:
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", "reproduced", cwd=folder)


def link(cache: Path, other: Path) -> None:
    """A cache of DVC's for another clone too; DVC adds to a cache, and changes nothing in it."""
    shutil.copytree(cache, other, copy_function=os.link)


def forget(cache: Path, commands: set[str]) -> None:
    """The runs of these commands: DVC then runs them anew."""
    yaml = YAML(typ="safe")
    for path in cache.glob("runs/*/*/*"):
        if yaml.load(path)["cmd"] in commands:
            shutil.rmtree(path.parent)


def settle(folder: Path) -> None:
    """Whatever a test did to a clone that several share, the next one finds it as it was committed."""
    if (folder / ".git/refs/exps").exists():
        run("dvc", "exp", "remove", "--all-commits", cwd=folder)
    if run("git", "status", "--porcelain", cwd=folder).stdout:
        run("git", "checkout", ".", cwd=folder)
        run("git", "clean", "--force", "-d", "--quiet", cwd=folder)
        run("dvc", "checkout", cwd=folder)
