"""Put one counter before every test set and all margin sets, and record what it found and what it makes of it.

    python -m pipeline.localize.count --counter ssd --run 1

It answers 'circle' where it counted more circles than squares; a tie is a square, as in the shapes study.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import safetensors.numpy
from tqdm import tqdm

from pipeline import stage, training
from pipeline.localize.counter import Counter
from pipeline.localize.counters import build, count, find
from pipeline.localize.detection import Detector
from pipeline.localize.paths import (
    boxes_path,
    counted_path,
    margin_name,
    masks_path,
    run_name,
    test_name,
    training_metrics,
    weights_path,
)
from pipeline.localize.scenes import KINDS, Scenes, load
from pipeline.localize.segmentation import Segmenter, components, overlap
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.stage import write_bytes

SHOWN = 4  # images of each test set


def conditions(params: Params) -> dict[str, int | None]:
    """Every set that a counter is tested on, and how many of its images: all, or as many as the scale has."""
    study, most = params.shapes, params.at_scale.localize.test_images
    tests = {test_name(density): most for density in params.densities}
    margins = [margin_name(density, margin) for density in study.margin_densities for margin in study.margins]
    return tests | dict.fromkeys(margins)


def trials(counter: str, run: int, condition: str, scenes: Scenes, counted: np.ndarray, target: str) -> pd.DataFrame:
    """One row an image. counted: squares and circles [N, 2]. A tie's category is 'square' where `target` is 'hard'."""
    squares, circles = scenes.counts.T
    margins = circles - squares
    tie = KINDS[0] if target == "hard" else "tie"
    category = np.select([margins > 0, margins < 0], [KINDS[1], KINDS[0]], tie)
    response = np.where(counted[:, 1] > counted[:, 0], KINDS[1], KINDS[0])
    rows = pd.DataFrame(
        {
            "observer": run_name(counter, run),
            "condition": condition,
            "image": scenes.keys,
            "category": category,
            "response": response,
            "correct": pd.array(category == response, dtype="boolean").copy(),
            "counter": counter,
            "run": run,
            "circles": circles,
            "squares": squares,
            "counted_circles": counted[:, 1],
            "counted_squares": counted[:, 0],
        }
    )
    return rows.assign(correct=rows["correct"].mask(rows["category"] == "tie"))


def beside(network: Counter, scenes: Scenes, found: list) -> dict[str, np.ndarray]:
    """What else is known of each image: of a segmenter, how its masks lie on the true ones."""
    if not isinstance(network, Segmenter):
        return {}
    true = [shapes.mask(network.mask_size) for shapes in scenes.shapes]
    columns = {}
    for label, kind in enumerate(("background", *KINDS)):
        areas = np.array([overlap(mask == label, known == label) for mask, known in zip(found, true, strict=True)])
        columns |= {f"intersection_{kind}": areas[:, 0], f"union_{kind}": areas[:, 1]}
    in_truth = np.stack([components(mask) for mask in true])
    return columns | {f"true_mask_{kind}s": in_truth[:, i] for i, kind in enumerate(KINDS)}


def boxes(condition: str, scenes: Scenes, found: list) -> pd.DataFrame:
    """One row a box that was found, x0, y0, x1, y1 in 0..1 of the image."""
    parts = []
    for key, item in zip(scenes.keys, found, strict=True):
        rows = pd.DataFrame(item["boxes"].numpy(), columns=["x0", "y0", "x1", "y1"])
        parts.append(rows.assign(label=item["labels"].numpy(), score=item["scores"].numpy(), image=key))
    return pd.concat(parts, ignore_index=True).assign(condition=condition)


def main(counter: str, run: int = 0) -> str:
    params = load_params()
    training.configure(params.seed, "localize/count", params.threads)
    device = training.device()
    network = build(counter, params)
    training.load_weights(weights_path(counter, run), network)
    network.to(device)
    threshold = json.loads(training_metrics(counter, run).read_text())["threshold"]

    answers, places, masks = [], [], {}
    for condition, most in tqdm(
        conditions(params).items(), f"localize/count {run_name(counter, run)}", disable=None, leave=False
    ):
        scenes = load(condition, params.shapes.scene.canvas, most)
        with training.autocast(params.precision, device):
            found = find(network, scenes, device)
        rows = trials(counter, run, condition, scenes, count(network, found, threshold), params.shapes.target)
        answers.append(rows.assign(**beside(network, scenes, found)))
        if isinstance(network, Detector) and condition.startswith("test/"):
            places.append(boxes(condition, scenes, found))
        if isinstance(network, Segmenter) and condition.startswith("test/"):
            masks[condition] = np.stack(found[:SHOWN])
    table = pd.concat(answers, ignore_index=True)
    write_predictions(counted_path(counter, run), table)
    if places:
        buffer = io.BytesIO()
        pd.concat(places, ignore_index=True).to_parquet(buffer, compression="zstd", index=False)
        write_bytes(boxes_path(counter, run), buffer.getvalue())
    if masks:
        write_bytes(masks_path(counter, run), safetensors.numpy.save(masks))
    return f"{len(table):,} images counted by {run_name(counter, run)}"


if __name__ == "__main__":
    stage.run(main, counter=str, run=int)
