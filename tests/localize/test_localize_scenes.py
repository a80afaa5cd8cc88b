"""Boxes and masks of shapes whose places are known: by hand, and against what the shapes study draws."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from pipeline.localize.scenes import BACKGROUND, CIRCLE, SQUARE, Shapes, load, parse, shard_path
from pipeline.params import load_params
from pipeline.shapes.scenes import draw_shapes, render
from pipeline.shards import item_rng, write_shard
from pipeline.stage import UserError

CANVAS = 256


def shapes(*rows: tuple[int, float, float, float]) -> Shapes:
    """label, x, y, half, in 0..1."""
    label, x, y, half = np.array(rows, dtype=float).reshape(-1, 4).T
    return Shapes(label.astype(np.int64), x, y, half)


def test_a_record_gives_halves_and_counts():
    record = {"shapes": {"kind": ["square", "circle"], "x": [64, 128], "y": [32, 256], "size": [16, 8], "grey": [9, 9]}}
    found = parse(record, CANVAS)
    assert found.label.tolist() == [SQUARE, CIRCLE]
    assert found.counts.tolist() == [1, 1]
    assert found.half.tolist() == [8 / 256, 8 / 256]  # half a side; a radius
    np.testing.assert_allclose(found.boxes[0], np.array([56, 24, 72, 40]) / 256)


def test_boxes_end_at_the_border():
    np.testing.assert_allclose(shapes((CIRCLE, 0.0, 0.5, 0.1)).boxes, [[0, 0.4, 0.1, 0.6]], atol=1e-7)
    np.testing.assert_allclose(shapes((SQUARE, 0.98, 1.0, 0.1)).boxes, [[0.88, 0.9, 1, 1]], atol=1e-7)


def test_masks_by_hand():
    square = shapes((SQUARE, 0.25, 0.5, 0.125)).mask(8)  # 1..3 in x, 3..5 in y
    expected = np.zeros((8, 8), int)
    expected[3:5, 1:3] = SQUARE
    assert (square == expected).all()
    areas = [(shapes((CIRCLE, 0.5, 0.5, radius)).mask(512) == CIRCLE).mean() for radius in (0.05, 0.2, 0.4)]
    np.testing.assert_allclose(areas, np.pi * np.array([0.05, 0.2, 0.4]) ** 2, rtol=0.01)


def test_what_is_drawn_later_covers_what_was_before():
    both = shapes((SQUARE, 0.5, 0.5, 0.1), (CIRCLE, 0.5, 0.5, 0.3))
    assert set(np.unique(both.owners(64))) == {-1, 1}  # nothing of the square can be seen
    assert SQUARE not in both.mask(64)
    assert set(np.unique(shapes((CIRCLE, 0.5, 0.5, 0.3), (SQUARE, 0.5, 0.5, 0.1)).mask(64))) == {0, 1, 2}


def test_no_shapes_and_three_hundred():
    assert len(shapes()) == 0
    assert shapes().boxes.shape == (0, 4)
    assert (shapes().mask(16) == BACKGROUND).all()
    assert shapes().counts.tolist() == [0, 0]
    rng = np.random.default_rng(0)
    many = shapes(
        *zip(rng.integers(1, 3, 300), rng.random(300), rng.random(300), rng.uniform(0.01, 0.06, 300), strict=True)
    )
    assert many.counts.sum() == 300
    assert ((many.boxes[:, 2:] - many.boxes[:, :2]) > 0).all()


@pytest.mark.parametrize("density", [5, 60])
def test_masks_are_what_the_shapes_study_draws(density):
    scene = load_params().shapes.scene
    drawn = draw_shapes(item_rng(0, f"test/{density}"), density // 2, density // 2, scene)
    image = render(drawn, CANVAS, scene)
    mask = parse(drawn.record(), scene.canvas).mask(CANVAS) > 0
    lit = image > 127
    assert (mask & lit).sum() / (mask | lit).sum() > 0.97


def png() -> bytes:
    import matplotlib.image

    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.zeros((8, 8)), cmap="gray", format="png")
    return buffer.getvalue()


RECORD = {"circles": 1, "squares": 0, "shapes": {"kind": ["circle"], "x": [1], "y": [2], "size": [3], "grey": [255]}}


@pytest.mark.parametrize(
    ("sample", "lacks"),
    [
        ({"json": json.dumps(RECORD).encode()}, ".png"),
        ({"png": b"no image", "json": json.dumps(RECORD).encode()}, ".png"),
        ({"png": png()}, ".json of its shapes"),
        (
            {"png": png(), "json": b'{"shapes": {"kind": ["star"], "x": [1], "y": [1], "size": [1]}}'},
            ".json of its shapes",
        ),
        ({"png": png(), "json": b'{"circles": 3}'}, ".json of its shapes"),
    ],
)
def test_a_sample_that_is_no_scene_is_named(tmp_path, monkeypatch, sample, lacks):
    monkeypatch.chdir(tmp_path)
    good = {"__key__": "000000", "png": png(), "json": json.dumps(RECORD).encode()}
    write_shard(shard_path("test/density-1"), [good, {"__key__": "000001", **sample}])
    assert len(load("test/density-1", CANVAS, 1)) == 1
    with pytest.raises(UserError, match="000001 lacks a readable " + lacks):
        load("test/density-1", CANVAS)


def test_more_images_than_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(shard_path("test/density-1"), [{"__key__": "0", "png": png(), "json": json.dumps(RECORD).encode()}])
    with pytest.raises(UserError, match=r"1 images, but 5 are asked for; lower scales"):
        load("test/density-1", CANVAS, 5)
