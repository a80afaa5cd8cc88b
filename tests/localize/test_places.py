"""Boxes against masks: painting and the Jaccard index by hand, and the table on made-up findings."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import jaccard_score

from pipeline.localize import paths, places
from pipeline.localize.paths import boxes_path, training_metrics
from pipeline.localize.places import jaccard, paint, places_table
from pipeline.localize.scenes import CIRCLE, SQUARE, Scenes, Shapes
from pipeline.params import load_params

SIDE = 64


def test_painting_by_hand():
    """Pixel centres at 1/8, 3/8, 5/8, 7/8; the second box covers a part of the first."""
    boxes = np.array([[0, 0, 0.5, 0.5], [0.3, 0.3, 1, 0.6]])
    assert paint(boxes, np.array([SQUARE, CIRCLE]), 4).tolist() == [
        [1, 1, 0, 0],
        [1, 2, 2, 2],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert not paint(np.empty((0, 4)), np.empty(0, int), 4).any()


def test_the_index_is_scikit_learns():
    rng = np.random.default_rng(0)
    found, true = rng.integers(0, 3, (2, 20, 20))
    wanted = jaccard_score(true.ravel(), found.ravel(), labels=[SQUARE, CIRCLE], average="macro")
    assert jaccard(found, true) == pytest.approx(wanted)
    no_circles = np.where(true == CIRCLE, 0, true)
    assert jaccard(no_circles, no_circles) == 1  # a kind that is nowhere does not count
    assert np.isnan(jaccard(np.zeros((4, 4)), np.zeros((4, 4))))


def test_of_perfect_boxes_squares_are_whole_and_circles_pi_quarters():
    square = Shapes(np.array([SQUARE]), np.array([0.5]), np.array([0.5]), np.array([0.25]))
    circle = Shapes(np.array([CIRCLE]), np.array([0.5]), np.array([0.5]), np.array([0.4]))
    assert jaccard(paint(square.boxes, square.label, SIDE), square.mask(SIDE)) == 1
    of_circle = jaccard(paint(circle.boxes, circle.label, 512), circle.mask(512))
    assert of_circle == pytest.approx(np.pi / 4, abs=0.01)


@pytest.fixture
def findings(workspace, monkeypatch) -> dict[str, pd.DataFrame]:
    """Two images of one square each. Masks have half of it; the detector has all, none, and what it is not sure of."""
    of_ten = dict.fromkeys(("localize.density", "shapes.variants.density", "posenet.counter_density"), 10)
    counters = {"localize.counters": ["ssd", "segment"], "localize.runs": [0], "scales.smoke.localize.test_images": 2}
    workspace(**{"densities": [10], **of_ten, **counters})
    shapes = Shapes(np.array([SQUARE]), np.array([0.5]), np.array([0.5]), np.array([0.25]))
    scenes = Scenes(["a", "b"], np.zeros((2, 8, 8), np.uint8), [shapes] * 2)
    monkeypatch.setattr(places, "load", lambda *_: scenes)
    rows = pd.DataFrame([[0.25, 0.25, 0.75, 0.75, 1, 0.6, "a"], [0, 0, 1, 1, 1, 0.4, "b"]])
    rows.columns = ["x0", "y0", "x1", "y1", "label", "score", "image"]
    path = boxes_path("ssd")
    path.parent.mkdir(parents=True)
    rows.assign(condition=paths.test_name(10)).to_parquet(path)
    training_metrics("ssd").parent.mkdir(parents=True)
    training_metrics("ssd").write_text(json.dumps({"threshold": 0.5}))
    pixels = {"intersection": 128, "union": 256}
    answers = pd.DataFrame({"run": 0, "image": ["a", "b"], "condition": paths.test_name(10), "union_background": 1})
    columns = {f"{name}_square": n for name, n in pixels.items()} | {f"{name}_circle": 0 for name in pixels}
    return {"ssd": pd.DataFrame({"image": ["a", "b"]}), "segment": answers.assign(**columns)}


def test_only_boxes_that_are_kept_are_painted(findings):
    table = places_table(findings, load_params()).set_index("density")
    assert set(table.index) == {10, "all"}
    row = table.loc["all"]
    assert (row["boxes_of"], row["masks_of"], row["images"]) == ("ssd", "segment", 2)
    assert (row["boxes"], row["masks"], row["true_boxes"]) == (0.5, 0.5, 1.0)  # boxes: 1 of image a, 0 of image b
    assert row["gain"] == 0
    # differences -0.5 and 0.5: standard error 0.5, Student's t of one degree of freedom 12.706; no gain is beyond 1
    assert (row["gain_low"], row["gain_high"]) == (-1, 1)
    assert row["true_boxes_high"] == 1


def test_without_masks_or_boxes_there_is_nothing_to_compare(findings):
    assert places_table({"ssd": findings["ssd"]}, load_params()).empty
    boxes_path("ssd").unlink()
    assert places_table(findings, load_params()).empty
