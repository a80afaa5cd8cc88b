"""Does the gap between networks and people close with networks' performance (papers/error-consistency.md)?

The document's plot has networks' ImageNet accuracy along one axis. The trials have it not; torchvision publishes it
with the weights that the paper's sixteen networks had.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from pipeline.consistency.kappa import interval
from pipeline.consistency.pairs import Observers

# fmt: off
IMAGENET_TOP5 = {  # of the weights IMAGENET1K_V1, from torchvision 0.26; a test compares them
    "alexnet": 0.79066, "vgg11-bn": 0.8981, "vgg13-bn": 0.90374, "vgg16-bn": 0.91516, "vgg19-bn": 0.91842,
    "squeezenet1-0": 0.8042, "squeezenet1-1": 0.80624, "inception-v3": 0.9345,
    "densenet121": 0.91972, "densenet169": 0.92806, "densenet201": 0.9337,
    "resnet18": 0.89078, "resnet34": 0.9142, "resnet50": 0.92862, "resnet101": 0.93546, "resnet152": 0.94046,
}
# fmt: on
NETWORK, PERSON = "cnn", "person"
LEAST = 4  # networks, and people, for a statement about them


def networks_and_people(observers: Observers) -> tuple[np.ndarray, np.ndarray]:
    """Places of the networks whose ImageNet accuracy is known, and of the people."""
    known = np.isin(observers.names, list(IMAGENET_TOP5)) & (observers.group == NETWORK)
    return np.flatnonzero(known), np.flatnonzero(observers.group == PERSON)


def closing(observers: Observers, kappa: np.ndarray, drawn: np.ndarray, times: np.ndarray) -> dict | None:
    """How much of the gap to people is closed from the least to the most accurate network.

    The gap of a network is the mean kappa of two people minus its own mean kappa with people; over networks, a line by
    least squares against ImageNet accuracy (top-5).

    Args:
        kappa: [pairs], in the order of np.triu_indices. drawn: [resamples, pairs], the same of resampled trials.
        times: [resamples, observers], how often each observer was drawn.

    Returns how many 'networks'; 'kappa_of_people'; 'accuracy_least', 'accuracy_most' and 'gap_least', 'gap_most' there,
    on the line; 'closed' (1 minus the latter over the former: 1 where no gap is left, below 0 where it widens) and
    'spearman' (of accuracy with kappa with people), both with '_low' and '_high', 95% over trials, networks and
    people. None where there are fewer than four networks or people.
    """
    networks, people = networks_and_people(observers)
    if min(len(networks), len(people)) < LEAST:
        return None
    accuracy = np.array([IMAGENET_TOP5[name] for name in observers.names[networks]])
    once = np.ones((1, len(observers.names)))
    between, among = _with_people(kappa[None], once, networks, people)
    gaps = _line(accuracy, among[:, None] - between, once[:, networks])[0]
    drawn_between, drawn_among = _with_people(drawn, times, networks, people)
    drawn_gaps = _line(accuracy, drawn_among[:, None] - drawn_between, times[:, networks])
    closed_low, closed_high = interval(1 - drawn_gaps[:, 1] / drawn_gaps[:, 0])
    rho_low, rho_high = interval(_weighted_spearman(accuracy, drawn_between, times[:, networks]))
    return {
        "networks": len(networks),
        "kappa_of_people": float(among[0]),
        "accuracy_least": float(accuracy.min()),
        "accuracy_most": float(accuracy.max()),
        "gap_least": float(gaps[0]),
        "gap_most": float(gaps[1]),
        "closed": float(1 - gaps[1] / gaps[0]),
        "closed_low": float(closed_low),
        "closed_high": float(closed_high),
        "spearman": float(_weighted_spearman(accuracy, between, once[:, networks])[0]),
        "spearman_low": float(rho_low),
        "spearman_high": float(rho_high),
    }


def by_imagenet_accuracy(observers: Observers, kappa: np.ndarray, drawn: np.ndarray, times: np.ndarray) -> pd.DataFrame:
    """A row a network: its ImageNet accuracy, its mean kappa with people [pairs], and that of two people beside it.

    '_low' and '_high' are 95% over trials and people, as in `closing`.
    """
    networks, people = networks_and_people(observers)
    between, among = _with_people(kappa[None], np.ones((1, len(observers.names))), networks, people)
    low, high = interval(_with_people(drawn, times, networks, people)[0])
    names = observers.names[networks]
    return pd.DataFrame(
        {
            "network": names,
            "imagenet_top5": [IMAGENET_TOP5[name] for name in names],
            "kappa_with_people": between[0],
            "kappa_with_people_low": low,
            "kappa_with_people_high": high,
            "kappa_of_people": among[0],
        }
    )


def _with_people(
    kappa: np.ndarray, times: np.ndarray, networks: np.ndarray, people: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean kappa of each network with people [samples, networks], and of two people [samples]."""
    number = times.shape[1]
    place = np.zeros((number, number), int)
    first, second = np.triu_indices(number, k=1)
    place[first, second] = place[second, first] = np.arange(len(first))
    crossed = kappa[:, place[networks][:, people].ravel()].reshape(len(kappa), len(networks), len(people))
    between = _mean(crossed, times[:, None, people])
    a, b = np.triu_indices(len(people), k=1)
    among = _mean(kappa[:, place[people[a], people[b]]], times[:, people[a]] * times[:, people[b]])
    return between, among


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the last axis; undefined values are left out."""
    weights = np.where(np.isnan(values), 0, weights)
    total = weights.sum(axis=-1)
    return (np.nan_to_num(values) * weights).sum(axis=-1) / np.where(total > 0, total, np.nan)


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares of each row of y [samples, n] on x [n]: the line at x's least and most, [samples, 2]."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    mean_x = weights @ x
    mean_y = (weights * y).sum(axis=1)
    off = x - mean_x[:, None]
    spread = (weights * off**2).sum(axis=1)
    slope = (weights * off * y).sum(axis=1) / np.where(spread > 0, spread, np.nan)
    return mean_y[:, None] + slope[:, None] * (np.array([x.min(), x.max()]) - mean_x[:, None])


def _weighted_spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation of x [n] with each row of y [samples, n], each place taken as often as it was drawn."""
    result = np.full(len(y), np.nan)
    for i, (row, times) in enumerate(zip(y, weights.astype(int), strict=True)):
        ranks = rankdata(np.repeat(x, times)), rankdata(np.repeat(row, times))
        if all(len(np.unique(rank)) > 1 for rank in ranks):
            result[i] = np.corrcoef(*ranks)[0, 1]
    return result
