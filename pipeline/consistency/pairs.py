"""Pairs of observers: what each pair is, and how its kappa varies when trials and observers are resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.consistency.kappa import Design, expected_within
from pipeline.consistency.params import ConsistencySet
from pipeline.statistics.kappa import cohens_kappa

CHUNK = 500  # resamples held in memory at once
DRAWN = 20_000_000  # trials drawn at once, at most: of more than 40,000 trials, fewer resamples are


@dataclass(frozen=True)
class Observers:
    """The observers of an experiment, and what their pairs are.

    table: one row an observer, its description in columns. group: [observers], what an observer is.
    labels: [pairs], what a pair is, e.g. 'cnn - person' or 'other density'. distances: [pairs], or None.
    """

    table: pd.DataFrame
    group: np.ndarray
    labels: np.ndarray
    distances: np.ndarray | None

    @property
    def names(self) -> np.ndarray:
        return self.table["observer"].to_numpy(str)

    @property
    def membership(self) -> pd.DataFrame:
        """bool [pairs, labels]"""
        return pd.get_dummies(pd.Series(self.labels))


def describe(trials: pd.DataFrame, settings: ConsistencySet) -> Observers:
    """Observers in order of their description and name, and what their pairs are compared by."""
    table = trials[["observer", *settings.observers]].drop_duplicates("observer")
    table = table.assign(**{c: table[c].astype(str) for c in table if table[c].dtype.kind not in "iuf"})
    table = table.sort_values([*settings.observers, "observer"], ignore_index=True)
    described = table[settings.observers].astype(str).to_numpy()
    pairs = np.stack(np.triu_indices(len(table), k=1), axis=1)
    if settings.compare == "groups":
        kinds = described[:, :-1] if len(settings.observers) > 1 else described
        group = np.array([", ".join(row) for row in kinds])
        labels = [" - ".join(sorted(group[pair])) for pair in pairs]
    else:
        group = np.full(len(table), "")
        labels = [_difference(*described[pair], settings.observers) for pair in pairs]
    distances = None
    if settings.distance:
        values = table[settings.distance].to_numpy(float)[pairs]
        distances = np.abs(values[:, 0] - values[:, 1])
    return Observers(table, group, np.array(labels), distances)


def designs(trials: pd.DataFrame, observers: Observers) -> dict[str, Design]:
    """One design a condition, observers in their order, images by name; conditions from the easiest to the hardest."""
    places = {name: place for place, name in enumerate(observers.names)}
    by_condition = {}
    for condition, rows in trials.groupby("condition", observed=True):
        image = rows["image"].astype("category").cat.remove_unused_categories().cat
        observer = rows["observer"].astype("category").cat
        column = np.argsort(image.categories.argsort())[image.codes]
        row = np.array([places.get(str(name), -1) for name in observer.categories])[observer.codes]
        seen = np.zeros((len(places), len(image.categories)), bool)
        correct = seen.copy()
        seen[row, column] = True
        correct[row, column] = rows["correct"].to_numpy(float) == 1
        by_condition[condition] = Design(correct, seen)
    ease = trials.groupby("condition", observed=True)["correct"].mean()
    return {condition: by_condition[condition] for condition in ease.sort_values(ascending=False, kind="stable").index}


def _difference(a: np.ndarray, b: np.ndarray, columns: list[str]) -> str:
    """Which columns differ; the last, a mere repetition, is named only where nothing else does."""
    differ = [column for column, x, y in zip(columns, a, b, strict=True) if x != y]
    if len(differ) > 1 and differ[-1] == columns[-1]:
        differ.pop()
    return "other " + " and ".join(differ)


def repetitions(labels: list[str], settings: ConsistencySet) -> dict[str, list[str]]:
    """For each label of pairs, the labels of pairs that are mere repetitions of its observers, as far as there are any.

    Of pairs by what differs, those where nothing else does: 'other run'. Of pairs by groups, those within either group,
    if the last column that describes an observer is a repetition: of 'a - b', 'a - a' and 'b - b'. A label that is one
    itself has none.
    """
    if len(settings.observers) < 2:
        return {label: [] for label in labels}
    found = {}
    for label in labels:
        if settings.compare == "differences":
            again = {f"other {settings.observers[-1]}"}
        else:
            again = {f"{group} - {group}" for group in label.split(" - ")}
        found[label] = [] if label in again else sorted(again.intersection(labels))
    return found


@dataclass(frozen=True)
class Resamples:
    """kappa, within: [resamples, pairs], of all trials and within conditions.

    by_condition: means over the pairs of each label, [conditions, resamples, labels].
    """

    kappa: np.ndarray
    within: np.ndarray
    by_condition: np.ndarray


def group_means(values: np.ndarray, membership: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Means [..., labels] over the pairs of each label, of values [..., pairs]; undefined pairs are left out."""
    defined = ~np.isnan(values)
    total = (np.where(defined, values, 0) * weights) @ membership
    number = (defined * weights) @ membership
    return total / np.where(number > 0, number, np.nan)


def bootstrap(parts: list[Design], membership: np.ndarray, resamples: int, rng: np.random.Generator) -> Resamples:
    """Resample the trials of each condition."""
    chunks = []
    chunk = max(1, min(CHUNK, DRAWN // max(part.trials for part in parts)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        counts = [part.counts(part.resample(size, rng)) for part in parts]
        pooled = sum(counts[1:], counts[0])
        within = cohens_kappa(pooled.observed, expected_within(counts)) if len(counts) > 1 else pooled.kappa
        by_condition = np.stack([group_means(c.kappa, membership) for c in counts])
        chunks.append((pooled.kappa, within, by_condition))
    kappa, within, by_condition = zip(*chunks, strict=True)
    return Resamples(np.concatenate(kappa), np.concatenate(within), np.concatenate(by_condition, axis=1))


def observer_times(observers: Observers, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each observer is drawn when they are resampled within their groups, [resamples, observers]."""
    times = np.empty((resamples, len(observers.group)))
    for group in np.unique(observers.group):
        members = np.flatnonzero(observers.group == group)
        times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return times


def pair_weights(times: np.ndarray) -> np.ndarray:
    """How often each pair occurs then, [resamples, pairs]."""
    first, second = np.triu_indices(times.shape[1], k=1)
    return times[:, first] * times[:, second]
