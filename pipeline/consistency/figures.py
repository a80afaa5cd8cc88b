"""Figures of the error-consistency study, for one set of predictions (Geirhos et al. 2020, Figs. 1 to 5).

    python -m pipeline.consistency.figures --name trials

Agreement observed against expected, with bounds and chance band; kappa by accuracy; the matrix of all
kappas, clustered; kappa by condition, by ImageNet accuracy and by distance, where there are any; CORnet-S beside
ResNet-50, where people are to compare them with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from pipeline.consistency.forest import forest
from pipeline.consistency.kappa import agreement_bounds_at
from pipeline.figures import COLOURS, figure
from pipeline.params import load_params
from pipeline.stage import UserError, run

SHOWN = 6  # kinds of pairs in their own colours, those with most pairs; the others are grey
OTHER = "#bbbbbb"
AROUND_ZERO = "RdBu_r"  # white: no more than chance
PER_ROW = 3  # panels; of four, two in a row
RECURRENT, FEEDFORWARD = "cornet-s", "resnet50"  # the two networks of the article's second plot


def read_table(name: str, table: str) -> pd.DataFrame:
    path = Path(f"plots/consistency/{name}/{table}.json")
    return pd.DataFrame(json.loads(path.read_text())) if path.exists() else pd.DataFrame()


def colours_of(pairs: pd.DataFrame) -> dict[str, str]:
    """A colour for each kind of pair, the same in every figure; kinds of few pairs share a grey."""
    order = pairs["pair"].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable").index
    return {label: COLOURS[i] if i < SHOWN else OTHER for i, label in enumerate(order)}


def _panels(number: int) -> dict:
    columns = 2 if number == 4 else min(PER_ROW, number)
    rows = -(-number // columns)
    return {"nrows": rows, "ncols": columns, "figsize": (4.3 * columns, 4.2 * rows + 0.7), "squeeze": False}


def _each(axes: np.ndarray, names: list) -> Iterator[tuple[Axes, object]]:
    """A panel for each name; what is left of the last row stays empty."""
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    return zip(axes.flat, names, strict=False)


def _legend(drawing: Figure, colours: dict[str, str]) -> None:
    """Kinds of pairs and their colours, below all panels, where it hides no point."""
    handles = [
        plt.Line2D([], [], color=c, marker="o", ls="", label=label) for label, c in colours.items() if c != OTHER
    ]
    if OTHER in colours.values():
        handles.append(plt.Line2D([], [], color=OTHER, marker="o", ls="", label="other pairs"))
    _below(drawing, handles)


def _below(drawing: Figure, handles: list) -> None:
    """A legend below all panels, in as few rows as its width lets it have."""
    for columns in range(len(handles), 0, -1):
        legend = drawing.legend(handles=handles, loc="outside lower center", ncols=columns)
        if legend.get_window_extent().width <= drawing.bbox.width or columns == 1:
            return
        legend.remove()


def agreement(folder: Path, pairs: pd.DataFrame, band: pd.DataFrame) -> None:
    """Observed against expected agreement (the paper's Fig. 1): on the diagonal, nothing beyond chance."""
    colours, experiments = colours_of(pairs), list(pairs["experiment"].unique())
    grid = np.linspace(0, 1, 201)
    with figure(folder / "agreement.png", **_panels(len(experiments))) as (drawing, axes):
        drawing.suptitle("How often pairs are right, or wrong, together")
        for ax, experiment in _each(axes, experiments):
            rows = pairs[pairs["experiment"] == experiment]
            least, most = agreement_bounds_at(grid)
            ax.plot(grid, least, grid, most, color="#999999", lw=1)
            trials = band["trials"].iloc[
                (band["trials"] - rows.loc[rows["trials"] > 0, "trials"].median()).abs().argmin()
            ]
            chance = band[band["trials"] == trials]
            observed = [
                chance["expected"] + chance[side] * (1 - chance["expected"]) for side in ("exact_low", "exact_high")
            ]
            ax.fill_between(chance["expected"], *observed, color="#dddddd", lw=0)
            ax.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
            for label in reversed(colours):
                these = rows[rows["pair"] == label]
                ax.plot(these["expected"], these["observed"], "o", color=colours[label], ms=3.5, alpha=0.7, mew=0)
            ax.set(
                title=_short(experiment),
                xlabel="agreement expected by chance",
                xlim=(0, 1),
                ylim=(0, 1),
                aspect="equal",
            )
        for ax in axes[:, 0]:
            ax.set_ylabel("agreement observed")
        _legend(drawing, colours)


def by_accuracy(folder: Path, observers: pd.DataFrame, groups: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Each observer's mean kappa with others against its accuracy (after the paper's Fig. 3); dashed: means."""
    colours, experiments = colours_of(pairs), list(pairs["experiment"].unique())
    shared = {"sharex": True, "sharey": True}
    with figure(folder / "kappa_by_accuracy.png", **_panels(len(experiments)), **shared) as (drawing, axes):
        drawing.suptitle("Kappa with others, by accuracy; dashed: means")
        for ax, experiment in _each(axes, experiments):
            rows = observers[observers["experiment"] == experiment]
            for label in reversed(colours):
                these = rows[rows["pair"] == label]
                ax.plot(these["accuracy"], these["kappa"], "o", color=colours[label], ms=4, alpha=0.8, mew=0)
                mean = groups[(groups["experiment"] == experiment) & (groups["pair"] == label)]
                if len(mean) and colours[label] != OTHER:
                    row = mean.iloc[0]
                    ax.axhline(row["kappa"], color=colours[label], lw=1, ls="--")
            ax.axhline(0, color="#888888", lw=1, ls=":")
            ax.set(title=_short(experiment), xlabel="accuracy of the observer")
            ax.tick_params(labelbottom=True)  # the panel below may be empty
        for ax in axes[:, 0]:
            ax.set_ylabel("kappa with others, mean")
        _legend(drawing, colours)


def matrix(folder: Path, pairs: pd.DataFrame) -> None:
    """All kappas of the experiment with most observers, of these with most trials.

    Observers are ordered by average-linkage clustering on 1 - kappa.
    """
    sizes = pairs.groupby("experiment", sort=False)["trials"].agg(["size", "max"])
    experiment = sizes.sort_values(["size", "max"], ascending=False, kind="stable").index[0]
    rows = pairs[pairs["experiment"] == experiment]
    names = sorted(set(rows["first"]) | set(rows["second"]))
    kappa = pd.DataFrame(np.nan, index=names, columns=names)
    for row in rows.itertuples():
        kappa.loc[row.first, row.second] = kappa.loc[row.second, row.first] = row.kappa
    distance = 1 - kappa.fillna(0).to_numpy()
    np.fill_diagonal(distance, 0)
    order = hierarchy.leaves_list(
        hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    )
    kappa = kappa.iloc[order, order]
    side = max(5.0, 0.21 * len(names) + 2.5)
    with figure(folder / "matrix.png", figsize=(side + 0.8, side)) as (drawing, ax):
        ax.set_facecolor("#999999")  # undefined, and the diagonal
        most = max(0.8, np.nanmax(np.abs(kappa)))
        image = ax.imshow(kappa, cmap=AROUND_ZERO, vmin=-most, vmax=most)
        labels = [_short(name, 28) for name in kappa.index]
        ax.set_xticks(range(len(names)), labels, rotation=90, fontsize=8.5)
        ax.set_yticks(range(len(names)), labels, fontsize=8.5)
        ax.grid(visible=False)
        ax.set(title=f"Error consistency of all pairs, {_short(experiment)}")
        drawing.colorbar(image, label="kappa", shrink=0.8)


def by_condition(folder: Path, conditions: pd.DataFrame, pairs: pd.DataFrame) -> bool:
    """Mean kappa of each kind of pair in each condition, for experiments that have several."""
    several = conditions.groupby("experiment", sort=False)["condition"].nunique()
    experiments = list(several[several > 1].index)
    if not experiments:
        return False
    colours = colours_of(pairs)
    drawn = conditions.loc[conditions["experiment"].isin(experiments) & conditions["kappa"].notna(), "pair"].unique()
    colours = {label: colour for label, colour in colours.items() if colour != OTHER and label in drawn}
    columns = min(2, len(experiments))
    rows = -(-len(experiments) // columns)
    width = min(7.5, max(4.3, 0.32 * several[experiments].max()))
    size = (max(width * columns, 6.5), 0.6 + 3.9 * rows)
    options = {"nrows": rows, "ncols": columns, "figsize": size, "squeeze": False}
    with figure(folder / "conditions.png", **options, sharey=True) as (drawing, axes):
        drawing.suptitle("Kappa within each condition, with 95% intervals")
        for ax, experiment in _each(axes, experiments):
            rows = conditions[conditions["experiment"] == experiment]
            for label in colours:
                these = rows[rows["pair"] == label].astype({"kappa": float, "low": float, "high": float})
                ax.plot(these["place"], these["kappa"], "o-", color=colours[label])
                ax.fill_between(these["place"], these["low"], these["high"], color=colours[label], alpha=0.12, lw=0)
            names = rows.drop_duplicates("place").sort_values("place")
            labels = names["condition"].map(_condition)
            ax.set_xticks(names["place"], labels, rotation=90 if labels.str.len().max() > 6 else 0, fontsize=9)
            ax.axhline(0, color="#888888", lw=1, ls=":")
            ax.set(title=_short(experiment), xlabel="condition, from the easiest to the hardest")
        for ax in axes[:, 0]:
            ax.set_ylabel("kappa, mean over pairs")
        _legend(drawing, colours)
    return True


def by_distance(folder: Path, distances: pd.DataFrame, attribute: str) -> bool:
    """Mean kappa of pairs at each distance in a numeric attribute of observers, pooled and within conditions."""
    if distances.empty:
        return False
    panels = list(distances.groupby(["experiment", "pair"], sort=False))
    with figure(folder / "distance.png", **_panels(len(panels)), sharey=True) as (drawing, axes):
        drawing.suptitle(f"Kappa of pairs by their difference in {attribute}")
        for ax, ((experiment, label), rows) in _each(axes, panels):
            for colour, (name, curve) in zip(COLOURS, rows.groupby("kappa_of", sort=False), strict=False):
                curve = curve.astype({"kappa": float, "low": float, "high": float})
                of = {"pooled": "all trials", "within": "within conditions"}[name]
                rho = curve["spearman"].iloc[0]
                text = "undefined" if pd.isna(rho) else f"{rho:+.2f}"
                ax.plot(curve["distance"], curve["kappa"], "o-", color=colour, label=f"{of}: Spearman {text}")
                ax.fill_between(curve["distance"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
            ax.axhline(0, color="#888888", lw=1, ls=":")
            ax.set(
                title=f"{_short(experiment)}, {label}",
                xlabel=f"difference in {attribute}",
                ylabel="kappa, mean over pairs",
            )
            ax.legend()
    return True


def by_imagenet(
    folder: Path, networks: pd.DataFrame, groups: pd.DataFrame, gaps: pd.DataFrame, colours: dict[str, str]
) -> bool:
    """Networks' kappa with people against their ImageNet accuracy (the article's plot), with the line of `gap.closing`.

    And the means of two people and of two networks. Intervals are over trials and observers; of a network, over trials
    and people.
    """
    if networks.empty:
        return False
    experiments = list(networks["experiment"].unique())
    with figure(folder / "kappa_by_imagenet.png", **_panels(len(experiments)), sharey=True) as (drawing, axes):
        drawing.suptitle("Networks' kappa with people, by their ImageNet accuracy; with 95% intervals")
        for ax, experiment in _each(axes, experiments):
            rows = networks[networks["experiment"] == experiment]
            means = groups[groups["experiment"] == experiment].set_index("pair")
            gap = gaps[gaps["experiment"] == experiment].iloc[0]
            for pair in ("person - person", "cnn - cnn"):
                row, colour = means.loc[pair], colours[pair]
                ax.axhline(row["kappa"], color=colour, label=f"{pair}, mean")
                bounds = row[["kappa_low_observers", "kappa_high_observers"]].astype(float)
                ax.axhspan(*bounds, color=colour, alpha=0.12, lw=0)
            x, y = rows["imagenet_top5"], rows["kappa_with_people"]
            reach = [y - rows["kappa_with_people_low"], rows["kappa_with_people_high"] - y]
            of_networks = colours["cnn - person"]
            ax.errorbar(x, y, reach, fmt="o", color=of_networks, lw=1, label="cnn - person, a network each")
            ends = gap["kappa_of_people"] - gap[["gap_least", "gap_most"]].astype(float)
            ax.plot(gap[["accuracy_least", "accuracy_most"]].astype(float), ends, color=of_networks, ls="--")
            ax.axhline(0, color="#888888", lw=1, ls=":")
            ax.set(title=_short(experiment), xlabel="ImageNet accuracy (top-5)")
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        for ax in axes[:, 0]:
            ax.set_ylabel("kappa")
        _below(drawing, axes[0, 0].get_legend_handles_labels()[0])
    return True


def recurrent(folder: Path, pairs: pd.DataFrame, band: pd.DataFrame) -> bool:
    """Kappa of CORnet-S and of ResNet-50 with each person, against expected agreement (the article's second plot).

    Beside them two people, and the two networks. Grey: 95% of kappa where only chance makes two observers agree.
    """
    colours = colours_of(pairs)
    kinds = pairs["pair"].str.split(" - ").apply(lambda kinds: kinds.count("person"))
    among = {name: (pairs[["first", "second"]] == name).any(axis=1) for name in (RECURRENT, FEEDFORWARD)}
    marks = {
        "two people": (kinds == 2, {"marker": "D", "ms": 3.5, "color": colours.get("person - person", OTHER)}),
        f"{FEEDFORWARD} - person": (
            among[FEEDFORWARD] & (kinds == 1),
            {"marker": "o", "ms": 7, "color": colours.get("cnn - person", OTHER)},
        ),
        f"{RECURRENT} - person": (among[RECURRENT] & (kinds == 1), {"marker": "o", "ms": 4, "color": COLOURS[-1]}),
        f"{RECURRENT} - {FEEDFORWARD}": (
            among[RECURRENT] & among[FEEDFORWARD],
            {"marker": "X", "ms": 8, "color": COLOURS[-1]},
        ),
    }
    compared = pairs[among[RECURRENT] & (kinds == 1) & pairs["kappa"].notna()]
    experiments = [name for name in pairs["experiment"].unique() if (compared["experiment"] == name).any()]
    if not experiments:
        return False
    with figure(folder / "recurrent.png", **_panels(len(experiments))) as (drawing, axes):
        drawing.suptitle(f"Kappa of {RECURRENT} and of {FEEDFORWARD} with people; grey: 95% of chance alone")
        for ax, experiment in _each(axes, experiments):
            here = pairs["experiment"] == experiment
            median = pairs.loc[here & (pairs["trials"] > 0), "trials"].median()
            trials = band["trials"].iloc[(band["trials"] - median).abs().argmin()]
            chance = band[band["trials"] == trials]
            ax.fill_between(chance["expected"], chance["exact_low"], chance["exact_high"], color="#dddddd", lw=0)
            for label, (which, style) in marks.items():
                these = pairs[which & here]
                ax.plot(these["expected"], these["kappa"].astype(float), ls="", mew=0, alpha=0.8, label=label, **style)
            ax.set(title=_short(experiment), xlim=(0, 1), ylim=(-0.3, 1))
            ax.set(xlabel="agreement expected by chance", ylabel="kappa")
        _below(drawing, axes[0, 0].get_legend_handles_labels()[0])
    return True


def _condition(name: str) -> str:
    """'density-50/margin+2' as '50 shapes, +2'; other names as they are."""
    return re.sub(r"^density-(\d+)/margin([+-]\d+)$", r"\1 shapes, \2", name)


def _short(name: str, length: int = 40) -> str:
    name = "margin sets" if name == "margins" else name
    name = re.sub(r"^(texture-shape|noise-generalisation)_", "", name)
    name = name.replace("resnet50-trained-on-", "resnet50 ").replace("-then-finetuned-on-IN", ", fine-tuned IN")
    return name if len(name) <= length else name[: length - 1] + "…"


def main(name: str) -> str:
    sets = load_params().consistency.sets
    if name not in sets:
        raise UserError(f"params.yaml: consistency.sets has no '{name}', only {', '.join(sets)}")
    folder = Path(f"plots/consistency_figures/{name}")
    pairs = read_table(name, "pairs")
    agreement(folder, pairs, read_table(name, "band"))
    by_accuracy(folder, read_table(name, "observers"), read_table(name, "groups"), pairs)
    matrix(folder, pairs)
    drawn = 3 + by_condition(folder, read_table(name, "conditions"), pairs)
    drawn += by_imagenet(
        folder, *(read_table(name, table) for table in ("imagenet", "groups", "gap")), colours_of(pairs)
    )
    drawn += forest(folder, read_table(name, "effects"))
    drawn += recurrent(folder, pairs, read_table(name, "band"))
    drawn += by_distance(folder, read_table(name, "distances"), sets[name].distance or "")
    return f"{drawn} figures"


if __name__ == "__main__":
    run(main, name=str)
