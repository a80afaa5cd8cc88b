"""Forest plot of a set's experiments: each one's effects with their intervals, and the mean of all below."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy.stats import norm

from pipeline.consistency.overall import EFFECTS, GAP, together
from pipeline.figures import COLOURS, figure

TITLES = {  # what a panel shows, and in which unit
    EFFECTS[0]: ("Two people", "kappa"),
    EFFECTS[1]: ("A network and a person", "kappa"),
    EFFECTS[2]: ("Two people minus\nnetwork and person", "difference of kappas"),
    EFFECTS[3]: ("Two networks minus\ntwo people", "difference of kappas"),
    GAP: ("Gap to people closed by\nthe most accurate network", "share of the gap"),
}
LIMITS, GAP_LIMITS = (-0.5, 1.0), (-1.0, 1.5)  # wider intervals end in an arrow
Z = norm.ppf(0.975)


def forest(folder: Path, effects: pd.DataFrame) -> bool:
    """Draw forest.png, a panel an effect and a row an experiment; False where no effect has two experiments.

    effects: as `overall.experiment_effects` has it, with 'experiment'. Bars are 95%, normal; the diamond is the
    random-effects mean with its interval. A marker's area is the experiment's weight in the mean.
    """
    means = together(None if effects.empty else effects)
    if not means:
        return False
    experiments = list(effects["experiment"].unique())
    shown = [effect for effect in TITLES if effect in means]
    size = {"figsize": (2.4 + 2.55 * len(shown), 0.36 * len(experiments) + 2.6), "squeeze": False}
    with figure(folder / "forest.png", ncols=len(shown), sharey=True, **size) as (drawing, axes):
        for ax, effect in zip(axes.flat, shown, strict=True):
            rows = effects[effects["effect"] == effect].set_index("experiment").reindex(experiments)
            _panel(ax, rows, means[effect], *((GAP_LIMITS, ".0%") if effect == GAP else (LIMITS, ".2f")))
            title, unit = TITLES[effect]
            ax.set(title=title, xlabel=unit)
            ax.set_xticks([-1, 0, 1] if effect == GAP else [-0.5, 0, 0.5, 1])
            if effect == GAP:
                ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        named = [re.sub(r"^(texture-shape|noise-generalisation)_", "", name) for name in experiments]
        axes[0, 0].set_yticks([*range(len(experiments)), len(experiments) + 0.6], [*named, "mean of all"])
        axes[0, 0].set_ylim(len(experiments) + 1.3, -1.7)
        drawing.suptitle("Error consistency by experiment, with 95% intervals; an arrow points beyond the panel")
    return True


def _panel(ax: Axes, rows: pd.DataFrame, mean: dict, limits: tuple[float, float], style: str) -> None:
    place = np.flatnonzero(rows["value"].notna())
    value, error = (rows[name].dropna().to_numpy(float) for name in ("value", "standard_error"))
    weight = 1 / (error**2 + mean["tau2"])
    low, high = np.clip(value - Z * error, *limits), np.clip(value + Z * error, *limits)
    ax.axvline(0, color="#888888", lw=1, ls=":")
    ax.hlines(place, low, high, color=COLOURS[0], lw=1.4)
    ax.scatter(value, place, s=8 + 90 * weight / weight.sum(), marker="s", color=COLOURS[0], zorder=3)
    for bound, end, marker in ((value - Z * error, limits[0], "<"), (value + Z * error, limits[1], ">")):
        beyond = bound < end if marker == "<" else bound > end
        if beyond.any():  # of no points, the layout would take the extent for infinite
            ax.plot(np.full(beyond.sum(), end), place[beyond], marker, color=COLOURS[0], ms=4, clip_on=False)
    ax.axvspan(max(mean["low"], limits[0]), min(mean["high"], limits[1]), color=COLOURS[1], alpha=0.10, lw=0)
    bottom = len(rows) + 0.6
    ends = [max(mean["low"], limits[0]), mean["mean"], min(mean["high"], limits[1]), mean["mean"]]
    ax.fill(ends, [bottom, bottom - 0.28, bottom, bottom + 0.28], color=COLOURS[1])
    ax.axhline(len(rows) - 0.1, color="#bbbbbb", lw=0.8)
    ax.set_xlim(*limits)
    reach = ", ".join(format(mean[bound], style) for bound in ("low", "high"))
    text = f"mean of {mean['experiments']}: {mean['mean']:{style}} [{reach}]\nI² {mean['i2']:.0%}"
    ax.text(0.01, 0.99, text, transform=ax.transAxes, va="top", fontsize=8, color=COLOURS[1])
