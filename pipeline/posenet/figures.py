"""Table 2 beside ours, sheets of maps (posenet, Figs. 2 to 5), and position by layer and by padding.

    python -m pipeline.posenet.figures

Seven figures for each reading, 'adam' (as published) and 'optimum', in a folder of its name.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy
from matplotlib.axes import Axes

from pipeline.figures import COLOURS, SEQUENTIAL, figure
from pipeline.params import load_params
from pipeline.posenet.paths import (
    ALL,
    HELD_OUT,
    IMAGES,
    MAPS,
    PLOTS,
    READINGS,
    SMOOTH,
    TESTS,
    layers_path,
)
from pipeline.posenet.patterns import NAMES, pattern
from pipeline.posenet.scores import score
from pipeline.shards import process_pool
from pipeline.stage import run

SHOWN = (HELD_OUT, SMOOTH, *TESTS)
LIMITS = (-1.05, 1.05)  # of a correlation; intervals over few runs may be wider
OF_KERNELS = ("H", "G")  # Figs. 4 and 5: the text has H, the captions G
PADDING_MODES = ("zeros", "reflect", "circular")


def read(name: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((PLOTS / f"{name}.json").read_text())).replace({None: np.nan})


def as_published(networks: list[str]) -> list[str]:
    """Those of the networks that a figure of the document would show: zero padding, trained where there is one."""
    chosen = []
    for backbone in dict.fromkeys(network.split("/")[0] for network in networks):
        for variant in ("raw", "trained-zeros", "random-zeros"):
            if f"{backbone}/{variant}" in networks:
                chosen.append(f"{backbone}/{variant}")
                break
    return chosen


def sheet_of_patterns(patterns: list[str]) -> None:
    """Fig. 2: the maps that should be drawn, and the images that they are drawn from."""
    tests = np.load(IMAGES / "test.npy")
    columns = max(len(patterns), len(tests))
    with figure(PLOTS / "patterns.png", nrows=2, ncols=columns, figsize=(1.9 * columns, 4.5)) as (drawing, axes):
        drawing.suptitle("Above: the maps that should be drawn. Below: the test images", fontsize=11)
        for ax in axes.flat:
            ax.axis("off")
        for ax, name in zip(axes[0], patterns, strict=False):
            picture(ax, pattern(name, 128), f"{name}, {NAMES[name]}")
        for ax, image, name in zip(axes[1], tests, TESTS, strict=False):
            ax.imshow(image.transpose(1, 2, 0))
            ax.set(xticks=[], yticks=[])
            ax.axis("on")
            ax.grid(False)
            ax.spines[:].set_visible(True)
            ax.set_title(name, fontsize=8, loc="center", fontweight="normal")


def picture(ax: Axes, values: np.ndarray, title: str, colour: str = "k") -> None:
    ax.imshow(values, cmap=SEQUENTIAL, vmin=0, vmax=1)
    ax.set_title(title, fontsize=8, color=colour, loc="center", fontweight="normal")
    ax.axis("off")


def table(out: Path, rows: pd.DataFrame, patterns: list[str]) -> None:
    """Table 2: every correlation with its interval, the published ones beside it."""
    networks = list(dict.fromkeys(rows["network"]))
    shown = as_published(networks) + [
        n for n in networks if n.endswith("random-zeros") and n not in as_published(networks)
    ]
    published = list(dict.fromkeys(rows.loc[rows["in_table"].astype(bool), "network"]))
    size = (2.7 * len(patterns) + 1.4, 0.32 * len(SHOWN) * (len(shown) + 1) / 2 + 1.6)
    with figure(out / "table2.png", ncols=len(patterns), figsize=size, sharey=True, squeeze=False) as (drawing, axes):
        for ax, name in zip(axes[0], patterns, strict=True):
            ax.axvline(0, color="0.6", lw=0.8)
            for place, network in enumerate(shown):
                at = np.arange(len(SHOWN)) + (place - (len(shown) - 1) / 2) * 0.8 / len(shown)
                these = (
                    rows[(rows["network"] == network) & (rows["pattern"] == name)].set_index("image").loc[list(SHOWN)]
                )
                colour = COLOURS[place % len(COLOURS)]
                values = these["spearman"].astype(float)
                low, high = values - these["spearman_low"].astype(float), these["spearman_high"].astype(float) - values
                ax.errorbar(values, at, xerr=[low.clip(0), high.clip(0)], fmt="o", ms=4, color=colour, label=network)
                for y, missing in zip(at, values.isna(), strict=True):
                    if missing:
                        ax.text(0, y, "undefined", fontsize=6, color=colour, ha="center", va="center")
                if network in published:
                    ax.plot(these["published_spearman"].astype(float), at, "D", ms=5, mfc="w", mec=colour, zorder=3)
            ax.set(title=f"{name}, {NAMES[name]}", xlim=LIMITS, xlabel="Spearman's correlation")
            labels = {HELD_OUT: "held-out images", SMOOTH: "... without texture"}
            ax.set_yticks(range(len(SHOWN)), [labels.get(image, image) for image in SHOWN])
        axes[0][0].invert_yaxis()
        drawing.suptitle("Table 2: correlation of what is drawn with the pattern, by image, with 95% intervals")
        handles, labels = axes[0][0].get_legend_handles_labels()
        if published:
            handles.append(axes[0][0].plot([], [], "D", ms=5, mfc="w", mec="0.3")[0])
            labels.append("published")
        drawing.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))


def sheet_of_maps(out: Path, maps: dict[str, np.ndarray], networks: list[str], patterns: list[str]) -> None:
    """Fig. 3: what is drawn from the natural test image."""
    networks = as_published(networks)
    size = (1.6 * (len(networks) + 1), 1.85 * len(patterns))
    with figure(out / "maps.png", nrows=len(patterns), ncols=len(networks) + 1, figsize=size, squeeze=False) as (
        drawing,
        axes,
    ):
        drawing.suptitle("What is drawn from the natural test image, by features and pattern", fontsize=10)
        for row, name in zip(axes, patterns, strict=True):
            picture(row[0], pattern(name, 28), f"{name}, should be")
            for ax, network in zip(row[1:], networks, strict=True):
                values = maps[f"{out.name}/{network}/{ALL}/{name}/kernel3-padding0/run0"]
                picture(ax, values, titled(network, values, name))


def sheet_of_kernels(
    out: Path, maps: dict[str, np.ndarray], networks: list[str], kernels: list[int], paddings: list[int], name: str
) -> None:
    """Figs. 4 and 5 as maps: one pattern, and what is drawn of it, by kernel size and by padding."""
    networks = as_published(networks)
    cells = [(kernel, 0) for kernel in sorted(kernels)] + [(3, padding) for padding in sorted(paddings)]
    size = (1.45 * (len(cells) + 1), 1.75 * len(networks) + 0.3)
    layout = {"nrows": len(networks), "ncols": len(cells) + 1, "figsize": size, "squeeze": False}
    with figure(out / f"kernel_maps_{name}.png", **layout) as (drawing, axes):
        for row, network in zip(axes, networks, strict=True):
            picture(row[0], pattern(name, 28), f"{name}, should be")
            for ax, (kernel, padding) in zip(row[1:], cells, strict=True):
                drawn = maps.get(f"{out.name}/{network}/{ALL}/{name}/kernel{kernel}-padding{padding}/run0")
                ax.axis("off")
                if drawn is not None:  # not all are solved
                    setting = f"{kernel} x {kernel}, padding {padding}"
                    picture(ax, drawn, titled(setting, drawn, name))
            row[0].text(
                -0.12, 0.5, network, rotation=90, va="center", ha="right", transform=row[0].transAxes, fontsize=8
            )
        drawing.suptitle(f"What is drawn of {name}, {NAMES[name]}, by kernel size and by padding", fontsize=11)


def titled(network: str, drawn: np.ndarray, name: str) -> str:
    spearman, _ = score(drawn, pattern(name, drawn.shape[-1]))
    return f"{network.replace('/', chr(10))}\n" + ("undefined" if spearman is None else f"$\\rho$ = {spearman:.2f}")


def kernels_and_paddings(
    out: Path, rows: pd.DataFrame, kernels: list[int], paddings: list[int], patterns: list[str]
) -> None:
    """Figs. 4 and 5 as numbers: correlation against kernel size, and against padding."""
    networks = as_published(list(dict.fromkeys(rows["network"])))
    size = (2.6 * len(patterns) + 0.6, 6.2)
    layout = {"nrows": 2, "ncols": len(patterns), "figsize": size, "sharey": True, "squeeze": False}
    with figure(out / "kernels.png", **layout) as (drawing, axes):
        for line, (x, values, fixed) in zip(
            axes, [("kernel", kernels, {"padding": 0}), ("padding", paddings, {"kernel": 3})], strict=True
        ):
            ((other, setting),) = fixed.items()
            for ax, name in zip(line, patterns, strict=True):
                ax.axhline(0, color="0.6", lw=0.8)
                for colour, network in zip(COLOURS, networks, strict=False):
                    these = rows[(rows["network"] == network) & (rows["pattern"] == name) & (rows["inputs"] == ALL)]
                    these = these[(these[other] == setting) & these[x].isin(values)].sort_values(x)
                    band(ax, these[x], these, colour, network)
                ax.set(xlabel="kernel size" if x == "kernel" else "padding, 3 x 3 kernel")
                ax.set(xticks=sorted(values), ylim=LIMITS)
                ax.set_title(f"{name}, {NAMES[name]}" if x == "kernel" else "")
            line[0].set_ylabel("Spearman's correlation,\nheld-out images")
        drawing.suptitle("Correlation with the pattern by kernel size, and by padding")
        drawing.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(networks))


def band(ax: Axes, x: object, rows: pd.DataFrame, colour: str, label: str, style: str = "o-") -> None:
    values = rows[["spearman", "spearman_low", "spearman_high"]].astype(float)
    ax.plot(x, values["spearman"], style, color=colour, label=label)
    ax.fill_between(x, values["spearman_low"], values["spearman_high"], color=colour, alpha=0.15, lw=0)


def layers(out: Path, rows: pd.DataFrame, patterns: list[str]) -> None:
    """What each layer alone tells, trained and random."""
    alone = rows[(rows["inputs"] != ALL) & rows["network"].str.endswith("-zeros")]
    backbones = list(dict.fromkeys(alone["network"].str.split("/").str[0]))
    size = (3.1 * max(len(backbones), 1), 4.4)
    layout = {"ncols": max(len(backbones), 1), "figsize": size, "sharey": True, "squeeze": False}
    with figure(out / "layers.png", **layout) as (drawing, axes):
        for ax, backbone in zip(axes[0], backbones, strict=False):
            present = set(alone[alone["network"].str.startswith(f"{backbone}/")]["inputs"])
            names = [layer for layer in json.loads(layers_path(backbone).read_text()) if layer in present]
            ax.axhline(0, color="0.6", lw=0.8)
            for state, style in (("trained", "o-"), ("random", "o--")):
                for colour, name in zip(COLOURS, patterns, strict=False):
                    these = alone[(alone["network"] == f"{backbone}/{state}-zeros") & (alone["pattern"] == name)]
                    if len(these):
                        ordered = these.set_index("inputs").loc[names]
                        band(ax, range(len(names)), ordered, colour, f"{name}, {state}", style)
            ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
            ax.set(title=backbone, ylim=LIMITS)
        axes[0][0].set_ylabel("Spearman's correlation,\nheld-out images, one layer")
        drawing.suptitle("Position in each layer alone, by pattern")
        found = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        drawing.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(patterns))


def padding_modes(out: Path, rows: pd.DataFrame, patterns: list[str]) -> None:
    """What is left of position where the backbone's borders are not zeros."""
    usual = rows[(rows["inputs"] == ALL) & (rows["kernel"] == 3) & (rows["padding"] == 0)]
    networks = [n for n in dict.fromkeys(usual["network"]) if n.rpartition("-")[2] in PADDING_MODES]
    states = list(dict.fromkeys(n.rpartition("-")[0] for n in networks))
    size = (2.6 * len(patterns) + 0.6, 0.62 * len(states) + 1.7)
    layout = {"ncols": len(patterns), "figsize": size, "sharey": True, "squeeze": False}
    with figure(out / "padding_modes.png", **layout) as (drawing, axes):
        for ax, name in zip(axes[0], patterns, strict=True):
            ax.axvline(0, color="0.6", lw=0.8)
            for place, (mode, colour) in enumerate(zip(PADDING_MODES, COLOURS, strict=False)):
                these = usual[usual["pattern"] == name].set_index("network")
                present = [(y, f"{s}-{mode}") for y, s in enumerate(states) if f"{s}-{mode}" in these.index]
                if not present:
                    continue
                found = these.loc[[network for _, network in present]]
                values = found[["spearman", "spearman_low", "spearman_high"]].astype(float)
                spread = [
                    (values["spearman"] - values["spearman_low"]).clip(0),
                    (values["spearman_high"] - values["spearman"]).clip(0),
                ]
                at = np.array([y for y, _ in present]) + (place - 1) * 0.24
                ax.barh(at, values["spearman"], 0.22, xerr=spread, color=colour, label=f"{mode} padding")
            ax.set(title=f"{name}, {NAMES[name]}", xlim=LIMITS, xlabel="Spearman's correlation")
            ax.set_yticks(range(len(states)), states)
        axes[0][0].invert_yaxis()
        drawing.suptitle("Position by what a backbone's maps are padded with")
        drawing.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def sheets(reading: str) -> int:
    """Draw what one reading gives; returns how many figures."""
    settings = load_params().posenet
    rows, cells = (of_all[of_all["reading"] == reading] for of_all in (read("table2"), read("held_out")))
    networks = list(dict.fromkeys(rows["network"]))
    if not networks:  # too many channels to be solved
        return 0
    out, maps = PLOTS / reading, safetensors.numpy.load(MAPS.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    table(out, rows, settings.patterns)
    sheet_of_maps(out, maps, networks, settings.patterns)
    drawn = [name for name in OF_KERNELS if name in settings.patterns]
    for name in drawn:
        sheet_of_kernels(out, maps, networks, settings.kernel_sizes, settings.paddings, name)
    kernels_and_paddings(out, cells, settings.kernel_sizes, settings.paddings, settings.patterns)
    layers(out, cells, settings.patterns)
    padding_modes(out, cells, settings.patterns)
    return 5 + len(drawn)


def main() -> str:
    sheet_of_patterns(load_params().posenet.patterns)
    with process_pool(chunk=1) as parallel_map:
        drawn = sum(parallel_map(sheets, READINGS))
    return f"{drawn + 1} figures"


if __name__ == "__main__":
    run(main)
