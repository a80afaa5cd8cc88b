"""The gap between networks and people by ImageNet accuracy: planted kappas by hand, NumPy and SciPy on resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from torchvision.models import get_model_weights

from pipeline.consistency.gap import IMAGENET_TOP5, by_imagenet_accuracy, closing
from pipeline.consistency.pairs import Observers
from pipeline.consistency.trials import CNNS

NETWORKS = ["alexnet", "resnet18", "resnet50", "resnet152"]
ACCURACY = np.array([IMAGENET_TOP5[name] for name in NETWORKS])
NAMES = np.array(["a person", *NETWORKS[:2], "bagnet9", *NETWORKS[2:], "b person", "c person", "d person"])
GROUP = np.array([{"bagnet9": "bagnet"}.get(n, "cnn" if n in NETWORKS else "person") for n in NAMES])


def observers(names: np.ndarray = NAMES, group: np.ndarray = GROUP) -> Observers:
    return Observers(pd.DataFrame({"observer": names}), group, np.array([]), None)


def planted(with_people: np.ndarray, of_people: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Kappas of all pairs [pairs]: of each network with every person, of every two people, 0.9 of the others."""
    first, second = np.triu_indices(len(NAMES), k=1)
    kappa = np.full(len(first), 0.9)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        groups, names = {GROUP[a], GROUP[b]}, {NAMES[a], NAMES[b]}
        if groups == {"person"}:
            kappa[i] = of_people
        elif groups == {"cnn", "person"}:
            kappa[i] = with_people[NETWORKS.index((names & set(NETWORKS)).pop())]
    return kappa + np.random.default_rng(seed).normal(0, noise, len(kappa))


def test_accuracies_are_torchvisions():
    assert set(IMAGENET_TOP5) == CNNS
    for name, accuracy in IMAGENET_TOP5.items():
        weights = get_model_weights(name.replace("-", "_")).IMAGENET1K_V1
        assert accuracy == pytest.approx(weights.meta["_metrics"]["ImageNet-1K"]["acc@5"] / 100, abs=1e-9)


@pytest.mark.parametrize(
    ("least", "most", "closed", "order"), [(0.1, 0.25, 0.5, 1), (0.1, 0.1, 0, np.nan), (0.1, 0.07, -0.1, -1)]
)
def test_what_is_closed_by_hand(least, most, closed, order):
    """Two people have kappa 0.4; networks' rises along a line from `least` to `most`: half of a gap of 0.3, ..."""
    along = (ACCURACY - ACCURACY[0]) / (ACCURACY[-1] - ACCURACY[0])
    kappa = planted(least + (most - least) * along, 0.4)
    found = closing(observers(), kappa, np.stack([kappa] * 3), np.ones((3, len(NAMES))))
    assert found["networks"] == 4
    assert found["kappa_of_people"] == pytest.approx(0.4)
    assert found["gap_least"] == pytest.approx(0.4 - least)
    assert found["gap_most"] == pytest.approx(0.4 - most)
    for name in ("closed", "closed_low", "closed_high"):
        assert found[name] == pytest.approx(closed, abs=1e-9)
    assert found["spearman"] == pytest.approx(order, nan_ok=True)
    once = np.ones((3, len(NAMES)))
    table = by_imagenet_accuracy(observers(), kappa, np.stack([kappa - 0.02, kappa, kappa]), once).set_index("network")
    assert table.loc["resnet152", "kappa_with_people"] == pytest.approx(most)
    # of three resamples the percentiles 2.5 and 97.5 lie 5% of the way from the least, and at the most
    assert table.loc["resnet152", "kappa_with_people_low"] == pytest.approx(most - 0.02 * 0.95)
    assert table.loc["resnet152", "kappa_with_people_high"] == pytest.approx(most)
    assert table.loc["alexnet", "imagenet_top5"] == 0.79066


def test_an_observer_who_is_drawn_twice_counts_twice():
    kappa = planted(np.array([0.1, 0.2, 0.15, 0.3]), 0.4, noise=0.05)
    times = np.array([2, 1, 0, 3, 2, 1, 0, 1, 1])  # of a, c, d person: 2, 1, 1; alexnet 1, resnet50 2, resnet152 1
    found = closing(observers(), kappa, kappa[None], times[None])

    between = {}
    first, second = np.triu_indices(len(NAMES), k=1)
    for a, b, value in zip(first, second, kappa, strict=True):
        between[NAMES[a], NAMES[b]] = between[NAMES[b], NAMES[a]] = value
    people = ["a person", "a person", "c person", "d person"]
    drawn = ["alexnet", "resnet50", "resnet50", "resnet152"]
    of_people = np.mean([between[people[i], people[j]] for i in range(4) for j in range(i) if people[i] != people[j]])
    with_people = [np.mean([between[name, person] for person in people]) for name in drawn]
    accuracy = [IMAGENET_TOP5[name] for name in drawn]
    least, most = np.polyval(np.polyfit(accuracy, of_people - np.array(with_people), 1), ACCURACY[[0, -1]])
    assert found["closed_low"] == found["closed_high"] == pytest.approx(1 - most / least)
    assert found["spearman_low"] == pytest.approx(spearmanr(accuracy, with_people).statistic)


def test_undefined_kappas_are_left_out():
    kappa = planted(np.array([0.1, 0.2, 0.15, 0.3]), 0.4)
    expected = closing(observers(), kappa, kappa[None], np.ones((1, len(NAMES))))
    first, second = np.triu_indices(len(NAMES), k=1)
    kappa[(NAMES[first] == "a person") & (NAMES[second] == "resnet18")] = np.nan
    found = closing(observers(), kappa, kappa[None], np.ones((1, len(NAMES))))
    assert found == pytest.approx(expected)


def test_without_known_networks_or_with_few_people_there_is_none():
    kappa = planted(np.zeros(4), 0.4)
    renamed = np.char.add("simulated ", NAMES)
    assert closing(observers(renamed), kappa, kappa[None], np.ones((1, len(NAMES)))) is None
    three = np.where(NAMES == "d person", "bagnet", GROUP)
    assert closing(observers(group=three), kappa, kappa[None], np.ones((1, len(NAMES)))) is None
