"""Simulated observers show what was planted."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from pipeline.consistency import error_consistency, read_trials
from pipeline.consistency.simulate import EXPERIMENTS, Experiment, planted_kappa, planted_means, write_experiment


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_kappas_within_a_condition_are_those_planted(experiment: Experiment, tmp_path: Path):
    write_experiment(tmp_path / experiment.name, experiment, trials=30_000, seed=0)
    trials = read_trials(tmp_path)
    for condition, accuracy in experiment.accuracies.items():
        rows = trials[trials["condition"] == f"{experiment.name}/{condition}"]
        correct = {observer: own["correct"].to_numpy() for observer, own in rows.groupby("observer")}
        assert set(correct) == {observer.name for observer in experiment.observers}
        for a, b in combinations(experiment.observers, 2):
            assert correct[a.name].mean() == pytest.approx(accuracy, abs=0.02)
            measured = error_consistency(correct[a.name], correct[b.name]).kappa
            assert measured == pytest.approx(planted_kappa(a, b), abs=0.05)


def test_followers_of_one_strategy_without_noise_give_the_same_answers_and_kappa_is_one(tmp_path: Path):
    twins = next(e for e in EXPERIMENTS if e.name == "identical")
    write_experiment(tmp_path / twins.name, twins, trials=480, seed=0)
    trials = read_trials(tmp_path)
    answers = [own["correct"].to_numpy() for _, own in trials.groupby("observer")]
    assert len(answers) == 3
    for a, b in combinations(answers, 2):
        assert (a == b).all()
        assert 0 < a.mean() < 1
        assert error_consistency(a, b).kappa == 1
    assert planted_means(twins) == {"simulated twin - simulated twin": 1}


def test_planted_means_by_hand():
    copies = next(e for e in EXPERIMENTS if e.name == "copies")
    shares = [1 - i / 10 for i in range(8)]
    wanted = sum(a * b for a, b in combinations(shares, 2)) / 28
    assert planted_means(copies) == {"simulated copy - simulated copy": pytest.approx(wanted)}
    families = next(e for e in EXPERIMENTS if e.name == "two-families")
    assert planted_means(families) == {
        "simulated family a - simulated family a": pytest.approx(0.36),
        "simulated family a - simulated family b": 0,
        "simulated family b - simulated family b": pytest.approx(0.64),
    }


def test_the_same_seed_gives_the_same_files(tmp_path: Path):
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_experiment(tmp_path / name, EXPERIMENTS[0], trials=96, seed=seed)
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1] != contents[2]
