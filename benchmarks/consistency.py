"""Kappas of all pairs with bootstrap intervals, against a loop over pairs.

    python -m benchmarks.consistency

35 observers and 1,280 trials, as in the published cue-conflict experiment: 595 pairs, 10,000
resamples. The reference is scikit-learn's cohen_kappa_score for each pair of each resample; as that
would take the better part of an hour, it is timed on a few resamples and its time is scaled up. The
two take turns; the ratio is that of the medians.
"""

from __future__ import annotations

from itertools import combinations
from statistics import median

import numpy as np
from sklearn.metrics import cohen_kappa_score

from benchmarks.common import seconds
from pipeline.consistency.kappa import Design
from pipeline.consistency.pairs import bootstrap

OBSERVERS, TRIALS, RESAMPLES = 35, 1280, 10_000
LOOPED, ROUNDS = 2, 3


def loop(correct: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kappas = []
    for _ in range(LOOPED):
        trials = rng.integers(TRIALS, size=TRIALS)
        pairs = combinations(correct[:, trials], 2)
        kappas.append([cohen_kappa_score(a, b) for a, b in pairs])
    return np.array(kappas)


def main() -> None:
    rng = np.random.default_rng(0)
    shared = rng.random(TRIALS) < 0.5
    deviates = rng.random((OBSERVERS, TRIALS)) < 0.4
    correct = np.where(deviates, rng.random((OBSERVERS, TRIALS)) < 0.5, shared)
    pairs = OBSERVERS * (OBSERVERS - 1) // 2
    times: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(ROUNDS):
        times["ours"].append(
            seconds(lambda: bootstrap([Design(correct)], np.ones((pairs, 1)), RESAMPLES, np.random.default_rng(1)))
        )
        times["loop"].append(seconds(lambda: loop(correct, np.random.default_rng(1))) * RESAMPLES / LOOPED)
    ours, reference = median(times["ours"]), median(times["loop"])
    print(f"{pairs} pairs of {OBSERVERS} observers, {TRIALS:,} trials, {RESAMPLES:,} resamples, {ROUNDS} rounds")
    print(f"  ours                                 {ours:>10.2f} s")
    print(f"  loop over cohen_kappa_score (scaled) {reference:>10.2f} s")
    print(f"  ratio {reference / ours:,.0f}x")


if __name__ == "__main__":
    main()
