"""The summary over experiments: a published meta-analysis, two experiments by hand, planted observers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from matplotlib.image import imread
from scipy.optimize import brentq
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency import overall
from pipeline.consistency.forest import forest
from pipeline.consistency.overall import EFFECTS, GAP, combine, experiment_effects, together
from pipeline.consistency.table import RECORDED, lines, main
from pipeline.stage import UserError

# BCG vaccine against tuberculosis (Colditz et al., 1994; metafor's dat.bcg): with it ill, well; without it ill, well
BCG = """4 119 11 128; 6 300 29 274; 3 228 11 209; 62 13536 248 12619; 33 5036 47 5761; 180 1361 372 1079; 8 2537 10 619
; 505 87886 499 87892; 29 7470 45 7232; 17 1699 65 1600; 186 50448 141 27197; 5 2493 3 2338; 27 16886 29 17825"""


def bcg() -> tuple[np.ndarray, np.ndarray]:
    """Log risk ratios and their variances."""
    a, b, c, d = np.array([trial.split() for trial in BCG.split(";")], float).T
    return np.log(a / (a + b) * (c + d) / c), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_a_published_meta_analysis():
    """As metafor prints it: Q and I^2; with DerSimonian and Laird's variance, knha: -0.7141 [-1.1078, -0.3204]."""
    effect, variance = bcg()
    assert effect[:3] == pytest.approx([-0.8893, -1.5854, -1.3481], abs=5e-5)  # as in its documentation
    assert variance[:3] == pytest.approx([0.3256, 0.1946, 0.4154], abs=5e-5)
    found = combine(effect, np.sqrt(variance))
    assert found["experiments"] == 13
    assert found["q"] == pytest.approx(152.2330, abs=5e-5)
    assert found["i2"] == pytest.approx(0.9212, abs=5e-5)
    # another variance between trials (0.3088 there, 0.3132 by REML) moves the third decimal
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((-0.7141, -1.1078, -0.3204), abs=0.0015)

    def spread(tau2: float) -> float:
        """Paule and Mandel: weighted squares about the mean come to the degrees of freedom, 12."""
        weight = 1 / (variance + tau2)
        mean = np.average(effect, weights=weight)
        return (weight * (effect - mean) ** 2).sum() - 12

    assert found["tau2"] == pytest.approx(brentq(spread, 0, 5), abs=1e-6)


def test_two_experiments_by_hand():
    # Q = (0.01 + 0.01) / 0.01 = 2 with 1 degree of freedom; 0.02 / (0.01 + tau2) = 1; Student's t of 1: 12.706
    found = combine(np.array([0.2, 0.4]), np.array([0.1, 0.1]))
    assert found["q"] == pytest.approx(2)
    assert found["tau2"] == pytest.approx(0.01)
    assert found["i2"] == pytest.approx(0.5)
    reach = 12.7062 * 0.1
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach), abs=1e-4)


def test_experiments_that_agree_by_luck_do_not_narrow_the_interval():
    found = combine(np.array([0.3, 0.3, 0.3]), np.array([0.1, 0.1, 0.2]))
    error = (1 / (1 / 0.01 + 1 / 0.01 + 1 / 0.04)) ** 0.5  # as if the three were one
    assert (found["tau2"], found["i2"], found["q"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found["high"] - found["low"] == pytest.approx(2 * 4.3027 * error, rel=1e-4)


@pytest.mark.parametrize(("values", "errors"), [([0.1], [0.1]), ([0.1, np.nan], [0.1, 0.1]), ([0.1, 0.2], [0.1, 0])])
def test_what_cannot_be_combined_is_refused(values, errors):
    with pytest.raises(ValueError, match="two or more finite effects with standard errors above 0"):
        combine(np.array(values), np.array(errors))


def rows(answers: dict[str, str], condition: str = "-") -> pd.DataFrame:
    """A row a trial; '1' right, '0' wrong, ' ' not had."""
    return pd.DataFrame(
        [
            {"observer": name, "condition": condition, "image": f"{i:04d}", "correct": answer == "1"}
            for name, own in answers.items()
            for i, answer in enumerate(own)
            if answer != " "
        ]
    )


KINDS = {"a": "person", "b": "person", "c": "person", "d": "person", "n": "cnn", "m": "cnn", "l": "cnn", "x": "bagnet"}


def of(trials: pd.DataFrame) -> pd.Series:
    names = trials["observer"].unique()
    return experiment_effects(trials, {name: KINDS[name] for name in names}).set_index("effect")["value"]


def test_kappas_by_hand():
    trials = rows({"a": "1100", "b": "1100", "c": "1010", "n": "0101", "x": "1111"})
    # chance is 1/2 for every pair. Beyond it: a b 1/2, a c 0, b c 0; n a 0, n b 0, n c -1/2. The bagnet is neither
    found = of(trials)
    assert list(found.index) == EFFECTS[:3]  # one network makes no pair of two
    assert found.tolist() == pytest.approx([0.5 / 1.5, -0.5 / 1.5, 1 / 1.5])


def test_trials_that_only_one_had_tell_its_accuracy():
    """Two shared trials, both right: no disagreement, but kappa is 1 only beyond what accuracies make likely."""
    trials = rows({"a": "1110  ", "b": "11  10", "c": "110 1 "})
    # accuracies 3/4, 3/4, 3/4; chance 5/8. Agreed of common: a b 2 of 2, a c 2 of 3, b c 3 of 3
    assert of(trials)["person - person"] == pytest.approx((7 - 8 * 5 / 8) / (8 * 3 / 8))


def test_a_hard_and_an_easy_condition_alone_make_nobody_alike():
    rng = np.random.default_rng(0)
    people, parts = "abcd", []
    for condition, accuracy in (("easy", 0.95), ("hard", 0.1)):
        answers = {name: "".join("01"[int(r)] for r in rng.random(800) < accuracy) for name in people}
        parts.append(rows(answers, condition))
    trials = pd.concat(parts)
    assert abs(of(trials)["person - person"]) < 0.05
    assert of(trials.assign(condition="-", image=trials["condition"] + trials["image"]))["person - person"] > 0.6


def observers(rng: np.random.Generator, trials: int, copying: float) -> dict[str, str]:
    """Four people and three networks, each of an accuracy of its own, who copy their kind's answers on some trials."""
    answers = {}
    for kind in ("person", "cnn"):
        shared = rng.random(trials)
        for name in (name for name, its in KINDS.items() if its == kind):
            own = np.where(rng.random(trials) < copying, shared, rng.random(trials))
            answers[name] = "".join("01"[int(right)] for right in own < rng.normal(0.65, 0.03))
    return answers


@pytest.mark.parametrize("at_once", [overall.AT_ONCE, 7 * 7**2])  # of seven observers: 7, 7, 7, 7 and 2 images
def test_the_standard_error_is_that_of_leaving_out_one_image_person_or_network(monkeypatch, at_once):
    """Put together here from as many smaller experiments; pairs' kappas by scikit-learn, where all had all trials."""
    monkeypatch.setattr(overall, "AT_ONCE", at_once)
    answers = observers(np.random.default_rng(1), 30, 0.6)
    trials = rows(answers)
    found = experiment_effects(trials, KINDS | {"x": "bagnet"}).set_index("effect")
    assert list(found.index) == EFFECTS
    beyond = most = 0.0
    for i, first in enumerate("abcd"):
        for second in "abcd"[:i]:
            kappa = cohen_kappa_score(list(answers[first]), list(answers[second]))
            p, q = (answers[name].count("1") / 30 for name in (first, second))
            chance = p * q + (1 - p) * (1 - q)
            beyond, most = beyond + kappa * (1 - chance), most + 1 - chance
    assert found.loc["person - person", "value"] == pytest.approx(beyond / most)

    variance = 0.0
    for column, kind in (("image", None), ("observer", "person"), ("observer", "cnn")):
        names = trials["image"].unique() if kind is None else [n for n in answers if KINDS[n] == kind]
        left = pd.DataFrame([of(trials[trials[column] != name]) for name in names])
        if kind == "cnn":
            left["person - person"] = left["person - person"].iloc[0]  # no network is in it
        variance = variance + (len(names) - 1) ** 2 / len(names) * left.var(ddof=1)
    for effect in EFFECTS[:3]:  # of the fourth, two networks that are left would be too few
        assert found.loc[effect, "standard_error"] == pytest.approx(variance[effect] ** 0.5), effect


def test_intervals_cover_what_was_planted():
    rng = np.random.default_rng(2)
    values = []
    for _ in range(60):
        trials = rows(observers(rng, 150, 0.5))
        values.append(experiment_effects(trials, KINDS).set_index("effect")[["value", "standard_error"]])
    for effect in ("person - person", "cnn - person"):
        value, error = np.array([[table.loc[effect, c] for c in ("value", "standard_error")] for table in values]).T
        covered = np.abs(value - value.mean()) <= 1.96 * error
        assert covered.mean() >= 0.9, effect
        assert np.median(error) < 2.5 * value.std(ddof=1), effect  # rather too large, but not by much


def test_few_observers_have_fewer_effects():
    two = rows({"a": "1100", "b": "1010", "n": "0101"})
    assert experiment_effects(two, KINDS).empty
    two_networks = rows({"a": "110010", "b": "101010", "c": "100111", "n": "010110", "m": "011100"})
    assert list(of(two_networks).index) == EFFECTS[:3]
    alike = rows({"a": "1100", "b": "1100", "c": "1100"})
    assert experiment_effects(alike, {name: KINDS[name] for name in "abc"}).empty  # without any spread


def test_the_gap_is_an_effect_with_half_its_interval():
    trials = rows(observers(np.random.default_rng(3), 40, 0.5))
    gap = {"closed": 0.1, "closed_low": -0.096, "closed_high": 0.296}
    found = experiment_effects(trials, KINDS, gap).set_index("effect")
    assert found.loc[GAP, "value"] == 0.1
    assert found.loc[GAP, "standard_error"] == pytest.approx(0.1, abs=1e-4)


def table(*values: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(values, columns=["experiment", "effect", "value", "standard_error"])


def test_experiments_are_put_together_effect_by_effect():
    effects = table(("e", EFFECTS[0], 0.2, 0.1), ("f", EFFECTS[0], 0.4, 0.1), ("f", EFFECTS[1], 0.1, 0.1))
    found = together(effects)
    assert list(found) == [EFFECTS[0]]  # of one experiment there is no mean
    assert found[EFFECTS[0]]["mean"] == pytest.approx(0.3)
    assert found[EFFECTS[0]]["of"] == {
        "e": {"value": 0.2, "standard_error": 0.1},
        "f": {"value": 0.4, "standard_error": 0.1},
    }
    assert together(None) == {}


def test_forest(tmp_path: Path):
    assert not forest(tmp_path, pd.DataFrame())
    assert not forest(tmp_path, table(("e", EFFECTS[0], 0.2, 0.1)))
    ten = [(f"experiment-{i}", EFFECTS[0], 0.1 * i - 0.3, 0.05 + 0.05 * i) for i in range(10)]
    gaps = [("experiment-1", GAP, 0.1, 0.2), ("experiment-4", GAP, 0.4, 3.0)]
    assert forest(tmp_path, table(*ten, *gaps))
    height, width, _ = imread(tmp_path / "forest.png").shape
    assert height > 10 * 40  # dots a row
    assert width > 700


def test_the_table_has_a_line_an_experiment_and_the_mean():
    effects = table(("texture-shape_e", EFFECTS[0], 0.2, 0.1), ("f", EFFECTS[0], 0.4, 0.1))
    printed = lines(together(pd.concat([effects, table(("f", GAP, 0.1, 0.2), ("g", GAP, 0.3, 0.2))])))
    assert printed[0] == "| experiment | two people | gap closed |"
    assert printed[2:5] == ["| e | 0.20 ± 0.10 |  |", "| f | 0.40 ± 0.10 | 0.10 ± 0.20 |", "| g |  | 0.30 ± 0.20 |"]
    assert printed[5] == "| mean | 0.30 | 0.20 |"
    assert printed[6].startswith("| 95% interval | -0.97 to 1.57 |")


def test_the_page_has_the_table_that_the_command_prints():
    recorded = json.loads((REPOSITORY / RECORDED).read_text())["together"]
    page = (REPOSITORY / "docs/studies/consistency-together.md").read_text()
    assert "\n".join(lines(recorded)) in page


@pytest.mark.parametrize(
    ("content", "message"), [(None, "trials.json: not there"), ("{}", "trials.json: has no 'together'")]
)
def test_a_file_without_the_summary_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    if content:
        Path("trials.json").write_text(content)
    with pytest.raises(UserError, match=message):
        main("trials.json")
