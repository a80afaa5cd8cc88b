"""Boxes against masks by where they lie: which covers the shapes' own pixels better?

The document gives per-pixel categories 'higher precision to the localization output' than boxes (convnets-in-vision,
'Region Prediction Networks'). Boxes that a detector kept are painted, the best last; what is painted, and what a
segmenter named, are each compared with the true mask by the Jaccard index of a kind's pixels.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from pipeline.localize.found import NOTHING, Boxes, by_image
from pipeline.localize.paths import TRUE_MASK, boxes_path, test_name, training_metrics
from pipeline.localize.runs import by_run, mean_over_runs
from pipeline.localize.scenes import BACKGROUND, KINDS, load
from pipeline.params import Params

EVERY = "all"  # densities together
COLUMNS = ["boxes_of", "masks_of", "density"]
MEASURES = ("boxes", "masks", "true_boxes", "gain")


def paint(boxes: np.ndarray, labels: np.ndarray, side: int) -> np.ndarray:
    """A mask int64 [side, side] of filled boxes x0, y0, x1, y1 [n, 4] in 0..1; a pixel shows the last that has it.

    A pixel is in a box where its centre is.
    """
    mask = np.full((side, side), BACKGROUND)
    centres = (np.arange(side) + 0.5) / side
    for (x0, y0, x1, y1), label in zip(np.searchsorted(centres, boxes).tolist(), labels, strict=True):
        mask[y0:y1, x0:x1] = label
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

    boxes, masks: mean index over images and runs; true_boxes: what the shapes' own boxes give, painted in drawing
    order; gain: masks minus boxes on the same images, run r of the one minus run r of the other. Intervals are over
    images and runs.
    """
    segmenters = [name for name, rows in answers.items() if "union_background" in rows and name != TRUE_MASK]
    detectors = [name for name in params.localize.counters if boxes_path(name, params.localize.runs[0]).exists()]
    if not segmenters or not detectors:
        return pd.DataFrame()
    boxes = {name: {run: kept_boxes(name, run) for run in params.localize.runs} for name in detectors}
    parts = [of_density(density, boxes, {n: answers[n] for n in segmenters}, params) for density in params.densities]
    images = pd.concat(parts).sort_values("density", kind="stable")
    images["gain"] = images["masks"] - images["boxes"]
    table = []
    for asked in (images, images.assign(density=EVERY)):
        for names, rows in asked.groupby(COLUMNS, sort=False):
            row = dict(zip(COLUMNS, names, strict=True)) | {"runs": rows["run"].nunique()}
            row["images"] = len(rows) // row["runs"]
            for name in MEASURES:
                row |= mean_over_runs(by_run(rows, rows[name]), name, -1 if name == "gain" else 0, 1)
            table.append(row)
    return pd.DataFrame(table)


def kept_boxes(detector: str, run: int) -> dict[tuple[str, str], Boxes]:
    """The boxes of a detector's run that its threshold keeps, by condition and image; the best last."""
    threshold = json.loads(training_metrics(detector, run).read_text())["threshold"]
    found = pd.read_parquet(boxes_path(detector, run))
    return by_image(found[found["score"] >= np.float32(threshold)].sort_values("score", kind="stable"))


def of_density(
    density: int, boxes: dict[str, dict[int, dict]], segmented: dict[str, pd.DataFrame], params: Params
) -> pd.DataFrame:
    """A row for each detector, segmenter, run and test image of a density: the index of boxes, masks and true boxes.

    boxes: by detector and run, of `kept_boxes`; segmented: a segmenter's answers, all runs.
    """
    condition, side = test_name(density), params.at_scale.localize.mask_size
    scenes = load(condition, params.shapes.scene.canvas, params.at_scale.localize.test_images)
    rows = []
    masks = {
        (name, run): of_masks(answered[answered["run"] == run], condition)
        for name, answered in segmented.items()
        for run in params.localize.runs
    }
    for key, shapes in zip(scenes.keys, scenes.shapes, strict=True):
        true = shapes.mask(side)
        perfect = jaccard(paint(shapes.boxes, shapes.label, side), true)
        for detector, of_runs in boxes.items():
            for run, kept in of_runs.items():
                found = kept.get((condition, key), NOTHING)
                index = jaccard(paint(found.places, found.labels, side), true)
                rows += [
                    (detector, name, density, run, condition, key, index, masks[name, run][key], perfect)
                    for name in segmented
                ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "run", "condition", "image", *MEASURES[:-1]])
