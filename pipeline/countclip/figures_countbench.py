"""Confusion matrices as the paper's Figs. 3 to 5, precision and recall of each number, and the course of training.

python -m pipeline.countclip.figures_countbench
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.countclip.captions import NUMBERS
from pipeline.countclip.drawing import READINGS, draw_matrices, heat
from pipeline.countclip.paths import PLOTS
from pipeline.countclip.published import PRETRAINED, Configuration, matrix_of, read_answers
from pipeline.countclip.runs import run_name
from pipeline.figures import COLOURS, figure
from pipeline.params import load_params
from pipeline.stage import run, write_json

TITLES = {
    "pretrained": "pre-trained",
    "last": "fine-tuned, last epoch",
    "best": "fine-tuned, best epoch on this benchmark",
    "held_out": "fine-tuned, best epoch on held-out pairs",
}

MEASURES = {"recall": "Recall", "precision": "Precision", "f1": "F1"}
ACCURACIES = {"countbench": "CountBench", "held_out": "held-out pairs, mean over numbers"}


def answers_file(weights: str) -> Path:
    return PLOTS / "confusion" / f"{weights}.json"


def answers_here(weights: str) -> np.ndarray:
    """Counts [9, 9] of this run's answers, rows true, columns answered."""
    rows = pd.read_json(answers_file(weights))
    counts = pd.crosstab(rows["number"], rows["answered"]).reindex(index=NUMBERS, columns=NUMBERS, fill_value=0)
    return counts.to_numpy()


def beside_published(path: Path, configuration: Configuration) -> None:
    """This run's matrices, and above them the published ones of its configuration, where there are any."""
    published = read_answers()
    readings = {"pre-trained": (PRETRAINED, "last")}
    readings |= {label: (configuration.name, reading) for reading, label in READINGS.items()}
    panels = []
    if (configuration.name, "last") in published:
        panels = [(f"{label}, published", matrix_of(published, *key)) for label, key in readings.items()]
    for label, (name, reading) in readings.items():
        panels.append((f"{label}, here", answers_here(name if name == PRETRAINED else reading)))
    draw_matrices(path, panels, len(readings), f"{configuration.name}: Figs. 4 and 5, and the answers here")


def confusion(path: Path) -> None:
    """A row a model: counts of images, in all runs together, and shares of those that show a number."""
    names = [name for name in TITLES if answers_file(name).exists()]
    with figure(path, nrows=2, ncols=len(names), figsize=(3.75 * len(names), 8.0), squeeze=False) as (drawing, axes):
        drawing.suptitle("Answers on CountBench. Above: images. Below: shares of the images that show a number")
        for column, name in zip(axes.T, names, strict=True):
            counts = answers_here(name)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            accuracy = np.trace(counts) / counts.sum()
            title = TITLES[name].replace(", ", ",\n")
            column[0].set_title(f"{title}\naccuracy {accuracy:.1%}", fontsize=9)
            for ax, values, form in ((column[0], counts, "{:d}"), (column[1], shares, "{:.2f}")):
                heat(ax, values, form)


def published_measures(configuration: Configuration) -> dict[str, dict[str, np.ndarray]]:
    """By weights and measure, the nine numbers' values (0..1) of the published matrices, where there are any.

    A number that is never answered has no precision, NaN, nor F1.
    """
    answers, found = read_answers(), {}
    if (configuration.name, "last") not in answers:
        return found
    readings = {PRETRAINED: (PRETRAINED, "last")} | {name: (configuration.name, name) for name in READINGS}
    for weights, key in readings.items():
        counts = matrix_of(answers, *key)
        right, shown, answered = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0).astype(float)
        answered[answered == 0] = np.nan
        measures = {"recall": right / shown, "precision": right / answered, "f1": 2 * right / (shown + answered)}
        found[weights] = measures
    return found


def by_number(path: Path, configuration: Configuration) -> None:
    """Precision, recall and F1 of each number: means of the runs of fine-tuning, and each run as a point.

    Diamonds are the published matrices'.
    """
    published = published_measures(configuration)
    rows = pd.DataFrame(json.loads((PLOTS / "by_number.json").read_text()))
    with figure(path, ncols=3, figsize=(12, 4.2), sharey=True) as (drawing, axes):
        drawing.suptitle("CountBench by number: lines are means of runs, points single runs")
        for ax, measure in zip(axes, MEASURES, strict=True):
            for colour, name in zip(COLOURS, [n for n in TITLES if n in set(rows["weights"])], strict=False):
                these = rows[rows["weights"] == name]
                ax.plot(these["number"], these[measure].astype(float), "-", color=colour, label=TITLES[name])
                points = these[["number", f"{measure}_by_run"]].explode(f"{measure}_by_run").dropna()
                ax.plot(points["number"], points[f"{measure}_by_run"], ".", color=colour, alpha=0.6)
                if name in published:
                    style = {"color": colour, "mfc": "white", "ms": 5, "zorder": 3}
                    ax.plot(NUMBERS, published[name][measure], "D", **style)
            ax.axhline(1 / len(NUMBERS), color="0.5", lw=0.8, ls="--")
            ax.set(xlabel="number", title=f"{MEASURES[measure]} by number", xticks=NUMBERS, ylim=(0, 1.02))
        axes[0].text(NUMBERS[-1], 1 / len(NUMBERS) + 0.015, "chance", fontsize=8, ha="right", color="0.4")
        handles, labels = axes[0].get_legend_handles_labels()
        if published:
            handles.append(axes[0].plot([], [], "D", ms=5, mfc="white", mec="0.3")[0])
            labels.append("published, in the same colours")
        drawing.legend(handles, labels, loc="outside lower center", ncols=3)


def training(path: Path, runs: list[int]) -> None:
    """Both losses over the steps, accuracies over the epochs: thin each run, thick their mean.

    The mean accuracies go to accuracy_by_epoch.json too, for `dvc plots`.
    """
    files = [run_name(run) for run in runs]
    curves = pd.concat(pd.read_csv(PLOTS / f"training/{name}.csv").assign(run=name) for name in files)
    epochs = pd.concat(pd.read_json(PLOTS / f"epochs/{name}.json").assign(run=name) for name in files)

    epochs[list(ACCURACIES)] = epochs[list(ACCURACIES)].astype(float)
    means = epochs.groupby("epoch", as_index=False)[list(ACCURACIES)].mean()
    write_json(PLOTS / "accuracy_by_epoch.json", means.to_dict("records"))

    def lines(ax: Axes, table: pd.DataFrame, x: str, y: str, colour: str, label: str) -> None:
        for _, one in table.groupby("run"):
            ax.plot(one[x], one[y], color=colour, lw=0.6, alpha=0.6)
        mean = table.groupby(x)[y].mean()
        ax.plot(mean.index, mean, color=colour, lw=1.8, label=label)

    with figure(path, ncols=2, figsize=(9, 3.3)) as (_, (left, right)):
        for colour, name, label in ((COLOURS[0], "clip", "L_CLIP"), (COLOURS[1], "count", "λ L_count")):
            lines(left, curves, "step", name, colour, label)
        left.set(title="Losses in fine-tuning, mean of runs", xlabel="step", ylabel="loss (nats)", ylim=(0, None))
        left.legend()
        for colour, (name, label) in zip(COLOURS, ACCURACIES.items(), strict=False):
            if epochs[name].notna().any():
                lines(right, epochs, "epoch", name, colour, label)
        right.axhline(1 / len(NUMBERS), color="0.5", lw=0.8, ls="--", label="chance")
        right.set(title="Accuracy after each epoch, mean of runs", xlabel="epoch", ylabel="accuracy", ylim=(0, None))
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend()


def main() -> str:
    params = load_params()
    settings = params.countclip.training
    configuration = Configuration(params.lambda_, settings.scheduler, settings.counterfactuals == "all")
    confusion(PLOTS / "confusion.png")
    beside_published(PLOTS / "beside_published.png", configuration)
    by_number(PLOTS / "by_number.png", configuration)
    training(PLOTS / "training.png", params.countclip.runs)
    return "4 figures"


if __name__ == "__main__":
    run(main)
