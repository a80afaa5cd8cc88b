"""The numbers of a set of predictions that are cited: by experiment, for `dvc metrics` and claims.yaml."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from pipeline.consistency.gap import PERSON
from pipeline.consistency.params import ConsistencySet

SIMILAR = 0.02  # accuracies that differ by no more are similar: the article's example has 96 to 98%
ON_TOP = 0.01  # points no further apart on either axis, 0 to 1, lie on one another: half of a point's radius there


def alike_in_accuracy(pairs: pd.DataFrame, drawn: np.ndarray) -> pd.DataFrame:
    """Of the pairs whose accuracies are similar, the one that errs alike the least.

    'Even very different strategies can lead to very similar accuracies' (papers/error-consistency.md, Motivation).

    Args:
        pairs: the table of an experiment, [P] rows. drawn: kappas of resampled trials, [resamples, P].

    Returns one row, or none where no pair is so: of how many pairs it was chosen ('of'), 'observers', both accuracies,
    and 'kappa' with 'low' and 'high'. Those hold for all of these pairs at once (Bonferroni); they are normal, since
    so far out there are too few resamples for percentiles.
    """
    apart = (pairs["accuracy_first"] - pairs["accuracy_second"]).abs()
    similar = pairs[(apart <= SIMILAR + 1e-9) & pairs["kappa"].notna()]
    if similar.empty:
        return pd.DataFrame()
    place = similar["kappa"].idxmin()
    pair = similar.loc[place]
    reach = ndtri(1 - 0.025 / len(similar)) * np.nanstd(drawn[:, pairs.index.get_loc(place)], ddof=1)
    row = {name: pair[name] for name in ("experiment", "accuracy_first", "accuracy_second", "kappa")}
    bounds = {"low": max(pair["kappa"] - reach, -1.0), "high": min(pair["kappa"] + reach, 1.0)}
    return pd.DataFrame([{**row, **bounds, "observers": f"{pair['first']}, {pair['second']}", "of": len(similar)}])


def on_one_another(first: str, second: str, pairs: pd.DataFrame) -> dict | None:
    """Do two networks' points lie on one another, in a plot of kappa with each person against expected agreement?

    'Many orange and blue datapoints even overlap exactly' (papers/error-consistency.md, caption of the figure of
    CORnet-S). pairs: the table of an experiment. A person's two points do where neither coordinate differs by more
    than ON_TOP. Returns how many 'people', the 'share' of them of whom that is so, how many are 'identical', and the
    largest difference, 'apart_most'. None where nobody has trials in common with both networks.
    """
    points = []
    for network in (first, second):
        rows = pairs[(pairs["pair"].str.split(" - ").apply(lambda kinds: kinds.count(PERSON)) == 1)]
        rows = rows[(rows["first"] == network) | (rows["second"] == network)]
        person = rows["first"].where(rows["second"] == network, rows["second"])
        points.append(rows.set_index(person)[["expected", "kappa"]].astype(float))
    apart = (points[0] - points[1]).dropna().abs().max(axis=1)
    if apart.empty:
        return None
    return {
        "people": len(apart),
        "share": float((apart <= ON_TOP).mean()),
        "identical": int((apart < 1e-12).sum()),
        "apart_most": float(apart.max()),
    }


def summary(tables: dict[str, pd.DataFrame], settings: ConsistencySet) -> dict:
    """The set's numbers by experiment, for `dvc metrics`."""
    numbers: dict[str, dict] = {}
    similar = tables.get("similar", pd.DataFrame(columns=["experiment"]))
    for experiment, pairs in tables["pairs"].groupby("experiment", sort=False):
        groups = tables["groups"][tables["groups"]["experiment"] == experiment]
        several = (tables["conditions"]["experiment"] == experiment) & (tables["conditions"]["place"] > 0)
        within = [] if several.any() else [c for c in groups if "within" in c]  # the same numbers again
        columns = [c for c in groups if c not in ("experiment", "pair", *within)]
        entry: dict = {
            "observers": len(pd.unique(pairs[["first", "second"]].to_numpy().ravel())),
            "trials": int(pairs["trials"].max()),
            "pairs": len(pairs),
            "undefined": int(pairs["kappa"].isna().sum()),
            "groups": {row["pair"]: {c: row[c] for c in columns} for _, row in groups.iterrows()},
            "most_consistent": {},
            "least_consistent": {},
        }
        for label, rows in pairs.dropna(subset=["kappa"]).groupby("pair"):
            for which, place in (("most", rows["kappa"].idxmax()), ("least", rows["kappa"].idxmin())):
                pair = rows.loc[place]
                entry[f"{which}_consistent"][label] = {
                    "observers": f"{pair['first']}, {pair['second']}",
                    **_kappa(pair),
                }
        for watched in settings.watch:
            row = pairs[pairs[["first", "second"]].isin(watched).all(axis=1)]
            if len(row):
                entry.setdefault("watched", {})[" - ".join(watched)] = {
                    **_kappa(row.iloc[0]),
                    **_standing(row.iloc[0], pairs),
                }
                if points := on_one_another(*watched, pairs):
                    entry["watched"][" - ".join(watched)]["on_one_another"] = points
        for _, row in similar[similar["experiment"] == experiment].iterrows():
            entry["alike_in_accuracy"] = row.drop("experiment").to_dict()
        if len(tables.get("distances", [])):
            rows = tables["distances"]
            rows = rows[rows["experiment"] == experiment].drop_duplicates(["pair", "kappa_of"])
            entry["kappa_by_distance"] = {
                f"{row['pair']}, {row['kappa_of']}": {
                    "spearman": row["spearman"],
                    "low": row["spearman_low"],
                    "high": row["spearman_high"],
                }
                for _, row in rows.iterrows()
            }
        if "gap" in tables:
            gaps = tables["gap"].set_index("experiment").to_dict("index")
            entry |= {"gap_to_people": gaps[experiment]} if experiment in gaps else {}
        numbers[experiment] = entry
    return numbers


def _kappa(row: pd.Series) -> dict:
    return {name: row[name] for name in ("kappa", "low", "high", "kappa_within", "within_low", "within_high")}


def _standing(row: pd.Series, pairs: pd.DataFrame) -> dict:
    """Share of the pairs within either observer's group whose kappa is lower, e.g. of all pairs 'cnn - cnn'."""
    shares = {}
    for group in dict.fromkeys(row["pair"].split(" - ")):
        same = pairs.loc[pairs["pair"] == f"{group} - {group}", "kappa"].dropna()
        if len(same):
            shares[group] = (same < row["kappa"]).mean()
    return {"above_share_of_pairs_within": shares} if shares else {}
