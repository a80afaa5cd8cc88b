"""Confusion matrices as heat maps, alone or in the layout of the document's Figs. 3 to 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.countclip.captions import NUMBERS
from pipeline.countclip.published import FIGURE_3, PRETRAINED, TABLE, matrix_of
from pipeline.figures import SEQUENTIAL, figure

EVERY = (PRETRAINED, *(row.name for row in TABLE))
LAYOUTS = {  # file -> reading, configurations by panel, columns
    "figure_3.png": ("best", (PRETRAINED, *FIGURE_3), 3),
    "figure_4.png": ("last", EVERY, 4),
    "figure_5.png": ("best", EVERY, 4),
}
READINGS = {"last": "end of the 10th epoch", "best": "early stopping"}


def heat(ax: Axes, values: np.ndarray, form: str = "{:d}") -> None:
    """Values [9, 9] of a confusion matrix, rows true, columns answered, each written into its cell."""
    ax.imshow(values, cmap=SEQUENTIAL, vmin=0, vmax=max(values.max(), 1e-9))
    ax.grid(False)
    ax.set(xticks=range(9), yticks=range(9), xticklabels=NUMBERS, yticklabels=NUMBERS)
    ax.set(xlabel="answered", ylabel="in the image")
    for (y, x), value in np.ndenumerate(values):
        dark = value < 0.6 * values.max()
        ax.text(x, y, form.format(value), ha="center", va="center", fontsize=6.5, color="w" if dark else "k")


def draw_matrices(path: Path, panels: Sequence[tuple[str, np.ndarray]], columns: int, title: str) -> None:
    """Panels of (what it is, counts [9, 9]) in rows of so many, each with its share of right answers."""
    rows = -(-len(panels) // columns)
    with figure(path, nrows=rows, ncols=columns, figsize=(3.6 * columns, 4.2 * rows), squeeze=False) as (drawing, axes):
        for ax in axes.flat[len(panels) :]:
            ax.axis("off")
        for place, (ax, (label, counts)) in enumerate(zip(axes.flat, panels, strict=False)):
            heat(ax, counts)
            ax.set_title(f"({chr(ord('a') + place)}) {label}\n{np.trace(counts) / counts.sum():.2%}", fontsize=9)
        drawing.suptitle(title)


def draw_published_layout(answers: dict[tuple[str, str], np.ndarray], folder: Path, whose: str) -> None:
    """Figs. 3 to 5 of matrices by (configuration, reading), as figure_3.png to figure_5.png."""
    for name, (reading, configurations, columns) in LAYOUTS.items():
        panels = [(label, matrix_of(answers, label, reading)) for label in configurations]
        number = name.removeprefix("figure_").removesuffix(".png")
        draw_matrices(folder / name, panels, columns, f"Fig. {number}, {whose}: {READINGS[reading]}")
