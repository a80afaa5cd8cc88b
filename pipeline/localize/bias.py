"""Does counting on purpose take the bias away (implicit-counting, Discussion; convnets-in-vision, regression)?

An observer's bias is how far its share of 'circle' answers lies from one half, over margin sets with as many to either
side of 0: who has none answers 'circle' to half of those. It is defined where an observer answers one kind only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.localize.paths import margin_name
from pipeline.localize.runs import KEY
from pipeline.statistics.intervals import over_runs

LESS = ("less_bias", "less_bias_low", "less_bias_high")


def less_bias(
    theirs: pd.DataFrame, mine: pd.DataFrame, densities: list[int], margins: list[int], rng: np.random.Generator, n: int
) -> dict[str, dict[str, float]]:
    """How much less bias `mine` has than `theirs`, at each density and in the mean of all: 'density_10', .., 'all'.

    theirs, mine: an answer a row, with 'condition', 'image' and 'response'; compared on the same images. n: resamples
    of the images of each margin set, for the 95% interval (percentiles).

    Returns for each 'theirs' and 'mine' (bias, 0 to 1/2) and 'less_bias', their difference, with '_low' and '_high'.
    """
    circles = [rows.set_index(KEY)["response"].astype(str) == "circle" for rows in (theirs, mine)]
    both = pd.concat(circles, axis=1, keys=["theirs", "mine"], join="inner")
    sizes = []  # [2, 1 + n] a density: bias of either, first as it is, then of resamples
    for density in densities:
        total, number = np.zeros((2, 1 + n)), 0
        for margin in margins:
            if margin and -margin in margins:
                these = both.xs(margin_name(density, margin), level="condition").to_numpy()
                patterns = these.astype(int) @ [2, 1]  # 3: 'circle' by both
                cells = np.bincount(patterns, minlength=4)
                drawn = np.vstack([cells, rng.multinomial(len(these), cells / len(these), size=n)])
                total += np.stack([drawn[:, 2] + drawn[:, 3], drawn[:, 1] + drawn[:, 3]])
                number += len(these)
        sizes.append(np.abs(total / number - 0.5) if number else np.full((2, 1 + n), np.nan))
    parts = {f"density_{density}": size for density, size in zip(densities, sizes, strict=True)}
    found = {}
    for name, (before, after) in {"all": np.mean(sizes, axis=0), **parts}.items():
        less = before - after
        low, high = np.quantile(less[1:], [0.025, 0.975])
        sides = {"theirs": before[0], "mine": after[0]}
        numbers = sides | {"less_bias": less[0], "less_bias_low": low, "less_bias_high": high}
        found[name] = {key: float(value) for key, value in numbers.items()}
    return found


def less_bias_over_runs(
    runs: list[tuple[pd.DataFrame, pd.DataFrame]],
    densities: list[int],
    margins: list[int],
    rng: np.random.Generator,
    n: int,
) -> dict[str, dict[str, float]]:
    """`less_bias` of pairs of training runs, each (theirs, mine): means over them, intervals over images and runs.

    'runs': how many pairs; all else is NaN where there is none.
    """
    found = [less_bias(theirs, mine, densities, margins, rng, n) for theirs, mine in runs]
    parts = ["all", *(f"density_{density}" for density in densities)]
    means = {}
    for part in parts:
        table = pd.DataFrame([of_run[part] for of_run in found], columns=["theirs", "mine", *LESS])
        bounds = over_runs(*(table[name].to_numpy(float) for name in LESS)) if found else (np.nan,) * 3
        sides = {side: float(table[side].mean()) for side in ("theirs", "mine")}
        means[part] = {"runs": len(found), **sides, **dict(zip(LESS, bounds, strict=True))}
    return means
