"""The paper's figures, and the one it asks for: bias against training density.

python -m pipeline.shapes.figures
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from pipeline.figures import COLOURS, SEQUENTIAL, figure
from pipeline.params import Params, load_params
from pipeline.shapes.paths import PLOTS, observer, shard_path, split_name
from pipeline.shards import read_shard
from pipeline.stage import run
from pipeline.statistics.psychometric import probability

SAMPLE_DENSITY = 40  # of the paper's sample sheet
SHOWN = (10, 50, 90)  # the networks of the paper's Fig. 3
SAMPLES = 9


def nearest(values: list[int], wanted: int) -> int:
    return min(values, key=lambda value: abs(value - wanted))


def read_table(name: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((PLOTS / f"{name}.json").read_text()))


def network_colours(densities: list[int]) -> dict[int, tuple]:
    """One colour a network, ordered by density."""
    return dict(zip(sorted(densities), plt.get_cmap(SEQUENTIAL)(np.linspace(0, 0.9, len(densities))), strict=True))


def training(params: Params) -> None:
    """Fig. 1: loss curves, and samples of one density's training images."""
    colours = network_colours(params.densities)
    density = nearest(params.densities, SAMPLE_DENSITY)
    samples = islice(read_shard(shard_path(split_name(density, "train"))), SAMPLES)
    losses = read_table("curves")
    images = [cv2.imdecode(np.frombuffer(sample["png"], np.uint8), cv2.IMREAD_GRAYSCALE) for sample in samples]
    with figure(PLOTS / "training.png", ncols=2, figsize=(10, 4.2), width_ratios=[1.25, 1]) as (_, (curves, sheet)):
        for network, colour in colours.items():
            curve = losses[losses["network"] == network]
            curves.plot(curve["images_seen"], curve["loss"], color=colour, label=observer(network))
        curves.axhline(np.log(2), color="#888888", lw=1, ls=":")
        curves.annotate("chance", (1, np.log(2)), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        curves.set(title="Training loss, mean of runs", xlabel="images seen", ylabel="cross entropy (nats)")
        curves.set_ylim(bottom=0)
        curves.legend(ncols=3)
        side = int(np.sqrt(SAMPLES))
        tiles = [np.pad(image, 1, constant_values=255) for image in images[: side * side]]
        sheet.imshow(np.block([tiles[row * side : (row + 1) * side] for row in range(side)]), cmap=SEQUENTIAL)
        sheet.set(title=f"Training images of density {density}")
        sheet.axis("off")


def heat_map(ax: Axes, accuracy: pd.DataFrame) -> AxesImage:
    """Accuracy in percent, a row a network and a column a test set; a network's own set in bold."""
    table = accuracy.pivot_table(index="network", columns="test", values="accuracy")
    image = ax.imshow(table, cmap=SEQUENTIAL, vmin=0.5, vmax=1)
    for row, column in np.ndindex(*table.shape):
        value, own = table.iloc[row, column], table.index[row] == table.columns[column]
        style = {"color": "black" if value > 0.75 else "white", "weight": "bold" if own else "normal"}
        ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", **style)
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(table.shape[0]), [observer(network) for network in table.index])
    ax.grid(visible=False)
    return image


def accuracy_table(accuracy: pd.DataFrame, folder: Path = PLOTS) -> None:
    """Fig. 2: accuracy of every network on every test set."""
    with figure(folder / "accuracy_table.png", figsize=(7, 5.8)) as (drawing, axes):
        image = heat_map(axes, accuracy)
        axes.set(title="Accuracy (%) on every test set, mean of runs; own set in bold")
        axes.set(xlabel="density of the test set", ylabel="network, by the density that it was trained on")
        drawing.colorbar(image, label="accuracy", shrink=0.85, extend="min", format=PercentFormatter(1))


def margin_curves(margins: pd.DataFrame, folder: Path = PLOTS) -> None:
    """Fig. 3: accuracy by margin for three networks, and below it what they answer."""
    networks = sorted({nearest(margins["network"].unique().tolist(), wanted) for wanted in SHOWN})
    options = {"nrows": 2, "ncols": len(networks), "sharex": True, "sharey": True, "squeeze": False}
    with figure(folder / "margins.png", figsize=(max(3.6 * len(networks), 6), 6.3), **options) as (drawing, axes):
        drawing.suptitle("Accuracy and answers by margin, mean of runs, with 95% intervals", fontsize=11)
        for column, network in enumerate(networks):
            for row, name in enumerate(("accuracy", "circle")):
                ax = axes[row, column]
                for colour, (density, curve) in zip(
                    COLOURS, margins[margins["network"] == network].groupby("density"), strict=False
                ):
                    ax.plot(curve["margin"], curve[name], "o-", color=colour, label=f"{density} shapes")
                    ax.fill_between(
                        curve["margin"], curve[f"{name}_low"], curve[f"{name}_high"], color=colour, alpha=0.15, lw=0
                    )
                ax.axhline(0.5, color="#888888", lw=1, ls=":")
                ax.axvline(0, color="#888888", lw=1, ls=":")
                ax.set_ylim(-0.02, 1.02)
            axes[0, column].set_title(observer(network))
            axes[1, column].set_xlabel("circles - squares")
        axes[0, 0].set_ylabel("accuracy")
        axes[1, 0].set_ylabel("fraction answered 'circle'")
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def psychometric_functions(margins: pd.DataFrame, bias: pd.DataFrame, folder: Path = PLOTS) -> None:
    """What every network answers: means of training runs with intervals, and the fitted function of each run."""
    networks = margins["network"].unique()
    columns = min(3, len(networks))
    rows = -(-len(networks) // columns)
    options = {"nrows": rows, "ncols": columns, "sharex": True, "sharey": True, "squeeze": False}
    fine = np.linspace(margins["margin"].min(), margins["margin"].max(), 200)
    size = max(3.4 * columns, 6), 2.6 * rows + 0.9
    with figure(folder / "psychometric.png", figsize=size, **options) as (drawing, axes):
        for ax in axes.flat[len(networks) :]:
            ax.axis("off")
        for ax, network in zip(axes.flat, networks, strict=False):
            fits = bias[bias["network"] == network].set_index("density")
            for colour, (density, points) in zip(
                COLOURS, margins[margins["network"] == network].groupby("density"), strict=False
            ):
                errors = [points["circle"] - points["circle_low"], points["circle_high"] - points["circle"]]
                ax.errorbar(points["margin"], points["circle"], errors, fmt="o", color=colour, ms=3.5, lw=1)
                of_runs = (fits.loc[density, f"{name}_by_run"] for name in ("intercept", "slope", "lapse"))
                for run, fitted in enumerate(zip(*of_runs, strict=True)):
                    label = None if run else f"{density} shapes"
                    ax.plot(fine, probability(fine, *fitted), color=colour, lw=1, label=label)
            ax.axhline(0.5, color="#888888", lw=1, ls=":")
            ax.axvline(0, color="#888888", lw=1, ls=":")
            ax.set(title=observer(network), ylim=(-0.02, 1.02))
        for column in range(columns):
            axes[(len(networks) - 1 - column) // columns, column].set_xlabel("circles - squares")
            axes[(len(networks) - 1 - column) // columns, column].tick_params(labelbottom=True)
        drawing.suptitle("Answers by margin, and the function fitted to each training run", fontsize=11)
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        drawing.supylabel("fraction answered 'circle'", fontsize=10)


def bias_by_density(margins: pd.DataFrame, bias: pd.DataFrame, folder: Path = PLOTS) -> None:
    """Where the boundary lies, against the density that the network was trained on: each run, and their mean.

    Beyond the margins that were tested it is the fitted function's. Of a network whose answers do not rise with the
    margin, the share of 'circle' stands there.
    """
    circle = margins.groupby(["network", "density"])["circle"].mean()  # of all runs
    groups = list(bias.groupby("density"))
    networks = sorted(bias["network"].unique())
    tested = margins["margin"].min(), margins["margin"].max()
    limit = max(8.0, 1.15 * bias["pse"].astype(float).abs().max(skipna=True))
    options = {"ncols": len(groups), "sharex": True, "sharey": True, "squeeze": False}
    with figure(folder / "bias.png", figsize=(3.6 * len(groups), 3.9), **options) as (drawing, axes):
        drawing.suptitle(
            "Where the boundary lies, by training density: 95% intervals, and each run as a point", fontsize=11
        )
        for ax, colour, (density, rows) in zip(axes.flat, COLOURS, groups, strict=False):
            ax.axhspan(*tested, color="#888888", alpha=0.15, lw=0, label="margins tested")
            known = rows.dropna(subset=["pse"])
            # an interval without end runs off the panel
            low = known["pse"] - known["pse_low"].astype(float).fillna(-1e3)
            high = known["pse_high"].astype(float).fillna(1e3) - known["pse"]
            ax.errorbar(known["network"], known["pse"].astype(float), [low, high], fmt="o", color=colour, capsize=2)
            for network, of_runs in rows.set_index("network")["pse_by_run"].items():
                ax.plot([network + 1.5] * len(of_runs), np.array(of_runs, float), ".", color=colour, ms=4, alpha=0.6)
            for network in rows.loc[rows["pse"].isna(), "network"]:
                place = {"xy": (network, limit / 40), "rotation": 90, "ha": "center", "va": "bottom"}
                share = circle[network, density]
                ax.annotate(f"{share:.0%} circle", **place, color="#555555", fontsize=8)
            ax.axhline(0, color="#888888", lw=1, ls=":")
            ax.set(title=f"Test images of {density} shapes", ylim=(-limit, limit), xticks=networks)
            ax.set_xlabel("density of the training images")
        axes[0, 0].set_ylabel("point of subjective equality (shapes)\nbelow 0: favours circles")
        axes[0, 0].legend(loc="upper right")


def main() -> str:
    params = load_params()
    margins, bias = read_table("margins"), read_table("bias")
    training(params)
    accuracy_table(read_table("accuracy"))
    margin_curves(margins)
    psychometric_functions(margins, bias)
    bias_by_density(margins, bias)
    return "5 figures"


if __name__ == "__main__":
    run(main)
