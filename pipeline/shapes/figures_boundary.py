"""The figure of pipeline/shapes/boundary_path.py: each network's boundary, epoch by epoch."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from pipeline.figures import COLOURS, figure
from pipeline.shapes.paths import PLOTS, observer
from pipeline.shapes.snapshot import AS_SAVED, OWN, READINGS

READING_COLOURS = dict(zip(READINGS, COLOURS, strict=False))
LINEAR, WIDEST = 5, 100  # shapes: the axis is linear up to the first, and ends at the second
TICKS = [-100, -20, -5, 0, 5, 20, 100]


def lines(ax: Axes, rows: pd.DataFrame, name: str, neutral: float) -> None:
    """One panel: every run thin, their mean thick, and the published reading marked at the last epoch.

    The mean has a gap where a run's value is undefined.
    """
    ax.axhline(neutral, color="#555555", lw=1, ls=":")
    for reading, colour in READING_COLOURS.items():
        table = rows[rows["reading"] == reading].pivot_table(index="epoch", columns="run", values=name, dropna=False)
        if table.empty:
            continue
        if table.shape[1] > 1:
            ax.plot(table.index, table, color=colour, lw=0.8, alpha=0.55)
        ax.plot(table.index, table.mean(axis=1, skipna=False), "o-", color=colour, lw=2.4, ms=3, label=reading)
        if reading == AS_SAVED:
            published = {"color": colour, "mfc": "white", "ms": 5, "ls": "none", "marker": "D", "zorder": 5}
            end = table.iloc[-1]
            ax.plot([table.index[-1]] * len(end), end, label="as published: saved after the last epoch", **published)


def draw(paths: pd.DataFrame) -> None:
    """A column a network; rows: shares of 'circle' on both kinds of sets, point of subjective equality on its own."""
    own, others = paths[paths["set"] == OWN], paths[paths["set"] != OWN]
    others = others.groupby(["network", "run", "epoch", "reading"], as_index=False)["circle"].mean()
    networks = sorted(paths["network"].unique())
    options = {"nrows": 3, "ncols": len(networks), "sharex": True, "sharey": "row", "squeeze": False}
    with figure(PLOTS / "epochs.png", figsize=(1.4 * len(networks) + 1.6, 7.6), **options) as (drawing, axes):
        for (pse, share, far), network in zip(axes.T, networks, strict=True):
            lines(pse, own[own["network"] == network], "pse", 0.0)
            lines(share, own[own["network"] == network], "circle", 0.5)
            lines(far, others[others["network"] == network], "circle", 0.5)
            pse.set_title(observer(network))
        first = axes[0, 0]
        first.set_yscale("symlog", linthresh=LINEAR)
        first.set(ylim=(-WIDEST, WIDEST), ylabel="point of subjective equality\nown test set (shapes)")
        first.yaxis.set_major_locator(FixedLocator(TICKS))
        first.yaxis.set_minor_locator(FixedLocator([]))
        first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
        axes[1, 0].set_ylabel("share of 'circle'\nown test set, margins to 8")
        axes[2, 0].set_ylabel("share of 'circle'\nmargin sets of all densities")
        for ax in axes[1:, 0]:
            ax.set_ylim(-0.02, 1.02)
            ax.yaxis.set_major_formatter(PercentFormatter(1))
        first.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        first.margins(x=0.15)
        for ax in axes[-1]:
            ax.set_xlabel("epoch")
        drawing.suptitle("Where the boundary lies after every epoch: each run thin, their mean thick", fontsize=11)
        drawing.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
