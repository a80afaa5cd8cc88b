"""The class frequencies of the counting set (countclip, Fig. 2), and pairs that were kept and dropped.

python -m pipeline.countclip.figures
"""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from pipeline.countclip.paths import FILTERED, PLOTS
from pipeline.countclip.published import FREQUENCIES
from pipeline.countclip.samples import IMAGE_EXTENSIONS
from pipeline.figures import COLOURS, figure
from pipeline.shards import Sample, read_shard
from pipeline.stage import run, write_json

ROWS, COLUMNS = 3, 6


def frequencies(ours: dict[int, int]) -> None:
    """Fig. 2: frequency of each class, its logarithm, and the logarithm of that."""
    classes = np.array(sorted(FREQUENCIES))
    series = (("here", ours, -0.2, COLOURS[0]), ("published", FREQUENCIES, 0.2, "white"))
    labels = ("pairs", "log2(pairs)", "log2(log2(pairs))")
    titles = ("Pairs by number", "Their logarithm", "The logarithm of that")
    with figure(PLOTS / "frequencies.png", ncols=3, figsize=(11, 3.4)) as (_, axes):
        for times, (ax, ylabel, title) in enumerate(zip(axes, labels, titles, strict=True)):
            for label, counts, offset, colour in series:
                values = np.array([counts.get(n, 0) for n in classes], float)
                with np.errstate(divide="ignore", invalid="ignore"):
                    for _ in range(times):
                        values = np.log2(values)
                # a class without pairs, or with one where the logarithm is taken twice, has no bar
                ax.bar(
                    classes + offset,
                    np.where(np.isfinite(values), values, 0),
                    0.4,
                    color=colour,
                    ec="#000000",
                    lw=0.8,
                    label=label,
                )
            ax.set(xlabel="number in the caption", xticks=classes, ylabel=ylabel, title=title)
        axes[0].legend()


def show(ax: Axes, sample: Sample) -> None:
    """A picture with the boxes that were found, the caption's number and what was counted."""
    found = json.loads(sample["json"])
    content = next(sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    ax.imshow(image)
    kept = found["reason"] is None
    for (x0, y0, x1, y1), name in zip(found["boxes"], found["classes"], strict=True):
        most = name == found["detected_class"]
        place = (x0 * image.width, y0 * image.height), (x1 - x0) * image.width, (y1 - y0) * image.height
        ax.add_patch(Rectangle(*place, fill=False, lw=1.4 if most else 0.8, ec=COLOURS[2] if most else "white"))
    caption = textwrap.fill(found["caption"], 27, max_lines=2, placeholder=" …")
    verdict = f"{found['detected_count']} {found['detected_class'] or 'things'}"
    colour = "#007a55" if kept else "#b03000"
    ax.set_title(f"{caption}\n{verdict}", fontsize=8, color=colour, weight="normal", loc="center")
    ax.axis("off")


def sheet(folder: Path, path: Path) -> None:
    """Pictures of pairs that were kept, and below them of pairs whose count differed."""
    parts = {"counting": [], "other": []}
    for part, samples in parts.items():
        for shard in sorted((folder / part).glob("*.tar")):
            for sample in read_shard(shard):
                if "classes" in (found := json.loads(sample["json"])) and found["classes"] is not None:
                    samples.append(sample)
    with figure(path, nrows=2 * ROWS, ncols=COLUMNS, figsize=(2.2 * COLUMNS, 2.75 * 2 * ROWS)) as (drawing, axes):
        for block, part in enumerate(parts):
            # spread over the whole set, so that rare counts show too
            chosen = sorted(parts[part], key=lambda sample: (-json.loads(sample["json"])["count"], sample["__key__"]))
            picked = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(ROWS * COLUMNS, len(chosen))).astype(int)]
            for ax in axes[block * ROWS : (block + 1) * ROWS].flat:
                ax.axis("off")
            for ax, sample in zip(axes[block * ROWS : (block + 1) * ROWS].flat, picked, strict=False):
                show(ax, sample)
        drawing.suptitle(
            "Pairs kept (above, green) and dropped (below, red). Under each caption, what was counted.", fontsize=11
        )


def main() -> str:
    numbers = json.loads(Path("metrics/countclip/filter.json").read_text())
    ours = {int(n): count for n, count in numbers["by_count"].items()}
    frequencies(ours)
    sheet(FILTERED, PLOTS / "pairs.png")
    rows = [{"count": n, "here": ours.get(n, 0), "published": FREQUENCIES[n]} for n in FREQUENCIES]
    write_json(PLOTS / "frequencies.json", rows)
    return "2 figures"


if __name__ == "__main__":
    run(main)
