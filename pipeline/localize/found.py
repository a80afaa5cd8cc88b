"""How well boxes and masks fit the shapes: COCO's average precision, and IoU of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torchmetrics.detection import MeanAveragePrecision

from pipeline.localize.paths import TRUE_MASK, boxes_path, test_name
from pipeline.localize.runs import KEY, by_run, mean_over_runs
from pipeline.localize.scenes import KINDS, Scenes, load
from pipeline.params import Params
from pipeline.statistics.intervals import over_networks

PRECISIONS = ("ap", "ap50", "ap75", *(f"ap50_{kind}" for kind in KINDS))


@dataclass(frozen=True)
class Boxes:
    """What a detector found in one image. places: x0, y0, x1, y1 in 0..1 of the image, float [n, 4].

    labels: int [n]; scores: float [n].
    """

    places: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def __getitem__(self, which: np.ndarray) -> Boxes:
        return Boxes(self.places[which], self.labels[which], self.scores[which])


NOTHING = Boxes(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32))


def by_image(table: pd.DataFrame) -> dict[tuple[str, str], Boxes]:
    """The boxes of each (condition, image), in their order. table: a box a row, as `count` writes them."""
    every = Boxes(*(table[names].to_numpy() for names in (["x0", "y0", "x1", "y1"], "label", "score")))
    places = table[KEY].astype(str).groupby(KEY, sort=False).indices
    return {key: every[rows] for key, rows in places.items()}


def average_precision(found: list[Boxes], scenes: Scenes, canvas: int) -> dict[str, float]:
    """COCO's AP over IoU 0.5:0.95, at 0.5 and at 0.75, and by kind at 0.5; boxes in canvas units.

    found: of each scene.
    """
    guesses, truths = [], []
    for boxes, shapes in zip(found, scenes.shapes, strict=True):
        guesses.append(
            {
                "boxes": torch.tensor(boxes.places, dtype=torch.float32) * canvas,
                "scores": torch.tensor(boxes.scores, dtype=torch.float32),
                "labels": torch.tensor(boxes.labels),
            }
        )
        truths.append({"boxes": torch.from_numpy(shapes.boxes) * canvas, "labels": torch.from_numpy(shapes.label)})
    most = max(100, *(len(guess["boxes"]) for guess in guesses), *(len(truth["boxes"]) for truth in truths))
    metric = MeanAveragePrecision(
        max_detection_thresholds=[1, 10, most], extended_summary=True, backend="faster_coco_eval"
    )
    metric.update(guesses, truths)
    # 'map' itself is -1 where more than COCO's 100 boxes are allowed; precision: [IoU, recall, kind, area, boxes]
    result = metric.compute()
    precision = result["precision"][:, :, :, 0, -1].numpy()
    precision = np.where(precision < 0, np.nan, precision)
    kinds = [KINDS[int(label) - 1] for label in result["classes"].reshape(-1)]  # those that occur
    by_kind = {f"ap50_{kind}": np.nan for kind in KINDS}
    by_kind |= {f"ap50_{kind}": _mean(precision[0, :, i]) for i, kind in enumerate(kinds)}
    return {"ap": _mean(precision), "ap50": _mean(precision[0]), "ap75": _mean(precision[5]), **by_kind}


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def detection_table(params: Params) -> pd.DataFrame:
    """Average precision by detector and density of the test images: means over runs, with Student's interval over them.

    It is no mean over images, so the interval does not cover other images. runs: how many.
    """
    canvas, most = params.shapes.scene.canvas, params.at_scale.localize.test_images
    found = {
        (counter, run): by_image(pd.read_parquet(boxes_path(counter, run)))
        for counter in params.localize.counters
        for run in params.localize.runs
        if boxes_path(counter, run).exists()
    }
    rows = []
    for density in sorted(params.densities) if found else ():
        name = test_name(density)
        scenes = load(name, canvas, most)
        for (counter, run), boxes in found.items():
            these = [boxes.get((name, key), NOTHING) for key in scenes.keys]
            rows.append(
                {"counter": counter, "density": density, "run": run, **average_precision(these, scenes, canvas)}
            )
    table = []
    for (counter, density), of_runs in pd.DataFrame(rows, columns=["counter", "density", "run", *PRECISIONS]).groupby(
        ["counter", "density"], sort=False
    ):
        row = {"counter": counter, "density": density, "runs": len(of_runs)}
        for name in PRECISIONS:
            mean = over_networks(of_runs[name].dropna().to_numpy())
            low, high = np.clip(np.array([mean["low"], mean["high"]], dtype=float), 0, 1)
            row |= {name: mean["mean"], f"{name}_low": low, f"{name}_high": high}
        table.append(row)
    columns = [
        "counter",
        "density",
        "runs",
        *(f"{name}{part}" for name in PRECISIONS for part in ("", "_low", "_high")),
    ]
    return pd.DataFrame(table, columns=columns)


def mask_table(answers: dict[str, pd.DataFrame], params: Params) -> pd.DataFrame:
    """IoU of each class over all pixels of a density's test images: means over runs, intervals over images and runs.

    Undefined where a class is nowhere. A ratio of sums is no mean over images: intervals are of its linear
    approximation (Taylor's; Cochran, 1977, Sampling Techniques, chapter 6), whose mean is the ratio itself.
    """
    rows = []
    for counter, answered in answers.items():
        if "union_background" not in answered or counter == TRUE_MASK:
            continue
        for density in sorted(params.densities):
            these = answered[answered["condition"] == test_name(density)]
            for kind in ("background", *KINDS):
                both, either = (by_run(these, these[f"{name}_{kind}"]) for name in ("intersection", "union"))
                pixels = either.mean(axis=1)
                ratio = both.mean(axis=1) / pixels.where(pixels > 0)
                linear = both.sub(either.mul(ratio, axis=0)).div(pixels, axis=0).add(ratio, axis=0)
                row = {"counter": counter, "density": density, "class": kind, "runs": len(linear)}
                rows.append(row | mean_over_runs(linear, "iou", 0, 1))
    columns = ["counter", "density", "class", "runs", "iou", "iou_low", "iou_high", "iou_images", "iou_by_run"]
    return pd.DataFrame(rows, columns=columns)
