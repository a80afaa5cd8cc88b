"""Two files, one kappa: by hand, as scikit-learn has it, and the same from every format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import HANGS, assert_one_line_error, published_inputs, stage_environment
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency.compare import compare, main
from pipeline.consistency.sets import read_trial_files
from pipeline.predictions import write_predictions
from pipeline.stage import UserError


def answers(observer: str, right: np.ndarray | list, condition: str = "mine/-") -> pd.DataFrame:
    """Planted trials of an observer, in the columns of Parquet."""
    right = np.asarray(right, bool)
    return pd.DataFrame(
        {
            "observer": observer,
            "condition": condition,
            "image": [f"dog{i}.png" for i in range(len(right))],
            "category": "dog",
            "response": np.where(right, "dog", "cat"),
            "correct": right,
        }
    )


def write(path: Path, trials: pd.DataFrame, form: str) -> Path:
    """The same trials in a format."""
    match form:
        case "parquet":
            path = path.with_suffix(".parquet")
            write_predictions(path, trials)
        case "plain":
            path = path.with_suffix(".csv")
            trials[["observer", "image", "correct"]].to_csv(path, index=False)
        case "modelvshuman":
            path = path.with_suffix(".csv")
            rows = trials.rename(
                columns={"observer": "subj", "response": "object_response", "image": "imagename"}
            ).assign(Session=1, trial=range(len(trials)), rt=np.nan, condition=0)
            rows["imagename"] = [f"{i:04d}_sil_s01_0_dog_00_{name}" for i, name in enumerate(rows["imagename"])]
            names = ["subj", "Session", "trial", "rt", "object_response", "category", "condition", "imagename"]
            rows[names].to_csv(path, index=False, na_rep="NaN")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture) -> Callable[..., subprocess.CompletedProcess]:
    """The command with these arguments, in this process."""

    def call(*arguments: object) -> subprocess.CompletedProcess:
        code: object = 0
        try:
            main(list(map(str, arguments)))
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        if isinstance(code, str):  # as sys.exit has it
            code, err = 1, f"{err}{code}\n"
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


# of 100 images both are right on 40, the first only on 20, the second only on 10, neither on 30
FIRST = np.repeat([1, 1, 0, 0], [40, 20, 10, 30])
SECOND = np.repeat([1, 0, 1, 0], [40, 20, 10, 30])


def test_by_hand():
    """Observed 0.7; expected 0.6 x 0.5 + 0.4 x 0.5 = 0.5; kappa (0.7 - 0.5) / (1 - 0.5)."""
    found = compare(answers("a", FIRST), answers("b", SECOND))
    assert (found.trials, found.conditions, found.accuracies) == (100, 1, (0.6, 0.5))
    assert (found.observed, found.expected, found.kappa) == pytest.approx((0.7, 0.5, 0.4))


def test_the_interval_is_that_of_resampled_trials():
    rng = np.random.default_rng(5)
    drawn = rng.integers(100, size=(20_000, 100))
    a, b = FIRST[drawn], SECOND[drawn]
    chance = a.mean(axis=1) * b.mean(axis=1) + (1 - a.mean(axis=1)) * (1 - b.mean(axis=1))
    kappas = ((a == b).mean(axis=1) - chance) / (1 - chance)
    found = compare(answers("a", FIRST), answers("b", SECOND))
    assert (found.low, found.high) == pytest.approx(np.quantile(kappas, [0.025, 0.975]), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_cohens_kappa_of_being_right(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(200) < 0.7, rng.random(300) < 0.4
    first = answers("a", a).sample(frac=1, random_state=seed)
    found = compare(first, answers("b", b))  # of 300 images, the first 200 are shared
    assert found.trials == 200
    assert found.kappa == pytest.approx(cohen_kappa_score(a, b[:200]), abs=1e-12)


@pytest.mark.parametrize("first", ["parquet", "plain", "modelvshuman"])
@pytest.mark.parametrize("second", ["parquet", "plain", "modelvshuman"])
def test_every_format_gives_the_same(tmp_path, first, second):
    files = [
        write(tmp_path / f"{observer}-{form}", answers(observer, right), form)
        for observer, right, form in (("subject-01", FIRST, first), ("resnet50", SECOND, second))
    ]
    found = compare(*map(read_trial_files, files))
    assert (found.trials, found.observed, found.expected) == (100, pytest.approx(0.7), pytest.approx(0.5))
    assert found.kappa == pytest.approx(0.4)


def test_conditions_are_kept_apart_and_their_difficulty_is_taken_off():
    """Both always right in the easy one, independent at one half in the hard one: nothing is left within conditions."""
    easy, hard = np.ones(100), np.repeat([1, 0], 50)
    first = pd.concat([answers("a", easy, "m/easy"), answers("a", hard, "m/hard")])
    second = pd.concat([answers("b", easy, "m/easy"), answers("b", np.tile([1, 0], 50), "m/hard")])
    found = compare(first, second)
    assert (found.trials, found.conditions) == (200, 2)
    assert (found.observed, found.expected) == pytest.approx((0.75, 0.75**2 + 0.25**2))
    assert found.kappa == pytest.approx((0.75 - 0.625) / 0.375)
    assert found.within == pytest.approx(0)


def test_both_always_right_is_undefined():
    found = compare(answers("a", np.ones(20)), answers("b", np.ones(20)))
    assert (found.observed, found.expected) == (1, 1)
    assert (found.kappa, found.low, found.high) == (None, None, None)


def test_trials_without_a_right_answer_are_left_out():
    first = answers("a", FIRST).astype({"correct": object})
    first.loc[0, "correct"] = None
    assert compare(first, answers("b", SECOND)).trials == 99


def test_an_image_under_several_conditions_needs_a_condition_in_both():
    first = pd.concat([answers("a", FIRST, "m/c1"), answers("a", FIRST, "m/c2")])
    with pytest.raises(UserError, match=r"image dog0.png has several trials of a, under c1, c2; .*--condition"):
        compare(first, answers("b", SECOND))


def test_the_command_prints_it(tmp_path, run):
    files = [write(tmp_path / name, answers(name, right), "plain") for name, right in (("a", FIRST), ("b", SECOND))]
    command = [sys.executable, "-m", "pipeline.consistency.compare", *map(str, files)]
    said = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=HANGS)
    assert said.returncode == 0, said.stderr
    lines = [line.split(maxsplit=2) for line in said.stdout.splitlines()]
    assert ["shared", "trials", "100"] in lines
    assert ["observed", "agreement", "0.700"] in lines
    assert ["expected", "agreement", "0.500"] in lines
    assert lines[-1][:2] == ["kappa", "0.400"]
    assert lines[-1][2].startswith("95% [0.2")
    assert run("--first", files[0], "--second", files[1]).stdout == said.stdout


def test_of_several_observers_two_are_chosen(tmp_path, run):
    both = pd.concat([answers("a", FIRST, "m/c1"), answers("b", SECOND, "m/c1"), answers("a", FIRST, "m/c2")])
    path = tmp_path / "all.parquet"
    write_predictions(path, both)
    said = run(path, path, "--observers", "a", "b", "--condition", "c1")
    assert said.returncode == 0, said.stderr
    assert "kappa               0.400" in said.stdout
    assert_one_line_error(run(path, path), str(path), "2 observers, a, b", "--observers FIRST SECOND")
    assert_one_line_error(run(path, path, "--observers", "a", "c"), "'c' is not there", "has a, b")
    assert_one_line_error(run(path, path, "--observers", "a", "b", "--condition", "c3"), "'c3'", "has m/c1, m/c2")


def test_what_is_wrong_is_a_line(tmp_path, run):
    good = write(tmp_path / "a", answers("a", FIRST), "plain")
    other = write(tmp_path / "other", answers("b", SECOND).assign(image="x"), "plain")
    assert_one_line_error(run(good, other), str(other), "answered image x", "twice")
    strange = write(
        tmp_path / "strange", answers("b", SECOND).replace({"image": r"^"}, {"image": "x"}, regex=True), "plain"
    )
    assert_one_line_error(run(good, strange), f"{good}, {strange}: no shared trials", "dog0.png", "xdog0.png")
    assert_one_line_error(run(good, tmp_path / "none.csv"), "none.csv: not there")
    assert run(good).returncode == 2


def test_the_published_pair():
    """0.711, 'ResNet-50 and CORnet-S' on cue-conflict images, as the authors' script prints it."""
    folder = published_inputs() / "error-consistency/texture-shape_cue-conflict"
    names = ("resnet50", "cornet-s")
    found = compare(*(read_trial_files(folder / f"texture-shape_cue-conflict_{name}_session-1.csv") for name in names))
    assert found.trials == 1280
    assert found.kappa == pytest.approx(0.711, abs=5e-4)
