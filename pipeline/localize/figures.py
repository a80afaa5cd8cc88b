"""Counters on purpose beside the one that was not asked to count; heat maps; what is read from layers; moved scenes.

python -m pipeline.localize.figures

Curves of counters are means over their training runs. What is found in a scene, heat maps, read-outs and moved scenes
are of one network each, in its first run.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import safetensors.numpy
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from pipeline.figures import COLOURS, figure
from pipeline.localize.figures_heat import FIGURES, both_sheet, clip_sheet, heat_sheet
from pipeline.localize.paths import (
    CLASSIFY,
    PLOTS,
    TRUE_MASK,
    boxes_path,
    masks_path,
    test_name,
    training_metrics,
)
from pipeline.localize.scenes import load
from pipeline.params import load_params
from pipeline.stage import run
from pipeline.statistics.psychometric import probability

GREY = "#888888"
SQUARES, CIRCLES = COLOURS[4], COLOURS[5]  # in every figure; no counter has these
KINDS_COLOURED = ListedColormap(["#000000", SQUARES, CIRCLES])  # background, square, circle
COLOURS_OF = {"background": GREY, "square": SQUARES, "circle": CIRCLES, "squares": SQUARES, "circles": CIRCLES}


def read(name: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((PLOTS / f"{name}.json").read_text())).replace({None: np.nan})


def looks(names: list[str]) -> dict[str, dict]:
    """How each observer's line is drawn: the classifier black, what true masks would give dashed."""
    colours = iter(COLOURS)
    fixed = {CLASSIFY: {"color": "#000000", "lw": 2.2}, TRUE_MASK: {"color": GREY, "ls": "--"}}
    return {name: {"label": name, **(fixed.get(name) or {"color": next(colours)})} for name in names}


def band(ax: Axes, x: object, rows: pd.DataFrame, column: str, look: dict) -> None:
    values = rows[[column, f"{column}_low", f"{column}_high"]].astype(float)
    ax.plot(x, values[column], "o", **{"ls": "-"} | look)
    ax.fill_between(x, values[f"{column}_low"], values[f"{column}_high"], color=look["color"], alpha=0.13, lw=0)


def comparison(margins: pd.DataFrame, bias: pd.DataFrame) -> None:
    """The question's answer: accuracy by margin and density, and what is answered, with the mean of the runs' fits."""
    densities, names = sorted(margins["density"].unique()), list(dict.fromkeys(margins["counter"]))
    look = looks(names)
    fine = np.linspace(margins["margin"].min(), margins["margin"].max(), 200)
    layout = {"nrows": 2, "ncols": len(densities), "sharex": True, "sharey": True, "squeeze": False}
    with figure(FIGURES / "comparison.png", figsize=(3.7 * len(densities), 6.6), **layout) as (drawing, axes):
        for column, density in enumerate(densities):
            for name in names:
                rows = margins[(margins["density"] == density) & (margins["counter"] == name)]
                band(axes[0, column], rows["margin"], rows, "accuracy", look[name])
                axes[1, column].plot(rows["margin"], rows["circle"].astype(float), "o", color=look[name]["color"])
                fit = bias[(bias["density"] == density) & (bias["counter"] == name)].iloc[0]
                of_runs = zip(fit["intercept_by_run"], fit["slope_by_run"], fit["lapse_by_run"], strict=True)
                curve = np.mean([probability(fine, *of_run) for of_run in of_runs], axis=0)
                axes[1, column].plot(fine, curve, **look[name])
            axes[0, column].set_title(f"{density} shapes")
            axes[1, column].set_xlabel("circles - squares")
            for ax in axes[:, column]:
                ax.axhline(0.5, color=GREY, lw=1, ls=":")
                ax.axvline(0, color=GREY, lw=1, ls=":")
                ax.set(ylim=(-0.02, 1.02), xticks=sorted(margins["margin"].unique()))
        axes[0, 0].set_ylabel("accuracy")
        axes[1, 0].set_ylabel("fraction answered 'circle'")
        drawing.suptitle("Majority by counting on purpose, and by the network that was asked for the majority")
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))


def counting(counts: pd.DataFrame, detection: pd.DataFrame, masks: pd.DataFrame, tests: pd.DataFrame) -> None:
    """Accuracy, error of the counts, AP and IoU by the density of the test images."""
    look = looks(list(dict.fromkeys(tests["counter"])))
    with figure(FIGURES / "by_density.png", ncols=4, figsize=(15, 4.2)) as (drawing, axes):
        for name, rows in tests.groupby("counter", sort=False):
            band(axes[0], rows["density"], rows, "accuracy", look[name])
        for name, rows in counts.groupby("counter", sort=False):
            band(axes[1], rows["density"], rows, "error", look[name])
        for name, rows in detection.groupby("counter", sort=False) if len(detection) else ():
            for column, style in (("ap50", "-"), ("ap", "--"), ("ap75", ":")):
                of_boxes = {"color": look[name]["color"], "ls": style, "label": f"{name}, {column.upper()}"}
                band(axes[2], rows["density"], rows, column, of_boxes)
        for name, rows in masks.groupby("class", sort=False) if len(masks) else ():
            band(axes[3], rows["density"], rows, "iou", {"color": COLOURS_OF[name], "label": name})
        drawing.suptitle("Counters by the density of the test images, with 95% intervals")
        axes[0].set(title="Majority chosen rightly", ylabel="accuracy", ylim=(0.4, 1.02))
        axes[1].set(title="Counts are off by", ylabel="shapes of a kind and image, mean")
        axes[2].set(title="Boxes (COCO)", ylabel="average precision", ylim=(0, 1.02))
        axes[3].set(title="Pixels", ylabel="IoU (Jaccard index)", ylim=(0, 1.02))
        for ax in axes:
            ax.set_xlabel("density of the test images")
        for ax in axes[2:]:
            if ax.lines:
                ax.legend()
        drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(look))


def found_sheet(counters: list[str], run: int, densities: list[int], canvas: int) -> None:
    """A scene of each density: its shapes, the boxes that one run found, the pixels as it named them."""
    of_run = [(c, boxes_path(c, run), masks_path(c, run)) for c in counters]
    boxes = {c: pd.read_parquet(path) for c, path, _ in of_run if path.exists()}
    masks = {c: safetensors.numpy.load(path.read_bytes()) for c, _, path in of_run if path.exists()}
    if not boxes and not masks:
        return
    rows = sorted({densities[0], densities[len(densities) // 2], densities[-1]})
    columns = ["scene", *boxes, *(["true mask"] if masks else []), *masks]
    layout = {"nrows": len(rows), "ncols": len(columns), "squeeze": False}
    with figure(FIGURES / "found.png", figsize=(3.1 * len(columns), 3.3 * len(rows) + 0.3), **layout) as (
        drawing,
        axes,
    ):
        drawing.suptitle("What counters on purpose find in a scene of each density: squares orange, circles blue")
        for line, density in zip(axes, rows, strict=True):
            name = test_name(density)
            scenes = load(name, canvas, 1)
            pixels, shapes = scenes.pixels[0], scenes.shapes[0]
            for ax, column in zip(line, columns, strict=True):
                ax.axis("off")
                ax.set_title(f"{column}, {density} shapes" if column == "scene" else column, fontsize=9)
                if column in masks or column == "true mask":
                    seen = masks[column][name][0] if column in masks else shapes.mask(256)
                    ax.imshow(seen, cmap=KINDS_COLOURED, vmin=0, vmax=2, extent=(0, 1, 1, 0), interpolation="nearest")
                    continue
                ax.imshow(pixels, cmap="gray", extent=(0, 1, 1, 0))
                if column == "scene":
                    outlines = zip(shapes.boxes, shapes.label, strict=True)
                else:
                    threshold = json.loads(training_metrics(column, run).read_text())["threshold"]
                    table = boxes[column]
                    first = (table["condition"] == name) & (table["image"] == scenes.keys[0])
                    kept = table[first & (table["score"] >= threshold)]
                    outlines = zip(kept[["x0", "y0", "x1", "y1"]].to_numpy(), kept["label"], strict=True)
                for (x0, y0, x1, y1), label in outlines:
                    colour = KINDS_COLOURED(int(label))
                    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=0.9))


def explanations(rows: pd.DataFrame, network: str) -> None:
    """Where the heat is, against the shapes' area, and what it is good for; trained against random weights."""
    panels = {
        "chosen_over_area": ("Heat on the chosen kind", "share, in multiples of its area"),
        "specificity": ("... minus heat on the other kind", "each in multiples of its area"),
        "iou": ("IoU with the chosen kind's mask", "Jaccard index"),
        "pointing": ("Hottest pixel on the chosen kind", "share of images"),
        "deletion": ("Deletion: lower is better", "mean probability"),
        "insertion": ("Insertion: higher is better", "mean probability"),
    }
    layout = {"nrows": 2, "ncols": 3, "sharey": True, "figsize": (11.5, 6.8)}
    with figure(FIGURES / f"explanations_{network}.png", **layout) as (drawing, axes):
        for ax, (measure, (title, label)) in zip(axes.flat, panels.items(), strict=True):
            these = rows[(rows["measure"] == measure) & (rows["network"] == network)]
            for place, (column, name) in enumerate((("value", "trained"), ("random", "random weights"))):
                values = these[[column, f"{column}_low", f"{column}_high"]].astype(float)
                errors = [values[column] - values[f"{column}_low"], values[f"{column}_high"] - values[column]]
                at = np.arange(len(these)) + (place - 0.5) * 0.3
                ax.errorbar(values[column], at, xerr=errors, fmt="o", color=COLOURS[place], label=name)
            ax.set_yticks(range(len(these)), these["method"])
            ax.set(title=title, xlabel=label)
        drawing.suptitle(f"Where heat maps of {network} are hot, by method, with 95% intervals")
        axes[0, 0].invert_yaxis()
        for ax, everywhere in zip(axes.flat, (1, 0), strict=False):  # of heat that is the same everywhere
            ax.axvline(everywhere, color=GREY, lw=1, ls=":")
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def read_outs(rows: pd.DataFrame) -> None:
    """R² of each count by layer."""
    sets, layers = list(dict.fromkeys(rows["images_of"])), list(dict.fromkeys(rows["layer"]))
    with figure(FIGURES / "readout.png", ncols=len(sets), figsize=(5 * len(sets), 4.2), sharey=True) as (drawing, axes):
        for ax, images_of in zip(axes, sets, strict=True):
            for target in dict.fromkeys(rows["target"]):
                colour = COLOURS_OF.get(target) or {"difference": COLOURS[2]}.get(target, COLOURS[3])
                for state, style in (("trained", "-"), ("random", "--")):
                    these = rows[
                        (rows["images_of"] == images_of) & (rows["target"] == target) & (rows["weights"] == state)
                    ]
                    band(
                        ax,
                        range(len(layers)),
                        these,
                        "r2",
                        {"color": colour, "ls": style, "label": f"{target}, {state}"},
                    )
            ax.axhline(0, color=GREY, lw=1, ls=":")
            ax.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
            ax.set(title=f"Images of {images_of.removesuffix(' density')}", ylim=(-0.3, 1.02))
        axes[0].set_title("Images of the network's own density")
        axes[0].set_ylabel("R² of held-out images")
        drawing.suptitle("How well numbers of shapes are read out of each layer, linearly")
        drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def units(found: pd.DataFrame, ablated: pd.DataFrame) -> None:
    """The units ranked first for one count and against the other, and what decisions become without them."""
    with figure(FIGURES / "units.png", ncols=2, figsize=(9.5, 4.5)) as (drawing, axes):
        drawing.suptitle("Units that follow one count, and decisions without them")
        for kind, rows in found.groupby("follows", sort=False):
            colour = COLOURS_OF[kind]
            chosen = rows[["r_squares", "r_circles"]].astype(float)
            axes[0].plot(chosen["r_squares"], chosen["r_circles"], "o", color=colour, label=f"ranked for {kind}s")
            without = ablated[ablated["follows"] == kind]
            axes[1].plot(without["units"], without["changed"], "o-", color=colour, label=f"ranked first for {kind}s")
        axes[1].plot(without["units"], without["changed_by_chance"], "o--", color=GREY, label="by chance, mean")
        axes[1].plot(
            without["units"], without["changed_by_chance_high"], ":", color=GREY, label="by chance, 95th percentile"
        )
        for line in (axes[0].axhline, axes[0].axvline):
            line(0, color=GREY, lw=1, ls=":")
        limits = {"xlim": (-1.03, 1.03), "ylim": (-1.03, 1.03)}
        axes[0].set(title="Units, on images that did not rank them", **limits)
        axes[0].set(xlabel="correlation with squares, circles held", ylabel="correlation with circles, squares held")
        axes[1].set(
            title="Decisions without units", xlabel="units held at their mean", ylabel="share of decisions changed"
        )
        axes[1].set_xscale("log", base=2)
        for ax in axes:
            ax.legend()


def shifts(rows: pd.DataFrame) -> None:
    """How many decisions change when the scene moves, turns or grows, and how far it changes itself."""
    ways = list(dict.fromkeys(rows["way"]))
    titles = {"rolled": "Rolled: nothing is lost", "cut": "Cut: what leaves is gone"}
    titles |= {"turned": "Turned, both ways", "zoomed": "Enlarged and reduced"}
    units = {"turned": "degrees", "zoomed": "percent"}
    lines = -(-len(ways) // 2)
    layout = {"nrows": lines, "ncols": 2, "figsize": (10.5, 3.6 * lines + 0.7), "sharey": True, "squeeze": False}
    with figure(FIGURES / "shifts.png", **layout) as (drawing, axes):
        for ax, way in zip(axes.flat, ways, strict=False):
            for colour, (padding, these) in zip(
                COLOURS, rows[rows["way"] == way].groupby("padding", sort=False), strict=False
            ):
                band(ax, these["shift"], these, "changed", {"color": colour, "label": f"{padding} padding"})
            of_scene = rows[(rows["way"] == way) & (rows["padding"] == "zeros")]
            band(ax, of_scene["shift"], of_scene, "shapes_lost", {"color": GREY, "ls": ":", "label": "shapes lost"})
            pixels = {"color": "#000000", "ls": ":", "label": "pixels, of another scene's distance"}
            band(ax, of_scene["shift"], of_scene, "pixels_apart", pixels)
            ax.set(title=titles[way], xlabel=units.get(way, "pixels moved by"))
        for ax in axes[:, 0]:
            ax.set_ylabel("share changed")
        for ax in axes.flat[len(ways) :]:
            ax.axis("off")
        drawing.suptitle("Share of decisions, and of scenes, that change when the scene is moved, turned or enlarged")
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


def main() -> str:
    FIGURES.mkdir(parents=True, exist_ok=True)
    comparison(read("margins"), read("bias"))
    counting(read("counts"), read("detection"), read("masks"), read("tests"))
    params = load_params()
    study = params.localize
    found_sheet(study.counters, study.runs[0], sorted(params.densities), params.shapes.scene.canvas)
    explained = study.explained
    for density in explained:
        heat_sheet(density)
        both_sheet(density)
    explained_by = read("explanations")
    for network in dict.fromkeys(explained_by["network"]):
        explanations(explained_by, network)
    clip_sheet()
    read_outs(read("readout"))
    units(read("units"), read("ablations"))
    shifts(read("shifts"))
    return f"{7 + 3 * len(explained)} figures"


if __name__ == "__main__":
    run(main)
