"""The figure of pipeline/shapes/boundary_path.py: each network's boundary, epoch by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.figures import COLOURS, figure
from pipeline.shapes.epochs import AS_SAVED, READINGS
from pipeline.shapes.paths import PLOTS, observer
from pipeline.shapes.snapshot import OWN

READING_COLOURS = dict(zip(READINGS, COLOURS, strict=False))
WIDEST = 16.0  # shapes; a boundary beyond it leaves the panel


def lines(ax: Axes, rows: pd.DataFrame, name: str, neutral: float) -> None:
    """One panel: every run thin, their mean thick, and the published reading marked at the last epoch."""
    ax.axhline(neutral, color="#888888", lw=1, ls=":")
    for reading, colour in READING_COLOURS.items():
        table = rows[rows["reading"] == reading].pivot_table(index="epoch", columns="run", values=name, dropna=False)
        several = table.shape[1] > 1
        if several:
            ax.plot(table.index, table, color=colour, lw=0.8, alpha=0.55)
        # where the boundary of a run is undefined, so is the mean
        mean = table.mean(axis=1, skipna=False)
        ax.plot(table.index, mean, "o-", color=colour, lw=2.4, ms=3, label=reading)
        if reading == AS_SAVED:
            last = table.iloc[-1]
            ax.plot([table.index[-1]] * len(last), last, "D", mec=colour, mfc="white", ms=5, zorder=5)


def draw(paths: pd.DataFrame) -> None:
    """A column a network: above the share of 'circle', below the point of subjective equality."""
    networks = sorted(paths["network"].unique())
    shares = paths[paths["set"] != OWN].groupby(["network", "run", "epoch", "reading"], as_index=False)["circle"].mean()
    own = paths[paths["set"] == OWN]
    reach = min(WIDEST, max(2.0, 1.1 * np.nanmax(own["pse"].abs().to_numpy(float), initial=0.0)))
    options = {"nrows": 2, "ncols": len(networks), "sharex": True, "sharey": "row", "squeeze": False}
    with figure(PLOTS / "epochs.png", figsize=(1.5 * len(networks) + 1.5, 5.6), **options) as (drawing, axes):
        for (top, bottom), network in zip(axes.T, networks, strict=True):
            lines(top, shares[shares["network"] == network], "circle", 0.5)
            lines(bottom, own[own["network"] == network], "pse", 0.0)
            top.set_title(observer(network))
        axes[0, 0].set(ylim=(-0.02, 1.02), ylabel="share of 'circle'\non margin sets")
        axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1))
        axes[1, 0].set(ylim=(-reach, reach), ylabel="point of subjective equality\non the own test set (shapes)")
        axes[1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1, 0].margins(x=0.15)
        drawing.supxlabel("epoch", fontsize=10)
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
