"""Files that appear whole or not at all, and errors of one line, on disks that are full or closed."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, assert_one_line_error

from pipeline.stage import UserError, one_line_errors, replacing, write_bytes, write_json


def test_help_has_the_lines_of_the_docstring(tmp_path, run_stage):
    result = run_stage("shapes.remove_bias", "--help", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    lines = (REPOSITORY / "pipeline/shapes/remove_bias.py").read_text().split('"""')[1].strip().splitlines()
    assert "    python -m pipeline.shapes.remove_bias --runs 3 --jobs 2" in lines
    assert "\n".join(lines) in result.stdout


@pytest.mark.parametrize(
    "error",
    [UserError("a table of\n  two lines"), OSError("a table of\n  two lines"), OSError(9999, "a table of\ntwo lines")],
    ids=["mistake", "library's", "system's"],
)
def test_an_error_of_several_lines_is_one(error):
    with pytest.raises(SystemExit) as ended, one_line_errors("study.stage --run 1"):
        raise error
    assert ended.value.code == "error: study.stage --run 1: a table of two lines"


def test_json_has_null_for_what_is_undefined(tmp_path):
    write_json(tmp_path / "m.json", {"a": float("nan"), "b": [np.float64("inf"), np.int64(3)], 50: np.array([0.5])})
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text) == {"a": None, "b": [None, 3], "50": [0.5]}
    assert "NaN" not in text


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_write_left_is_overwritten(tmp_path):
    code = f"""
import os, signal
from pipeline.stage import replacing
with replacing({str(tmp_path / "a.json")!r}) as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not (tmp_path / "a.json").exists()
    write_bytes(tmp_path / "a.json", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"whole"


def test_errors_name_the_target_not_the_temporary_file(tmp_path):
    with pytest.raises(OSError) as error, replacing(tmp_path / "a.json") as partial:
        raise OSError(errno.ENOSPC, "No space left on device", str(partial))
    assert error.value.filename == str(tmp_path / "a.json")


def test_a_file_size_limit_stops_a_stage_and_leaves_nothing(workspace, run_stage):
    folder = workspace(**{"scales.smoke.shapes.images": 400})
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    result = run_stage("shapes.generate", "--density", 10, preexec=limit)
    assert_one_line_error(result, "data/shapes/train/density-10.tar: File too large", "ulimit -f")
    assert not [path for path in folder.rglob("*") if path.is_file() and path.name != "params.yaml"]


def test_a_full_disk_stops_a_stage_and_leaves_nothing(workspace, run_stage):
    folder = workspace(**{"scales.smoke.shapes.images": 1000})
    (folder / "data").mkdir()
    mount = "mount -t tmpfs -o size=64k tmpfs data"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root on Linux)")
    after = 'status=$?; find data -type f >&2; exit "$status"'  # the mount is gone with its namespace
    wrap = ("unshare", "--mount", "sh", "-c", f'{mount} && "$@"; {after}', "sh")
    result = run_stage("shapes.generate", "--density", 10, wrap=wrap)
    assert_one_line_error(result, "data/shapes/train/density-10.tar: No space left on device", "free some space")


@pytest.mark.parametrize(
    ("module", "folder", "target"),
    [
        ("shapes.generate", "data/shapes/train", "data/shapes/train/density-10.tar"),
        ("shapes.train", "models/shapes/paper", "models/shapes/paper/M10-run0.safetensors"),
    ],
)
def test_a_read_only_folder_stops_a_stage(workspace, run_stage, unprivileged, module, folder, target):
    root = workspace()
    if module != "shapes.generate":
        assert run_stage("shapes.generate", "--density", 10).returncode == 0
        assert run_stage("shapes.margin_sets").returncode == 0
    (root / folder).mkdir(parents=True)
    (root / folder).chmod(0o555)
    result = run_stage(module, "--density", 10, preexec=unprivileged)
    assert_one_line_error(result, f"{target}: Permission denied", "make it writable")
    assert not list((root / folder).iterdir())


def test_a_missing_input_is_named(workspace, run_stage):
    workspace()
    result = run_stage("shapes.train", "--density", 10)
    assert_one_line_error(result, "data/shapes/train/density-10.tar: No such file", "'dvc repro' makes what is missing")
