"""Simulated observers with planted strategies, whose error consistency is known: `source: generated`.

An observer follows a strategy: on each trial, the strategy is right or wrong, and the observer does
as it does, except on a share `noise` of the trials, where it draws right or wrong by itself with the
same accuracy. Two followers of one strategy then have kappa = (1 - noise_a) (1 - noise_b) in
expectation (the correlation of two copies with equal marginals), and followers of two independent
strategies 0. Written in the published CSV format, so that both sources pass through the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.consistency.trials import CATEGORIES, COLUMNS, kind_of
from pipeline.shards import item_rng


@dataclass(frozen=True)
class Follower:
    """An observer that follows `strategy` but for a share `noise` of the trials."""

    name: str
    strategy: str
    noise: float


@dataclass(frozen=True)
class Experiment:
    """accuracies: of every strategy, one a condition; the conditions have equally many images."""

    name: str
    observers: tuple[Follower, ...]
    accuracies: dict[str, float]


def _followers(family: str, number: int, strategy: str | None, noise: float) -> tuple[Follower, ...]:
    """Followers simulated-<family>-01, -02, ..; each of a strategy of its own where `strategy` is None."""
    names = [f"simulated-{family}-{i:02d}" for i in range(1, number + 1)]
    return tuple(Follower(name, strategy or name, noise) for name in names)


EXPERIMENTS = (
    Experiment("independent", _followers("independent", 8, None, 0), {"-": 0.7}),
    Experiment("identical", _followers("twin", 3, "one", 0), {"easy": 0.9, "middling": 0.7, "hard": 0.5}),
    Experiment("copies", tuple(Follower(f"simulated-copy-{i:02d}", "one", i / 10) for i in range(8)), {"-": 0.7}),
    Experiment(
        "two-families",
        _followers("family-a", 6, "a", 0.4) + _followers("family-b", 6, "b", 0.2),
        {"easy": 0.9, "middling": 0.7, "hard": 0.5},
    ),
)


def planted_kappa(a: Follower, b: Follower) -> float:
    """kappa of two observers in expectation, within a condition."""
    return (1 - a.noise) * (1 - b.noise) if a.strategy == b.strategy else 0.0


def planted_means(experiment: Experiment) -> dict[str, float]:
    """Mean of the planted kappas, by what the pairs are ('simulated family a - simulated family b')."""
    kappas: dict[str, list[float]] = {}
    for a, b in combinations(experiment.observers, 2):
        kappas.setdefault(" - ".join(sorted((kind_of(a.name), kind_of(b.name)))), []).append(planted_kappa(a, b))
    return {pair: sum(values) / len(values) for pair, values in kappas.items()}


def write_experiment(folder: Path, experiment: Experiment, trials: int, seed: int) -> None:
    """Write one CSV file an observer into `folder`, in the published format; `trials` images in all."""
    folder.mkdir(parents=True, exist_ok=True)
    conditions = list(experiment.accuracies)
    rng = item_rng(seed, f"consistency/{experiment.name}")
    category = np.resize(np.array(CATEGORIES), trials)
    condition = np.resize(np.repeat(conditions, len(CATEGORIES)), trials)
    accuracy = np.array([experiment.accuracies[name] for name in condition])
    right = {strategy: rng.random(trials) < accuracy for strategy in sorted({o.strategy for o in experiment.observers})}
    for observer in experiment.observers:
        own = item_rng(seed, f"consistency/{experiment.name}/{observer.name}")
        deviates = own.random(trials) < observer.noise
        correct = np.where(deviates, own.random(trials) < accuracy, right[observer.strategy])
        another = (np.searchsorted(CATEGORIES, category) + own.integers(1, len(CATEGORIES), trials)) % len(CATEGORIES)
        table = pd.DataFrame(
            {
                "subj": observer.name,
                "session": 1,
                "trial": range(1, trials + 1),
                "rt": "NaN",
                "object_response": np.where(correct, category, np.array(CATEGORIES)[another]),
                "category": category,
                "condition": np.where(condition == "-", "NaN", condition),
                "imagename": [f"{name}{i + 1}.png" for i, name in enumerate(category)],
            }
        )
        table[COLUMNS].to_csv(folder / f"{experiment.name}_{observer.name}_session-1.csv", index=False)
