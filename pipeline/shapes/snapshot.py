"""How much of a network's bias is of the moment at which training ended (pipeline/shapes/boundary_path.py).

Every function takes the paths: a row an epoch, reading and set, of each network and run. Intervals are 95%, Student's
over networks; a network counts by the mean of its runs and sets.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.statistics.intervals import Interval, jackknifed, over_networks

AS_SAVED, RE_ESTIMATED = READINGS = ("as saved", "re-estimated")  # as pipeline/shapes/epochs.py, which loads torch
OWN = "own test set"
AS_KEY = {AS_SAVED: "as_saved", RE_ESTIMATED: "re_estimated"}  # a reading as a key of metrics
FEWEST_EPOCHS, FEWEST_NETWORKS = 4, 3
KEYS = ["network", "run", "set"]


def of_networks(values: pd.Series) -> Interval:
    """values: indexed by KEYS; those undefined are left out."""
    return over_networks(values.dropna().groupby("network").mean().to_numpy(float))


def at_the_end(paths: pd.DataFrame, reading: str) -> pd.DataFrame:
    """The rows of this reading after the last epoch, indexed by KEYS."""
    rows = paths[paths["reading"] == reading]
    last = rows.groupby("network")["epoch"].transform("max")
    return rows[rows["epoch"] == last].set_index(KEYS)


def measures(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Of rows of `at_the_end`, indexed by KEYS.

    accuracy: on the own test set. far_from_half, far_from_half_own: distance of the share of 'circle' from one half, on
    margin sets and on the own test set.
    pse_size: distance of the point of subjective equality from 0 on the own test set, in shapes; NaN where undefined.
    """
    own = rows.index.get_level_values("set") == OWN
    return {
        "accuracy": rows.loc[own, "accuracy"],
        "far_from_half": (rows.loc[~own, "circle"] - 0.5).abs(),
        "far_from_half_own": (rows.loc[own, "circle"] - 0.5).abs(),
        "pse_size": rows.loc[own, "pse"].abs(),
    }


def levels(paths: pd.DataFrame, reading: str) -> dict[str, Interval]:
    """The measures of one reading after the last epoch."""
    return {name: of_networks(values) for name, values in measures(at_the_end(paths, reading)).items()}


def changes(paths: pd.DataFrame) -> dict[str, Interval]:
    """The same networks after the last epoch: statistics re-estimated minus as saved.

    Each of `measures`; a run whose point of subjective equality is undefined in a reading has no part in its change.
    circle_moves, pse_moves: how far the share of 'circle' on margin sets, and the point of subjective equality on the
    own test set, lie apart in the two readings, whatever the direction. The direction is that of one half of the
    images, the distance that of the other half: 0 on average where nothing but chance moves them.
    """
    saved, anew = (at_the_end(paths, reading) for reading in (AS_SAVED, RE_ESTIMATED))
    before, after = measures(saved), measures(anew)
    own = saved.index.get_level_values("set") == OWN
    return {
        **{name: of_networks(after[name] - before[name]) for name in before},
        "circle_moves": of_networks(moves(saved[~own], anew[~own], "circle")),
        "pse_moves": of_networks(moves(saved[own], anew[own], "pse")),
    }


def undefined_at_the_end(paths: pd.DataFrame) -> dict[str, int]:
    """Of how many runs the point of subjective equality on the own test set is undefined, in each reading; of all."""
    ends = {reading: measures(at_the_end(paths, reading))["pse_size"] for reading in READINGS}
    counts = {AS_KEY[reading]: int(sizes.isna().sum()) for reading, sizes in ends.items()}
    return {**counts, "of": len(ends[AS_SAVED])}


def moves(saved: pd.DataFrame, anew: pd.DataFrame, name: str) -> pd.Series:
    """How far a measure moved in one half of the images, towards where it moved in the other; mean of both ways.

    Without the sign of the other half, chance alone would make every distance positive.
    """
    even, odd = (anew[f"{name}_{half}"] - saved[f"{name}_{half}"] for half in ("even", "odd"))
    return (np.sign(even) * odd + np.sign(odd) * even) / 2


def variances(rows: pd.DataFrame) -> dict[str, float]:
    """Variances of the share of 'circle' of one network and set, in one reading, over the last half of epochs.

    epochs: between epochs of a run, mean of runs. runs: between the runs' means over these epochs, minus what epochs
    alone add to it (so it may be below 0). last: between runs after the last epoch. NaN where there are too few.
    """
    table = rows.pivot_table(index="run", columns="epoch", values="circle")
    last = table.iloc[:, -1].var()
    if table.shape[1] < FEWEST_EPOCHS:
        return {"epochs": np.nan, "runs": np.nan, "last": last}
    half = table.iloc[:, table.shape[1] // 2 :]
    epochs = half.var(axis=1).mean()
    return {"epochs": epochs, "runs": half.mean(axis=1).var() - epochs / half.shape[1], "last": last}


def snapshot(paths: pd.DataFrame, reading: str) -> dict[str, dict]:
    """`variation` of one reading, of each kind of set."""
    rows = paths[paths["reading"] == reading].dropna(subset="circle")
    own = rows["set"] == OWN
    return {"own_test_set": variation(rows[own]), "margin_sets": variation(rows[~own])}


def variation(rows: pd.DataFrame) -> dict[str, dict]:
    """How much the share of 'circle' varies between the last epochs, and between runs.

    sd_of_epochs: standard deviation over the last half of epochs of a run. sd_of_runs: over runs, after the last epoch;
    it holds the epochs' too, for each run ends at some moment. epochs_share: of the variance of both, the epochs',
    all networks together; Student's interval by the jackknife over networks. Null, with a reason, where it cannot be
    had. Every epoch and run has the same images; which of them flip by chance counts as the epochs'.
    """
    found = {key: variances(part) for key, part in rows.groupby(["network", "set"])}
    table = pd.DataFrame.from_dict(found, orient="index", columns=["epochs", "runs", "last"])
    table = table.groupby(level=0).mean()  # by network
    number, runs = rows["epoch"].nunique(), rows["run"].nunique()
    few_epochs = f"{number} epochs; {FEWEST_EPOCHS} are needed" if number < FEWEST_EPOCHS else None
    one_run = "one training run of each network; two are needed" if runs < 2 else None
    both = table.dropna(subset=["epochs", "runs"])
    few_networks = f"{len(both)} networks have several runs; {FEWEST_NETWORKS} are needed"
    reason = few_epochs or one_run or (few_networks if len(both) < FEWEST_NETWORKS else None)

    def share(places: np.ndarray) -> float:
        parts = both.iloc[places]
        whole = parts["epochs"].sum() + parts["runs"].sum()
        return float(parts["epochs"].sum() / whole) if whole > 0 else np.nan

    of_both = {"value": None, "low": None, "high": None} if reason else jackknifed(share, len(both))
    return {
        "sd_of_epochs": {**over_networks(table["epochs"].dropna().to_numpy() ** 0.5), "reason": few_epochs},
        "sd_of_runs": {**over_networks(table["last"].dropna().to_numpy() ** 0.5), "reason": one_run},
        "epochs_share": {**of_both, "networks": len(both), "reason": reason},
    }
