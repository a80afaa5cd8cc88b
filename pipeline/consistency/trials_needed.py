"""How many trials does a kappa need, and what does it say of copying? (after Klein et al., 2025, arXiv:2507.06645)

    python -m pipeline.consistency.trials_needed

For every kind of pair of every set: the half interval of a pair's kappa with the trials that there were, and how many
trials would make it 0.1 and 0.05. A kappa is also read as the share of trials on which one observer copies the other.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm

from pipeline.figures import COLOURS, figure
from pipeline.params import load_params
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.kappa import cohens_kappa, expected_agreement

HALF_WIDTHS = (0.1, 0.05)
METRICS, FIGURE = Path("metrics/consistency/trials_needed.json"), Path("plots/consistency_figures/trials_needed.png")
PER_COLUMN = 28  # rows of the figure
SHOWN = 6  # kinds of pairs of an experiment in the figure, those with most pairs
Z = norm.ppf(0.975)


def standard_error(p_a: ArrayLike, p_b: ArrayLike, observed: ArrayLike, trials: ArrayLike) -> np.ndarray:
    """Of kappa, elementwise, for independent trials (Fleiss, Cohen and Everitt, 1969, Psychological Bulletin 72).

    p_a, p_b: accuracies, 0..1; observed: agreement, 0..1. NaN where kappa is undefined or there is no trial.
    """
    p_a, p_b, observed = (np.asarray(values, float) for values in (p_a, p_b, observed))
    trials = np.where(np.asarray(trials) > 0, trials, np.nan)
    both = (observed + p_a + p_b - 1) / 2
    cells = {(1, 1): both, (1, 0): p_a - both, (0, 1): p_b - both, (0, 0): 1 - p_a - p_b + both}
    first, second = {1: p_a, 0: 1 - p_a}, {1: p_b, 0: 1 - p_b}
    expected = expected_agreement(p_a, p_b)
    kappa = cohens_kappa(observed, expected)
    variance = -((kappa - expected * (1 - kappa)) ** 2)
    for (i, j), share in cells.items():
        if i == j:
            variance = variance + share * (1 - (first[i] + second[i]) * (1 - kappa)) ** 2
        else:
            variance = variance + share * ((1 - kappa) * (first[j] + second[i])) ** 2
    return np.sqrt(np.maximum(variance, 0) / trials) / np.where(np.isnan(kappa), np.nan, 1 - expected)


def copied(kappa: ArrayLike, p_a: ArrayLike, p_b: ArrayLike) -> np.ndarray:
    """The least share of trials that one of two observers copies from the other, elementwise; NaN where undefined.

    Who copies on a share c of the trials, and is else independent of the other, comes to
    kappa = 2 c p (1 - p) / (1 - expected agreement), with p the accuracy of the one who is copied. Of two observers of
    one accuracy, c is kappa. The least: as if the one were copied whose accuracy lies nearer one half.
    """
    p_a, p_b = np.asarray(p_a, float), np.asarray(p_b, float)
    most = 2 * np.maximum(p_a * (1 - p_a), p_b * (1 - p_b))
    known = most > 0
    return np.where(
        known, np.asarray(kappa, float) * (1 - expected_agreement(p_a, p_b)) / np.where(known, most, 1), np.nan
    )


def needed(pairs: pd.DataFrame) -> pd.DataFrame:
    """A row for each experiment and kind of pair; medians over its pairs that have a kappa, and how many have none.

    pairs: as the stage `analyse_consistency` writes them. half_width: of a pair's 95% interval by resampling trials;
    half_width_analytic: by `standard_error`. trials_for_0.1, trials_for_0.05: from the former, which falls with the
    root of the number of trials; None where no pair ever disagrees. copied: share of trials.
    """
    pairs = pairs.assign(
        half_width=(pairs["high"] - pairs["low"]) / 2,
        half_width_analytic=Z
        * standard_error(pairs["accuracy_first"], pairs["accuracy_second"], pairs["observed"], pairs["trials"]),
        copied=copied(pairs["kappa"], pairs["accuracy_first"], pairs["accuracy_second"]),
    )
    for width in HALF_WIDTHS:
        # of pairs that agree throughout, resamples know no width
        pairs[f"trials_for_{width}"] = (
            pairs["trials"] * (pairs["half_width"].where(pairs["half_width"] > 0) / width) ** 2
        )
    medians = [
        "trials",
        "kappa",
        "half_width",
        "half_width_analytic",
        "copied",
        *(f"trials_for_{w}" for w in HALF_WIDTHS),
    ]
    rows = []
    for (experiment, kind), these in pairs.groupby(["experiment", "pair"]):
        known = these.dropna(subset=["kappa"])
        row = {"experiment": experiment, "pair": kind, "pairs": len(known), "undefined": len(these) - len(known)}
        rows.append(row | known[medians].median().to_dict())
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame) -> None:
    """Trials that a pair's kappa needs for half an interval of 0.1 and of 0.05, and those that there were."""
    shown = table[table["pairs"] > 0].sort_values("pairs", ascending=False, kind="stable")
    shown = shown.groupby(["set", "experiment"], sort=False).head(SHOWN).sort_values(["set", "experiment", "pair"])
    columns = max(1, -(-len(shown) // PER_COLUMN))
    length = -(-len(shown) // columns)
    size = {"figsize": (8.0 if columns == 1 else 7.2 * columns, 0.26 * length + 1.6), "squeeze": False}
    with figure(FIGURE, ncols=columns, sharex=True, **size) as (drawing, axes):
        for place, ax in enumerate(axes.flat):
            rows = shown[place * length : (place + 1) * length].reset_index(drop=True)
            for width, colour in zip(HALF_WIDTHS, COLOURS, strict=False):
                ax.plot(rows[f"trials_for_{width}"], rows.index, "o", color=colour, label=f"needed for ± {width}")
            ax.plot(rows["trials"], rows.index, "|", color="black", ms=10, mew=1.6, label="there were")
            names = [re.sub(r"^(texture-shape|noise-generalisation)_", "", name) for name in rows["experiment"]]
            ax.set_yticks(rows.index, [f"{n}: {kind}" for n, kind in zip(names, rows["pair"], strict=True)], fontsize=9)
            ax.set(xscale="log", xlabel="trials, median over pairs", ylim=(length - 0.3, -0.7))
        drawing.suptitle("Trials that a pair's kappa needs for its 95% interval, and those that there were")
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def main() -> str:
    tables = []
    for name in load_params().consistency.sets:
        path = Path(f"plots/consistency/{name}/pairs.json")
        if not path.exists():
            raise UserError(f"{path}: not there; run 'dvc repro analyse_consistency@{name}'")
        tables.append(needed(pd.DataFrame(json.loads(path.read_text()))).assign(set=name))
    table = pd.concat(tables, ignore_index=True)
    write_json(METRICS, {name: rows.drop(columns="set").to_dict("records") for name, rows in table.groupby("set")})
    draw(table)
    return f"{len(table)} kinds of pairs"


if __name__ == "__main__":
    run(main)
