"""Ties half and half, or small margins only, in training: two runs compared by hand, and as two revisions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import assert_one_line_error, copy_params, edit_params, stage_environment
from scipy.stats import ttest_rel
from workflow_helpers import run

from pipeline.shapes.ties import compare
from pipeline.stage import UserError

# shares of 'circle' on margins -2 and 2, of 100 images each, by network: at 10 shapes, at 50
HARD = {10: ((0.1, 0.5), (0.6, 1.0)), 20: ((0.2, 0.6), (0.5, 0.9)), 30: ((0.0, 0.4), (0.4, 0.8))}
SOFT = {10: ((0.2, 0.6), (0.7, 1.0)), 20: ((0.3, 0.9), (0.5, 0.9)), 30: ((0.2, 0.4), (0.3, 0.7))}


def answers(shares: dict) -> pd.DataFrame:
    return pd.DataFrame(
        {"network": network, "density": density, "margin": margin, "circle": share, "images": 100}
        for network, by_density in shares.items()
        for density, by_margin in zip((10, 50), by_density, strict=True)
        for margin, share in zip((-2, 2), by_margin, strict=True)
    )


def test_bias_is_compared_network_by_network():
    found = compare(answers(HARD), answers(SOFT))
    # mean shares of 'circle' at 10 shapes: hard 0.3, 0.4, 0.2; soft 0.4, 0.6, 0.3: from one half 0.2, 0.1, 0.3 and
    # 0.1, 0.1, 0.2. At 50 shapes: 0.8, 0.7, 0.6 and 0.85, 0.7, 0.5, so 0.3, 0.2, 0.1 and 0.35, 0.2, 0.0
    sparse, dense, both = found["density_10"], found["density_50"], found["all"]
    assert sparse["bias"]["hard"]["mean"] == pytest.approx(0.2)
    assert sparse["bias"]["soft"]["mean"] == pytest.approx(0.4 / 3)
    assert sparse["more_circle"]["mean"] == pytest.approx(0.4 / 3)
    assert dense["less_bias"]["mean"] == pytest.approx(0.05 / 3)
    assert dense["more_circle"]["mean"] == pytest.approx(-0.05 / 3)
    hard, soft = [0.25, 0.15, 0.2], [0.225, 0.15, 0.1]
    expected = ttest_rel(hard, soft).confidence_interval(0.95)
    assert both["less_bias"] == pytest.approx(
        {"mean": 0.125 / 3, "low": expected.low, "high": expected.high, "networks": 3}
    )


def test_other_networks_cannot_be_compared():
    with pytest.raises(UserError, match="same networks and densities"):
        compare(answers(HARD), answers({density: SOFT[density] for density in (10, 20)}))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Revision 'main' with hard targets, 'soft' with soft ones, 'longer' with another seed beside, 'small' margins."""
    run("git", "init", "--quiet", "--initial-branch=main", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    run("git", "config", "user.email", "tests@example.org", cwd=tmp_path)
    run("git", "config", "user.name", "tests", cwd=tmp_path)
    copy_params(tmp_path)
    changes = {"main": {}, "soft": {"shapes.target": "soft"}, "longer": {"shapes.target": "soft", "seed": 1}}
    changes["small"] = {"shapes.max_train_margin": 4}
    for revision, change in changes.items():
        if revision != "main":
            run("git", "checkout", "--quiet", "-b", revision, "main", cwd=tmp_path)
        edit_params(tmp_path / "params.yaml", change)
        (tmp_path / "plots/shapes").mkdir(parents=True, exist_ok=True)
        table = answers(SOFT if change else HARD)
        (tmp_path / "plots/shapes/margins.json").write_text(json.dumps(table.to_dict("records")))
        run("git", "add", "--all", cwd=tmp_path)
        run("git", "commit", "--quiet", "--message", revision, cwd=tmp_path)
    run("git", "checkout", "--quiet", "soft", cwd=tmp_path)
    return tmp_path


def compare_revisions(folder: Path, hard: str, soft: str) -> subprocess.CompletedProcess:
    return compare_by("ties", folder, "--hard", hard, "--soft", soft)


def compare_by(module: str, folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"pipeline.shapes.{module}", *options]
    return subprocess.run(command, cwd=folder, env=stage_environment(), capture_output=True, text=True)


def test_two_revisions_or_a_revision_and_the_workspace(repository):
    for soft in ("soft", "workspace"):
        result = compare_revisions(repository, "main", soft)
        assert result.returncode == 0, result.stderr
        found = json.loads((repository / "report/ties.json").read_text())
        assert found["all"]["less_bias"]["mean"] == pytest.approx(0.125 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("hard", "soft", "words"),
    [
        ("soft", "main", ["'soft' and 'hard'", "--hard"]),
        ("main", "longer", ["differ in seed too"]),
        ("main", "nowhere", ["params.yaml at 'nowhere'", "dvc exp list"]),
    ],
)
def test_revisions_that_cannot_be_compared(repository, hard, soft, words):
    assert_one_line_error(compare_revisions(repository, hard, soft), *words)


def test_networks_trained_on_small_margins_are_compared_with_those_trained_on_all(repository):
    result = compare_by("small_margins", repository, "--every", "main", "--small", "small")
    assert result.returncode == 0, result.stderr
    found = json.loads((repository / "report/small-margins.json").read_text())
    assert found["max_train_margin"] == 4
    # the tables are those of HARD and SOFT, by hand above
    assert found["all"]["less_bias"]["mean"] == pytest.approx(0.125 / 3, abs=1e-6)
    bias = found["density_10"]["bias"]
    assert (bias["every"]["mean"], bias["small"]["mean"]) == pytest.approx((0.2, 0.4 / 3), abs=1e-6)


@pytest.mark.parametrize(
    ("every", "small", "words"),
    [
        ("small", "main", ["max_train_margin is 4 and None", "--small"]),
        ("main", "soft", ["max_train_margin is None and None"]),
        ("soft", "small", ["differ in shapes too"]),
    ],
)
def test_revisions_that_do_not_differ_in_small_margins_alone(repository, every, small, words):
    assert_one_line_error(compare_by("small_margins", repository, "--every", every, "--small", small), *words)
