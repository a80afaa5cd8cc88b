"""The analysis stage, on planted predictions and on the published trials, against independent computations."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import assert_one_line_error, copy_params, published_experiments, run_stages
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency.analyse import analyse_experiment, read_set
from pipeline.consistency.kappa import Design
from pipeline.consistency.pairs import bootstrap, describe, group_means, observer_times, pair_weights
from pipeline.consistency.params import ConsistencySet
from pipeline.consistency.summary import alike_in_accuracy, on_one_another
from pipeline.predictions import write_predictions

PUBLISHED = ["texture-shape_cue-conflict", "texture-shape_edges"]  # of ten: what the tests here need
GROUPS = ConsistencySet(predictions="data/consistency/trials", observers=["kind"], compare="groups")
COUNTERS = ConsistencySet(
    predictions=".", observers=["architecture", "density", "run"], compare="differences", distance="density"
)


def table(name: str, of: str = "trials") -> pd.DataFrame:
    return pd.DataFrame(json.loads(Path(f"plots/consistency/{of}/{name}.json").read_text()))


@pytest.fixture(scope="module")
def analysed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages have run on the published trials."""
    folder = tmp_path_factory.mktemp("analysed")
    mirror = published_experiments(folder / "mirror", *PUBLISHED)
    copy_params(folder, source="published", **{"scales.smoke.consistency.resamples": 300})
    named = ("--name", "trials")
    stages = ("consistency.collect",), ("consistency.analyse", *named), ("consistency.figures", *named)
    run_stages(folder, *stages, STUDIES_MIRROR=str(mirror))
    return folder


@pytest.fixture
def analysed(analysed_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(analysed_once)
    return analysed_once


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_published_groups_and_pairs_are_those_of_scikit_learn(analysed, experiment):
    trials = read_set(GROUPS)
    trials = trials[trials["experiment"] == experiment]
    tables = analyse_experiment(trials, GROUPS, resamples=50, seed=0)
    rows = trials.astype({"observer": str, "image": str, "kind": str})
    correct = rows.pivot_table(index="observer", columns="image", values="correct", aggfunc="sum").astype(int)
    kind = rows.drop_duplicates("observer").set_index("observer")["kind"]
    reported = {frozenset((row.first, row.second)): row.kappa for row in tables["pairs"].itertuples()}
    assert len(reported) == 595
    kappas: dict[str, list[float]] = {}
    for a, b in combinations(correct.index, 2):
        kappa = cohen_kappa_score(correct.loc[a], correct.loc[b])
        assert reported[frozenset((a, b))] == pytest.approx(kappa, abs=1e-12)
        kappas.setdefault(" - ".join(sorted((kind[a], kind[b]))), []).append(kappa)
    groups = tables["groups"].set_index("pair")
    assert set(groups.index) == set(kappas)
    for pair, wanted in kappas.items():
        assert groups.loc[pair, "kappa"] == pytest.approx(np.mean(wanted), abs=1e-12)
        assert groups.loc[pair, "pairs"] == len(wanted)

    # and what is written is what was computed
    written = table("groups")
    written = written[written["experiment"] == experiment].set_index("pair")
    for pair in kappas:
        row = written.loc[pair]
        assert row["kappa"] == pytest.approx(groups.loc[pair, "kappa"], abs=1e-6)
        assert row["kappa_low"] < row["kappa"] < row["kappa_high"]
        if row["pairs"] > 3:  # observers resampled too: a statement about more than these observers
            assert row["kappa_high_observers"] - row["kappa_low_observers"] > row["kappa_high"] - row["kappa_low"]


def test_published_claims_as_they_fall_out(analysed):
    """Statements of papers/error-consistency.md, and numbers that the authors printed."""
    metrics = json.loads(Path("metrics/consistency/trials.json").read_text())
    conflict, edges = metrics["texture-shape_cue-conflict"], metrics["texture-shape_edges"]
    for experiment in (conflict, edges):
        groups = experiment["groups"]
        assert groups["cnn - person"]["kappa"] < 0.1  # 'close to zero'
        assert groups["person - person"]["kappa"] > 0.3
        gap = experiment["gap_to_people"]
        assert (gap["networks"], gap["kappa_of_people"]) == (16, groups["person - person"]["kappa"])
        mean = groups["person - person"]["kappa"] - groups["cnn - person"]["kappa"]
        assert min(gap["gap_least"], gap["gap_most"]) < mean < max(gap["gap_least"], gap["gap_most"])
        assert gap["closed_low"] < gap["closed"] < gap["closed_high"]
        assert groups["cnn - cnn"]["kappa_low"] > groups["person - person"]["kappa"]  # 'exceptionally high'
    assert edges["most_consistent"]["cnn - cnn"]["observers"] == "densenet121, resnet18"
    assert conflict["most_consistent"]["cnn - cnn"]["observers"] != "densenet121, resnet18"
    pairs = table("pairs")
    for name, experiment in (("cue-conflict", conflict), ("edges", edges)):
        rows = pairs[(pairs["experiment"] == f"texture-shape_{name}") & (pairs["pair"] == "cnn - cnn")]
        assert experiment["least_consistent"]["cnn - cnn"]["kappa"] == rows["kappa"].min()
    networks = table("imagenet")
    assert (networks["kappa_with_people_low"] < networks["kappa_with_people"]).all()
    assert (networks["kappa_with_people"] < networks["kappa_with_people_high"]).all()
    recurrent = conflict["watched"]["cornet-s - resnet50"]
    assert recurrent["kappa"] == pytest.approx(0.711, abs=5e-4)
    assert recurrent["above_share_of_pairs_within"]["cnn"] > 0.9


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_published_points_of_cornet_and_resnet_lie_on_one_another_as_scikit_learn_has_them(analysed, experiment):
    trials = read_set(GROUPS)
    rows = trials[trials["experiment"] == experiment].astype({"observer": str, "image": str})
    correct = rows.pivot_table(index="observer", columns="image", values="correct", aggfunc="sum").astype(int)
    accuracy = correct.mean(axis=1)
    people = [name for name in correct.index if name.startswith("subject")]

    def point(network: str, person: str) -> tuple[float, float]:
        both = accuracy[network] * accuracy[person] + (1 - accuracy[network]) * (1 - accuracy[person])
        return both, cohen_kappa_score(correct.loc[network], correct.loc[person])

    apart = [np.abs(np.subtract(point("cornet-s", name), point("resnet50", name))).max() for name in people]
    found = json.loads(Path("metrics/consistency/trials.json").read_text())[experiment]["watched"]
    expected = {"people": 10, "share": np.mean(np.array(apart) <= 0.01), "identical": 0, "apart_most": max(apart)}
    assert found["cornet-s - resnet50"]["on_one_another"] == pytest.approx(expected, abs=1e-6)


def pairs_of(*rows: tuple) -> pd.DataFrame:
    columns = ["first", "second", "pair", "accuracy_first", "accuracy_second", "expected", "kappa"]
    return pd.DataFrame(rows, columns=columns).assign(experiment="x")


def test_points_lie_on_one_another_where_neither_coordinate_is_far():
    kinds = {"cnn": "cnn - person", "rnn": "person - recurrent cnn"}
    points = {  # by person: expected and kappa of either network
        "anna": ((0.40, 0.10), (0.40, 0.10)),  # the very same
        "bela": ((0.40, 0.10), (0.405, 0.092)),
        "carl": ((0.40, 0.10), (0.42, 0.10)),  # expected agreement is another
        "dora": ((0.40, 0.10), (0.40, None)),  # undefined: left out
        "zoe": ((0.40, 0.10), (0.40, 0.16)),
    }
    rows = []
    for person, (cnn, rnn) in points.items():
        rows += [("cnn", person, kinds["cnn"], 0.2, 0.8, *cnn), (person, "rnn", kinds["rnn"], 0.8, 0.2, *rnn)]
    rows += [("cnn", "rnn", "cnn - recurrent cnn", 0.2, 0.2, 0.7, 0.9), ("anna", "bela", "person - person", *[0.5] * 4)]
    found = on_one_another("cnn", "rnn", pairs_of(*rows))
    assert found == {"people": 4, "share": 0.5, "identical": 1, "apart_most": pytest.approx(0.06)}
    assert on_one_another("cnn", "rnn", pairs_of(*rows[-2:])) is None


def test_of_pairs_alike_in_accuracy_the_least_consistent_by_hand():
    table = pairs_of(
        ("a", "b", "", 0.70, 0.71, 0.6, 0.5),
        ("a", "c", "", 0.70, 0.60, 0.6, -0.9),  # accuracies differ by 10 points
        ("a", "d", "", 0.70, 0.68, 0.6, -0.1),
        ("b", "d", "", 0.71, 0.70, 0.6, None),
        ("c", "d", "", 0.60, 0.61, 0.6, 0.3),
    )
    drawn = np.tile([-0.1, 0.0, 0.1], (5, 1)).T  # standard deviation 0.1, everywhere
    (row,) = alike_in_accuracy(table, drawn).to_dict("records")
    reach = 0.1 * norm.ppf(1 - 0.025 / 3)  # one of three
    assert row.items() >= {"observers": "a, d", "of": 3, "accuracy_first": 0.70, "accuracy_second": 0.68}.items()
    assert (row["kappa"], row["low"], row["high"]) == pytest.approx((-0.1, -0.1 - reach, -0.1 + reach))
    assert alike_in_accuracy(table.iloc[[1]], drawn[:, [1]]).empty


def test_the_least_of_many_alike_pairs_is_not_taken_for_less_than_it_is():
    """Thirty pairs of kappa 0.3, each measured with an error: by itself, the lowest would lie below 0.3."""
    rng = np.random.default_rng(0)
    held = alone = 0
    for _ in range(200):
        table = pairs_of(*[("a", "b", "", 0.7, 0.7, 0.6, kappa) for kappa in rng.normal(0.3, 0.05, 30)])
        row = alike_in_accuracy(table, rng.normal(0, 0.05, (400, 30))).iloc[0]
        held += row["high"] >= 0.3
        alone += row["kappa"] + 1.96 * 0.05 >= 0.3
    assert alone < 120
    assert held >= 185  # 97.5% of 200 is promised; its standard error is 2.2


def test_without_images_whose_cues_agree(analysed):
    pairs = table("pairs")
    counts = pairs.groupby("experiment")["trials"].unique()
    assert counts["texture-shape_cue-conflict"].tolist() == [1280]
    assert counts["texture-shape_cue-conflict (cues differ)"].tolist() == [1200]


def test_experiments_are_summed_up_but_the_same_trials_count_once(analysed):
    means = json.loads(Path("metrics/consistency/trials.json").read_text())["together"]
    people = means["person - person"]
    assert (people["experiments"], set(people["of"])) == (2, set(PUBLISHED))
    assert people["low"] < people["mean"] < people["high"]
    groups = table("groups").set_index(["experiment", "pair"])["kappa"]
    for experiment, of in people["of"].items():  # pairs weigh differently there
        assert of["value"] == pytest.approx(groups[experiment, "person - person"], abs=0.05)
    assert means["gap closed"]["experiments"] == 2


def test_figures_are_there(analysed):
    names = {path.name for path in Path("plots/consistency_figures/trials").iterdir()}
    assert names == {
        "agreement.png",
        "forest.png",
        "kappa_by_accuracy.png",
        "kappa_by_imagenet.png",
        "matrix.png",
        "recurrent.png",
    }


def network_trials(observer: str, correct: list[bool | None], condition: str, **described: object) -> pd.DataFrame:
    images = [f"{i:03d}" for i in range(len(correct))]
    answer = pd.array(correct, dtype="boolean")
    rows = {"observer": observer, "condition": condition, "image": images, "category": "circle", "response": "circle"}
    return pd.DataFrame({**rows, "correct": answer, **described})


@pytest.fixture
def counters(workspace: Callable[..., Path]) -> Path:
    """Three densities, two runs, another architecture; a hard condition, and an easy one that all get right."""
    folder = workspace()
    rng = np.random.default_rng(0)
    base = rng.random(200) < 0.5
    observers = {
        "M10": ("resnet18", 10, 0, base),
        "M50": ("resnet18", 50, 0, np.where(rng.random(200) < 0.2, ~base, base)),
        "M90": ("resnet18", 90, 0, ~base),
        "resnet18-50-run1": ("resnet18", 50, 1, base),
        "regnet-50-run1": ("regnet", 50, 1, base),
    }
    for name, (architecture, density, run, correct) in observers.items():
        described = {"architecture": architecture, "density": density, "run": run}
        hard = network_trials(name, correct.tolist(), "margins/hard", **described)
        easy = network_trials(name, [True] * 200, "margins/easy", **described)
        ties = network_trials(name, [None] * 3, "margins/ties", **described)
        other = network_trials(name, [True] * 5, "test/density-50", **described)
        group = "paper" if name.startswith("M") else "variants"
        write_predictions(f"data/shapes/predictions/{group}/{name}.parquet", pd.concat([hard, easy, ties, other]))
    return folder


def test_counters_are_compared_by_what_they_differ_in(counters, run_stage):
    result = run_stage("consistency.analyse", "--name", "counters")
    assert result.returncode == 0, result.stderr
    pairs = table("pairs", "counters").set_index(["first", "second"])
    label = {frozenset(key): row["pair"] for key, row in pairs.iterrows()}
    assert label[frozenset(("M10", "M90"))] == "other density"
    assert label[frozenset(("M50", "resnet18-50-run1"))] == "other run"
    assert label[frozenset(("M50", "regnet-50-run1"))] == "other architecture"
    assert label[frozenset(("M10", "regnet-50-run1"))] == "other architecture and density"
    assert (pairs["trials"] == 400).all()  # the test set and the ties are left out

    # opposites on the hard condition, both right on the easy one: kappa is -1 within, and hidden by pooling
    opposite = next(row for key, row in pairs.iterrows() if set(key) == {"M10", "M90"})
    assert opposite["kappa_within"] == pytest.approx(-1, abs=0.05)
    assert opposite["kappa"] > -0.5

    within = pairs.groupby("pair")["kappa_within"].mean()
    groups = table("groups", "counters").set_index("pair")
    apart = groups["from_repetition"].dropna()  # of two observers' pairs there is no interval, so no difference
    assert set(apart.index) == {"other architecture", "other architecture and density", "other density"}
    for label, value in apart.items():
        assert value == pytest.approx(within[label] - within["other run"], abs=2e-6)
        assert groups.loc[label, "from_repetition_low"] <= groups.loc[label, "from_repetition_high"]

    metrics = json.loads(Path("metrics/consistency/counters.json").read_text())
    assert metrics["trials_without_a_right_answer"] == 15
    accurate = (pairs["accuracy_first"] - pairs["accuracy_second"]).abs() <= 0.02
    alike = metrics["margins"]["alike_in_accuracy"]
    assert (alike["of"], alike["kappa"]) == (accurate.sum(), pairs.loc[accurate, "kappa"].min())
    conditions = table("conditions", "counters")
    easy = conditions[conditions["condition"] == "easy"]
    assert easy["kappa"].isna().all()
    assert easy["undefined"].sum() == 10
    assert metrics["margins"]["undefined"] == 0

    assert run_stage("consistency.figures", "--name", "counters").returncode == 0
    assert Path("plots/consistency_figures/counters/conditions.png").exists()


def test_the_same_seed_gives_the_same_bytes(counters, run_stage):
    seen = []
    for _ in range(2):
        assert run_stage("consistency.analyse", "--name", "counters").returncode == 0
        paths = [*Path("plots").rglob("*.json"), *Path("metrics").rglob("*.json")]
        seen.append({path: path.read_bytes() for path in paths})
    assert seen[0] == seen[1]


def test_distances_are_of_the_attribute_named(counters):
    trials = pd.concat(map(pd.read_parquet, Path("data").rglob("*.parquet")))
    observers = describe(trials, COUNTERS)
    names = observers.names
    for label, distance, i, j in zip(
        observers.labels, observers.distances, *np.triu_indices(len(names), k=1), strict=True
    ):
        density = observers.table["density"]
        assert distance == abs(density[i] - density[j])
        assert ("density" in label) == (distance > 0)


def test_bootstrap_intervals_cover_about_as_often_as_they_claim():
    rng = np.random.default_rng(3)
    planted, covered = 0.36, 0
    for _ in range(100):
        shared = rng.random(400) < 0.7
        own = [np.where(rng.random(400) < 0.4, rng.random(400) < 0.7, shared) for _ in range(2)]
        drawn = bootstrap([Design(np.stack(own))], np.ones((1, 1)), 200, rng)
        low, high = np.quantile(drawn.kappa, [0.025, 0.975])
        covered += low <= planted <= high
    assert 87 <= covered <= 100


def test_group_means_leave_out_undefined_pairs():
    values = np.array([[0.2, np.nan, 0.6], [np.nan, np.nan, 1.0]])
    membership = np.array([[1, 0], [1, 0], [0, 1]], float)
    means = group_means(values, membership)
    assert means[0] == pytest.approx([0.2, 0.6])
    assert np.isnan(means[1, 0])
    assert means[1, 1] == 1


def test_observers_are_resampled_within_their_groups():
    trials = pd.DataFrame({"observer": list("abcde"), "kind": ["person"] * 3 + ["cnn"] * 2})
    observers = describe(trials, GROUPS)
    weights = pair_weights(observer_times(observers, 2000, np.random.default_rng(0)))
    assert weights.shape == (2000, 10)
    both_cnn = observers.labels == "cnn - cnn"
    # of two, resampled: each once in half of the cases, else one of them twice and no pair at all
    assert weights[:, both_cnn].mean() == pytest.approx(0.5, abs=0.05)
    between = observers.labels == "cnn - person"
    assert weights[:, between].sum(axis=1) == pytest.approx(6)


def test_one_observer_is_not_enough(workspace, run_stage):
    workspace()
    rows = network_trials("alone", [True, False], "lonely/-", kind="person")
    write_predictions("data/consistency/trials/lonely.parquet", rows)
    result = run_stage("consistency.analyse", "--name", "trials")
    assert_one_line_error(result, "experiment lonely: one observer only, alone")


def test_predictions_without_a_description_of_their_observers_are_named(workspace, run_stage):
    workspace()
    write_predictions("data/consistency/trials/a.parquet", network_trials("a", [True], "x/-"))
    result = run_stage("consistency.analyse", "--name", "trials")
    assert_one_line_error(result, "data/consistency/trials: lacks the columns ['kind']")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("trial", ["consistency.sets has no 'trial', only trials, counters"]),
        ("trials", ["data/consistency/trials: not there; expected a .csv or .parquet file"]),
    ],
)
def test_what_is_missing_is_named(workspace, run_stage, name, parts):
    workspace()
    assert_one_line_error(run_stage("consistency.analyse", "--name", name), *parts)


def test_every_experiment_has_a_chance_band_of_its_own_number_of_trials(workspace, run_stage):
    """A band of another experiment's would be too narrow where trials are few."""
    workspace()
    rng = np.random.default_rng(0)
    numbers = [20, 40, 60, 80, 100, 120]
    for number in numbers:
        answers = [(rng.random(number) < 0.7).tolist() for _ in range(2)]
        rows = [network_trials(f"o{i}", own, f"e{number}/-", kind="cnn") for i, own in enumerate(answers)]
        write_predictions(f"data/consistency/trials/e{number}.parquet", pd.concat(rows))
    assert run_stage("consistency.analyse", "--name", "trials").returncode == 0
    assert sorted(table("band")["trials"].unique()) == numbers


def test_observers_who_share_no_trials_are_undefined_and_counted(workspace, run_stage):
    """As in the noise experiments: networks share their images, each person has its own."""
    workspace()
    rng = np.random.default_rng(0)
    kinds = {"cnn-1": "cnn", "cnn-2": "cnn", "person-1": "person", "person-2": "person"}
    for i, (observer, kind) in enumerate(kinds.items()):
        parts = []
        for condition in ("noise/weak", "noise/strong"):
            part = network_trials(observer, (rng.random(40) < 0.7).tolist(), condition, kind=kind)
            if kind == "person":
                part["image"] = [f"{i}-{image}" for image in part["image"]]
            parts.append(part)
        write_predictions(f"data/consistency/trials/{observer}.parquet", pd.concat(parts))
    result = run_stage("consistency.analyse", "--name", "trials")
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    pairs = table("pairs").set_index("pair")
    assert pairs.loc["cnn - cnn", "trials"] == 80
    assert pairs.loc["cnn - cnn", "kappa"] is not None
    assert (pairs.loc["cnn - person", "trials"] == 0).all()
    assert pairs.loc["cnn - person", "kappa"].isna().all()
    accuracy = table("conditions").set_index("pair")["accuracy"]
    assert accuracy["cnn - person"].isna().all()  # of the trials that both had
    assert accuracy["cnn - cnn"].between(0.5, 0.9).all()
    metrics = json.loads(Path("metrics/consistency/trials.json").read_text())["noise"]
    assert (metrics["pairs"], metrics["undefined"]) == (6, 5)
    assert metrics["groups"]["cnn - person"]["kappa"] is None
    assert run_stage("consistency.figures", "--name", "trials").returncode == 0
