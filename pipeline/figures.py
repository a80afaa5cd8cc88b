"""One matplotlib style for every study, and figures that are the same bytes on every run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pipeline.stage import write_bytes

# Okabe & Ito (2008): distinguishable with every common colour vision
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
SEQUENTIAL = "viridis"

STYLE = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 130,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}


@contextmanager
def figure(path: str | Path, **subplots) -> Iterator[tuple[Figure, object]]:
    """Yield (figure, axes) as `plt.subplots(**subplots)` does, in our style; written to `path` as PNG at the end."""
    with plt.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **STYLE}):
        drawing, axes = plt.subplots(**subplots)
        try:
            yield drawing, axes
            buffer = io.BytesIO()
            drawing.savefig(buffer, format="png", metadata={"Software": None})
        finally:
            plt.close(drawing)
    write_bytes(path, buffer.getvalue())
