"""Settings of the localize study that cannot be: the error names the key, what was found, and what is allowed."""

from __future__ import annotations

import pytest
from conftest import edit_params

from pipeline.params import load_params
from pipeline.stage import UserError

SMALL = {
    "densities": [10],
    "scales.smoke.shapes.images": 60,
    "localize.density": 10,
    "shapes.margin_densities": [10],
    "shapes.variants.density": 10,
    "posenet.counter_density": 10,
}


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("localize.counters", ["guess"], ("localize.counters", "'regress'", "'guess'")),
        ("localize.runs", [], ("localize.runs", "at least 1")),
        ("localize.runs", [0, 0], ("localize.runs", "differ")),
        ("localize.runs", [-1], ("localize.runs.0", "greater than or equal to 0")),
        ("localize.density", 55, ("localize.density", "[55]", "densities = [10]")),
        ("localize.explained", [10, 80], ("localize.explained", "[80]")),
        ("localize.anchors", [0.1, 0.3, 0.2], ("localize", "should grow")),
        ("scales.smoke.localize.mask_size", 40, ("mask_size = 40", "multiple of")),
        ("scales.smoke.localize.held_out", 40, ("held_out = 40", "48 training images")),
        ("scales.smoke.localize.test_images", 13, ("test_images = 13", "12 test images only")),
        ("scales.smoke.localize.probe_images", 7, ("scales.smoke.localize.probe_images = 7", "at most 6 with the 12")),
        ("scales.smoke.localize.shift_images", 13, ("shift_images = 13", "12 test images only")),
        ("scales.smoke.localize.training.ssd.batch_size", 17, ("batch_size = 17", "images = 16")),
        ("localize.shifts", [0], ("localize.shifts.0",)),
    ],
)
def test_settings_that_cannot_be(workspace, key, value, parts):
    folder = workspace(**SMALL)
    load_params()
    edit_params(folder / "params.yaml", {key: value})
    with pytest.raises(UserError) as error:
        load_params()
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("densities", "most"), [([10], 6), ([10, 50], 8), ([10, 50, 90], 9), ([10, 30, 50, 70, 90], 10)]
)
def test_the_probe_may_ask_for_as_many_images_as_there_are(workspace, densities, most):
    """Of 12 test images of one density: its own, and its part of as many others of all densities."""
    folder = workspace(**SMALL | {"densities": densities, "scales.smoke.localize.probe_images": most})
    assert most + -(-most // len(densities)) <= 12
    load_params()
    edit_params(folder / "params.yaml", {"scales.smoke.localize.probe_images": most + 1})
    with pytest.raises(UserError, match=f"probe_images = {most + 1}: at most {most} with the 12 test images"):
        load_params()
