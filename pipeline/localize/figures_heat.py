"""Sheets of heat maps: what a decision rests on, by method, for the counter and for CLIP."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import safetensors.numpy
from matplotlib.axes import Axes

from pipeline.figures import SEQUENTIAL, figure
from pipeline.localize.paths import CLIP_HEAT_MAPS, HEAT_MAPS, PLOTS
from pipeline.localize.scenes import KINDS

FIGURES = PLOTS / "figures"
CELL, LINE = 1.3, 1.12  # inches: a column's width, a row's height


def heat(ax: Axes, energy: np.ndarray, image: np.ndarray | None = None) -> None:
    """Heat from zero up; over it, the outlines of the image's shapes, where an image is given."""
    ax.imshow(energy, cmap=SEQUENTIAL, vmin=0)
    if image is not None:
        ax.contour(image, [127], colors="w", linewidths=0.4)


def blocks(path: Path, maps: list[str], scenes: list[dict], states: list[str], title: str) -> None:
    """Each scene has a block of rows, and each state a row in it; each method has a column.

    maps: '<state>/<method>' of every map. scenes: each has 'image' [h, w] or [h, w, 3]; 'caption'; 'heat', which gives
    the map of '<state>/<method>'; and 'outline', an image [h, w] or None.
    """
    methods = list(dict.fromkeys(name.split("/", 1)[1] for name in maps))
    rows = max(len(scenes) * len(states), 1)
    size = (CELL * (1 + len(methods)) + 0.3, LINE * rows + 0.8)
    layout = {"nrows": rows, "ncols": 1 + len(methods), "figsize": size, "squeeze": False}
    with figure(path, **layout) as (drawing, axes):
        drawing.suptitle(title if scenes else "where things are is not known of this pool's images", fontsize=10)
        for ax in axes.flat:
            ax.axis("off")
        for place, (scene, state) in enumerate((scene, state) for scene in scenes for state in states):
            first, *others = axes[place]
            if state == states[0]:
                first.imshow(scene["image"], cmap="gray")
            if state == states[min(1, len(states) - 1)]:
                caption = textwrap.fill(scene["caption"], 18)
                first.text(0.02, 0.95, caption, fontsize=8, va="top", transform=first.transAxes)
            for ax, method in zip(others, methods, strict=True):
                if f"{state}/{method}" in maps:
                    heat(ax, scene["heat"](f"{state}/{method}"), scene["outline"])
                if not place:
                    ax.set_title(method, fontsize=9, loc="center")
            label = {"rotation": 90, "va": "center", "ha": "right", "fontsize": 7.5}
            others[0].text(-0.06, 0.5, state, transform=others[0].transAxes, **label)


def heat_sheet(density: int) -> None:
    """What each method shows of a few scenes, the network trained and with random weights."""
    maps = safetensors.numpy.load(HEAT_MAPS.read_bytes())
    pixels, chosen = maps[f"{density}/pixels"], maps[f"{density}/chosen"]
    states = ["trained", "random"]
    of_density = [name.split("/", 1)[1] for name in sorted(maps) if name.startswith(f"{density}/")]
    shown = [name for name in of_density if name.split("/")[0] in states]
    scenes = [
        {
            "image": image,
            "caption": f"chosen: {KINDS[chosen[row]]}",
            "heat": lambda name, row=row: maps[f"{density}/{name}"][row],
            "outline": image,
        }
        for row, image in enumerate(pixels)
    ]
    title = f"Heat for the chosen kind on scenes of {density} shapes, weights trained and random"
    blocks(FIGURES / f"heat_maps_{density}.png", shown, scenes, states, title)


def both_sheet(density: int) -> None:
    """Heat for either class on the same scenes, by every method that was asked for both."""
    maps = safetensors.numpy.load(HEAT_MAPS.read_bytes())
    pixels, chosen = maps[f"{density}/pixels"], maps[f"{density}/chosen"]
    methods = [name.split("/", 2)[2] for name in sorted(maps) if name.startswith(f"{density}/other class/")]
    columns = [(method, kind) for method in methods for kind in (0, 1)]
    size = (1.25 * (1 + len(columns)), 1.4 * len(pixels) + 0.4)
    layout = {"nrows": len(pixels), "ncols": 1 + len(columns), "squeeze": False}
    with figure(FIGURES / f"heat_both_{density}.png", figsize=size, **layout) as (drawing, axes):
        drawing.suptitle(f"Heat for either kind on the same scenes of {density} shapes, by method")
        for row, image in enumerate(pixels):
            for ax in axes[row]:
                ax.axis("off")
            axes[row, 0].imshow(image, cmap="gray")
            axes[row, 0].set_title(f"chosen: {KINDS[chosen[row]]}", fontsize=8, loc="center", fontweight="normal")
            for ax, (method, kind) in zip(axes[row, 1:], columns, strict=True):
                state = "trained" if kind == chosen[row] else "other class"
                heat(ax, maps[f"{density}/{state}/{method}"][row], image)
                if not row:
                    ax.set_title(f"{method}\nfor {KINDS[kind]}", fontsize=8, loc="center")


def clip_sheet() -> None:
    """What CLIP's similarity to the scene's own caption, and to another's, rests on."""
    maps = safetensors.numpy.load(CLIP_HEAT_MAPS.read_bytes())
    images = sorted({name.split("/")[0] for name in maps})
    shown = [name.split("/", 1)[1] for name in sorted(maps) if name.startswith("0/") and name.count("/") == 2]
    scenes = [
        {
            "image": maps[f"{image}/pixels"],
            "caption": bytes(maps[f"{image}/caption"]).decode(),
            "heat": lambda name, image=image: maps[f"{image}/{name}"],
            "outline": None,
        }
        for image in images
    ]
    states = list(dict.fromkeys(name.split("/")[0] for name in shown))
    title = "What CLIP's similarity rests on: to the scene's caption, to another's, and with random weights"
    blocks(FIGURES / "clip_heat_maps.png", shown, scenes, states, title)
