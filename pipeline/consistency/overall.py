"""One summary over the experiments of a set: each one's effects with standard errors, and their random-effects mean.

An effect is the kappa of all pairs of a kind, within conditions, or the difference of two. In the noise experiments,
nearly all pairs of people share fewer than 30 trials, spread over conditions. The mean of pairs' kappas, each from its
shared trials alone, is nearly 0 there by construction. So here an observer's accuracy in a condition is that on all of
its trials. And pairs are put together before the division, not after.

Source: 'this gap is not closing', 'fairly consistent', 'irrespective of architecture' (papers/error-consistency.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as students_t

from pipeline.consistency.gap import NETWORK, PERSON
from pipeline.statistics.kappa import expected_agreement

PEOPLE, CROSSED = f"{PERSON} - {PERSON}", f"{NETWORK} - {PERSON}"
GAP = "gap closed"
EFFECTS = [PEOPLE, CROSSED, f"{PEOPLE} minus {CROSSED}", f"{NETWORK} - {NETWORK} minus {PEOPLE}"]
LEAST = 3  # of a group, for a statement about its pairs: two observers make one pair
Z = norm.ppf(0.975)
AT_ONCE = 2_000_000  # pairs of observers, of images left out in turn, held in memory at once


def experiment_effects(trials: pd.DataFrame, group: dict[str, str], gap: dict | None = None) -> pd.DataFrame:
    """The effects of one experiment, each with a standard error over images, people and networks.

    kappa = sum(common (observed - expected)) / sum(common (1 - expected)), over the pairs of a kind and the conditions.
    common: trials that both had; observed: agreement on them; expected: from both accuracies in the condition.

    The variance is the sum of three jackknives: without each image, within conditions; without each person; without
    each network, where there are two or more. It counts each pair's own noise more than once, and so is rather too
    large than too small. Of a single network, the effect is that network's.

    Args:
        trials: with 'observer', 'condition', 'image' and 'correct' (bool or 0/1), a row a trial. group: what each
            observer is; those that are neither person nor cnn are left out. gap: as `gap.closing` has it; its share
            that is closed is an effect too, its interval taken for a normal one.

    Returns 'effect' (of EFFECTS and GAP, those that there are), 'value', 'standard_error', and how many 'people' and
    'networks'. Left out: effects of fewer than three people, or of pairs of fewer than three networks. And those that
    the jackknife leaves undefined or without any spread.
    """
    observers = sorted(name for name, kind in group.items() if kind in (PERSON, NETWORK))
    kinds = np.array([group[name] for name in observers])
    people, networks = int((kinds == PERSON).sum()), int((kinds == NETWORK).sum())
    conditions = [_Condition(rows, observers) for _, rows in trials.groupby("condition", observed=True)]
    totals = np.sum([condition.excess() for condition in conditions], axis=0)  # [2, observers, observers]
    value = _effects(totals, kinds)
    variance = np.zeros(len(EFFECTS))
    for condition in conditions:
        others = totals - condition.excess()
        gone = [_effects(others[:, None] + part, kinds) for part in condition.excess_without_each()]
        variance += _jackknife(np.concatenate(gone))
    for kind, number in ((PERSON, people), (NETWORK, networks)):
        if number > 1:
            members = np.flatnonzero(kinds == kind)
            rest = [np.delete(np.delete(totals, i, axis=1), i, axis=2) for i in members]
            gone = [_effects(part, np.delete(kinds, i)) for part, i in zip(rest, members, strict=True)]
            variance += _jackknife(np.stack(gone))
    enough = np.array([people >= LEAST, *[people >= LEAST and networks > 0] * 2, min(people, networks) >= LEAST])
    error = np.sqrt(variance)
    table = pd.DataFrame({"effect": EFFECTS, "value": value, "standard_error": error})
    table = table[enough & np.isfinite(value) & (error > 0)]
    if gap:
        table.loc[len(EFFECTS)] = [GAP, gap["closed"], (gap["closed_high"] - gap["closed_low"]) / (2 * Z)]
    return table.assign(people=people, networks=networks)


class _Condition:
    """The trials of one condition: right and had, float [observers, images]."""

    def __init__(self, trials: pd.DataFrame, observers: list[str]) -> None:
        rows = trials.astype({"observer": str, "image": str, "correct": float})
        answers = rows.pivot_table(index="observer", columns="image", values="correct").reindex(observers).to_numpy()
        self.had = (~np.isnan(answers)).astype(float)
        self.right = np.nan_to_num(answers)
        self.wrong = self.had - self.right
        self.agreed = self.right @ self.right.T + self.wrong @ self.wrong.T
        self.common = self.had @ self.had.T

    def excess(self) -> np.ndarray:
        """Of each pair, agreement beyond chance and the most that it could be, in trials [2, observers, observers]."""
        return _excess(self.agreed, self.common, self.right.sum(axis=1), self.had.sum(axis=1))

    def excess_without_each(self) -> Iterator[np.ndarray]:
        """The same without each image, [2, images, observers, observers], some images at a time."""
        observers, images = self.had.shape  # there may be no observers
        step = max(1, AT_ONCE // max(1, observers**2))
        for start in range(0, images, step):
            right, wrong, had = (of[:, start : start + step].T for of in (self.right, self.wrong, self.had))
            agreed = self.agreed - (right[:, :, None] * right[:, None, :] + wrong[:, :, None] * wrong[:, None, :])
            common = self.common - had[:, :, None] * had[:, None, :]
            yield _excess(agreed, common, self.right.sum(axis=1) - right, self.had.sum(axis=1) - had)


def _excess(agreed: np.ndarray, common: np.ndarray, right: np.ndarray, had: np.ndarray) -> np.ndarray:
    accuracy = right / np.where(had > 0, had, 1)
    expected = expected_agreement(accuracy[..., :, None], accuracy[..., None, :])
    return np.stack([agreed - common * expected, common * (1 - expected)])


def _effects(totals: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """EFFECTS [..., 4] of the sums of `_Condition.excess` [2, ..., observers, observers]; NaN where undefined."""
    person, network = kinds == PERSON, kinds == NETWORK
    others = ~np.eye(len(kinds), dtype=bool)
    kappas = []
    for first, second in ((person, person), (network, person), (network, network)):
        beyond, most = (totals * (np.outer(first, second) & others)).sum(axis=(-1, -2))
        kappas.append(beyond / np.where(most > 1e-9, most, np.nan))
    people, crossed, among = kappas
    return np.stack([people, crossed, people - crossed, among - people], axis=-1)


def _jackknife(values: np.ndarray) -> np.ndarray:
    """Variance [effects] of what was computed without each of n, [n, effects]."""
    n = len(values)
    return (n - 1) / n * ((values - values.mean(axis=0)) ** 2).sum(axis=0)


def combine(values: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """Random-effects mean of experiments' effects, float [k] with standard errors > 0, k >= 2.

    Variance between experiments by Paule and Mandel (1982); 95% by Hartung and Knapp (2001), never narrower than with
    the standard errors as they are (Roever, Knapp, Friede, 2015, BMC Medical Research Methodology 15).

    Returns 'experiments', 'mean', 'low', 'high', 'tau2' (that variance), 'i2' (share of the spread that the standard
    errors do not explain, 0..1) and 'q' (Cochran's). Raises ValueError for other effects than those.
    """
    from statsmodels.stats.meta_analysis import combine_effects  # seconds, which most importers need not wait for

    values, errors = np.asarray(values, float), np.asarray(errors, float)
    if len(values) < 2 or not (np.isfinite(values).all() and (errors > 0).all()):
        raise ValueError(
            f"two or more finite effects with standard errors above 0 are needed; found {values.tolist()} with "
            f"{errors.tolist()}"
        )
    found = combine_effects(values, errors**2, method_re="pm", atol=1e-9, maxiter=1000)
    reach = students_t.ppf(0.975, len(values) - 1) * max(found.sd_eff_w_re, found.sd_eff_w_re_hksj)
    return {
        "experiments": len(values),
        "mean": float(found.mean_effect_re),
        "low": float(found.mean_effect_re - reach),
        "high": float(found.mean_effect_re + reach),
        "tau2": float(found.tau2),
        "i2": float(max(0.0, 1 - (len(values) - 1) / found.q)) if found.q > 0 else 0.0,
        "q": float(found.q),
    }


def together(effects: pd.DataFrame | None) -> dict[str, dict]:
    """By effect, `combine` of a set's experiments and 'of': each one's 'value' and 'standard_error'.

    effects: the tables of `experiment_effects` with 'experiment'; None has no effect. An effect of one experiment only
    has no entry.
    """
    found = {}
    for effect, rows in [] if effects is None else effects.groupby("effect", sort=False):
        if len(rows) > 1:
            of = rows.set_index("experiment")[["value", "standard_error"]].to_dict("index")
            found[effect] = {**combine(rows["value"].to_numpy(), rows["standard_error"].to_numpy()), "of": of}
    return found
