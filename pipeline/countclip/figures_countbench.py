"""Confusion matrices as the paper's Figs. 3 to 5, precision and recall of each number, and the course of training.

python -m pipeline.countclip.figures_countbench
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pipeline.countclip.captions import NUMBERS
from pipeline.countclip.paths import PLOTS
from pipeline.figures import COLOURS, SEQUENTIAL, figure
from pipeline.stage import run

TITLES = {
    "pretrained": "pre-trained",
    "last": "fine-tuned, last epoch",
    "best": "fine-tuned, best epoch on this benchmark",
    "held_out": "fine-tuned, best epoch on held-out pairs",
}


def confusion(path: Path) -> None:
    """A row a model: counts of images, and shares of those that show a number."""
    names = [name for name in TITLES if (PLOTS / "confusion" / f"{name}.json").exists()]
    with figure(path, nrows=2, ncols=len(names), figsize=(4.1 * len(names), 8.2), squeeze=False) as (_, axes):
        for column, name in zip(axes.T, names, strict=True):
            rows = pd.read_json(PLOTS / "confusion" / f"{name}.json")
            counts = pd.crosstab(rows["number"], rows["answered"]).reindex(index=NUMBERS, columns=NUMBERS, fill_value=0)
            counts = counts.to_numpy()
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            accuracy = np.trace(counts) / counts.sum()
            column[0].set_title(f"{TITLES[name]}\naccuracy {accuracy:.1%}", fontsize=9)
            for ax, values, form in ((column[0], counts, "{:d}"), (column[1], shares, "{:.2f}")):
                ax.imshow(values, cmap=SEQUENTIAL, vmin=0, vmax=max(values.max(), 1e-9))
                ax.grid(False)
                ax.set(xticks=range(9), yticks=range(9), xticklabels=NUMBERS, yticklabels=NUMBERS)
                ax.set(xlabel="answered", ylabel="in the image")
                for (y, x), value in np.ndenumerate(values):
                    dark = value < 0.6 * values.max()
                    ax.text(
                        x, y, form.format(value), ha="center", va="center", fontsize=6.5, color="w" if dark else "k"
                    )


def by_number(path: Path) -> None:
    """Precision, recall and F1 of each number."""
    rows = pd.DataFrame(json.loads((PLOTS / "by_number.json").read_text()))
    with figure(path, ncols=3, figsize=(12, 3.4), sharey=True) as (_, axes):
        for ax, measure in zip(axes, ("recall", "precision", "f1"), strict=True):
            for colour, name in zip(COLOURS, [n for n in TITLES if n in set(rows["weights"])], strict=False):
                these = rows[rows["weights"] == name]
                ax.plot(these["number"], these[measure].astype(float), "o-", color=colour, label=TITLES[name])
            ax.axhline(1 / len(NUMBERS), color="0.5", lw=0.8, ls="--")
            ax.set(xlabel="number", title=measure, xticks=NUMBERS, ylim=(0, 1.02))
        axes[0].legend(fontsize=7.5)
        axes[0].text(NUMBERS[-1], 1 / len(NUMBERS) + 0.015, "chance", fontsize=7, ha="right", color="0.4")


def training(path: Path) -> None:
    """Both losses over the steps, accuracies over the epochs."""
    curve = pd.read_csv(PLOTS / "training.csv")
    epochs = pd.read_json(PLOTS / "epochs.json")
    with figure(path, ncols=2, figsize=(9, 3.3)) as (_, (left, right)):
        for colour, name, label in ((COLOURS[0], "clip", "L_CLIP"), (COLOURS[1], "count", "lambda L_count")):
            left.plot(curve["step"], curve[name], color=colour, label=label)
        left.set(xlabel="step", ylabel="loss (nats)", ylim=(0, None))
        left.legend()
        labels = {"countbench": "CountBench", "held_out": "held-out pairs, mean over numbers"}
        for colour, (name, label) in zip(COLOURS, labels.items(), strict=False):
            if name in epochs:
                right.plot(epochs["epoch"], epochs[name], "o-", color=colour, label=label)
        right.axhline(1 / len(NUMBERS), color="0.5", lw=0.8, ls="--", label="chance")
        right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, None))
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend()


def main() -> str:
    confusion(PLOTS / "confusion.png")
    by_number(PLOTS / "by_number.png")
    training(PLOTS / "training.png")
    return "3 figures"


if __name__ == "__main__":
    run(main)
