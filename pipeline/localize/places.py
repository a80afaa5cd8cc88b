"""Boxes against masks by where they lie: which covers the shapes' own pixels better?

The document gives per-pixel categories 'higher precision to the localization output' than boxes (convnets-in-vision,
'Region Prediction Networks'). Boxes that a detector kept are painted, the best last; what is painted, and what a
segmenter named, are each compared with the true mask by the Jaccard index of a kind's pixels.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from pipeline.localize.paths import TRUE_MASK, boxes_path, test_name, training_metrics
from pipeline.localize.scenes import BACKGROUND, KINDS, load
from pipeline.params import Params
from pipeline.statistics.intervals import mean_with_interval

EVERY = "all"  # densities together
COLUMNS = ["boxes_of", "masks_of", "density"]
MEASURES = ("boxes", "masks", "true_boxes", "gain")


def paint(boxes: np.ndarray, labels: np.ndarray, side: int) -> np.ndarray:
    """A mask int64 [side, side] of filled boxes x0, y0, x1, y1 [n, 4] in 0..1; a pixel shows the last that has it.

    A pixel is in a box where its centre is.
    """
    mask = np.full((side, side), BACKGROUND)
    centres = (np.arange(side) + 0.5) / side
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        columns, rows = (slice(*np.searchsorted(centres, ends)) for ends in ([x0, x1], [y0, y1]))
        mask[rows, columns] = label
    return mask


def jaccard(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of the pixels [H, W] of a kind, mean of the kinds that occur; NaN where none does."""
    return mean_jaccard(
        [((found == label) & (true == label)).sum() for label in range(1, len(KINDS) + 1)],
        [((found == label) | (true == label)).sum() for label in range(1, len(KINDS) + 1)],
    )


def mean_jaccard(both: list[int], either: list[int]) -> float:
    shares = [b / e for b, e in zip(both, either, strict=True) if e]
    return float(np.mean(shares)) if shares else np.nan


def of_masks(answered: pd.DataFrame, condition: str) -> pd.Series:
    """A segmenter's index by image, from the pixels that `count` has counted."""
    rows = answered[answered["condition"] == condition]
    both, either = (rows[[f"{name}_{kind}" for kind in KINDS]].to_numpy() for name in ("intersection", "union"))
    return pd.Series([mean_jaccard(b, e) for b, e in zip(both, either, strict=True)], index=rows["image"])


def places_table(answers: dict[str, pd.DataFrame], params: Params) -> pd.DataFrame:
    """A row for each detector, segmenter and density, and for all densities' images together.

    boxes, masks: mean index over images; true_boxes: what the shapes' own boxes give, painted in drawing order;
    gain: masks minus boxes on the same images. Intervals are Student's, over images.
    """
    side, most = params.at_scale.localize.mask_size, params.at_scale.localize.test_images
    segmenters = [name for name, rows in answers.items() if "union_background" in rows and name != TRUE_MASK]
    detectors = [name for name in params.localize.counters if boxes_path(name).exists()]
    kept = {}
    for name in detectors if segmenters else ():
        threshold = json.loads(training_metrics(name).read_text())["threshold"]
        found = pd.read_parquet(boxes_path(name)).astype({"condition": str, "image": str})
        found = found[found["score"] >= np.float32(threshold)].sort_values("score", kind="stable")
        kept[name] = dict(iter(found.groupby(["condition", "image"])))

    parts = []
    for density in sorted(params.densities) if kept else ():
        condition = test_name(density)
        scenes = load(condition, params.shapes.scene.canvas, most)
        masks = {name: of_masks(answers[name], condition) for name in segmenters}
        for key, shapes in zip(scenes.keys, scenes.shapes, strict=True):
            true = shapes.mask(side)
            perfect = jaccard(paint(shapes.boxes, shapes.label, side), true)
            for detector, by_image in kept.items():
                rows = by_image.get((condition, key))
                places = np.empty((0, 4)) if rows is None else rows[["x0", "y0", "x1", "y1"]].to_numpy()
                painted = paint(places, () if rows is None else rows["label"].to_numpy(), side)
                boxes = jaccard(painted, true)
                parts += [(detector, name, density, boxes, masks[name][key], perfect) for name in segmenters]
    images = pd.DataFrame(parts, columns=[*COLUMNS, *MEASURES[:-1]])
    images["gain"] = images["masks"] - images["boxes"]
    table = []
    for asked in (images, images.assign(density=EVERY)):
        for names, rows in asked.groupby(COLUMNS, sort=False):
            row = dict(zip(COLUMNS, names, strict=True)) | {"images": len(rows)}
            for name in MEASURES:
                row |= mean_with_interval(rows[name].to_numpy(), name)
            table.append(row)
    return pd.DataFrame(table)
