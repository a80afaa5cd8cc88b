"""A claim on an axis: where marks stand, by positions that were computed by hand, and what is said of them."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.claims.axis import Axis, axis_over, drawing, holds, numbers, published_number
from pipeline.claims.schema import Claim

NOTHING = dict.fromkeys(("value", "low", "high", "compared_with", "compared_low", "compared_high"))


def claim(rule: dict[str, Any], **options: Any) -> Claim:
    content = {"says": "x", "where": "y", "measure": {"file": "a.json", "value": "b"}, "rule": rule, **options}
    return Claim.model_validate(content)


@pytest.mark.parametrize(
    ("value", "x"),
    # the axis is 228 wide, from 16 to 244: 16 + 228 * share
    [(0.0, 16), (1.0, 244), (0.5, 130), (0.25, 73), (0.92, 225.76), (-3.0, 16), (math.inf, 244)],
)
def test_a_value_has_its_place(value, x):
    assert Axis(0.0, 1.0, (0.0, 1.0)).x(value) == pytest.approx(x)


def test_a_value_has_its_place_on_an_axis_through_zero():
    assert Axis(-40.0, 20.0, (-40.0, 20.0)).x(-10.0) == pytest.approx(130)  # half way


@pytest.mark.parametrize(
    ("values", "percent", "ends"),
    [
        ([0.7, 0.9], True, (0.0, 1.0)),
        ([-0.1, 0.9], True, None),  # a difference of shares: not from 0 to 1
        ([0.3, 0.3], False, None),
        ([1353.0, 24.0], False, None),
        ([1e-9, 3e-6], False, None),
        ([math.inf, 2.0, 3.0], False, None),
    ],
)
def test_an_axis_holds_its_values(values, percent, ends):
    axis = axis_over(values, percent)
    finite = [value for value in values if math.isfinite(value)]
    assert axis.low <= min(finite) <= max(finite) <= axis.high
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 5
    if ends:
        assert (axis.low, axis.high) == ends


def test_of_nothing_there_is_no_axis():
    assert axis_over([]) is None
    assert drawing(claim({"above": 2}), NOTHING, None, {}) == ""
    never = Claim.model_validate({"says": "x", "where": "y", "cannot": "z"})
    assert numbers(never, NOTHING) == []


@pytest.mark.parametrize(
    ("rule", "options", "number"),
    [
        ({"equals": 0.92, "tolerance": 0.05}, {"published": "92%"}, 0.92),
        ({"is": 20}, {"published": "20"}, 20.0),
        ({"is": "resnet18"}, {"published": "resnet18"}, None),
        ({"above": 0}, {"published": 0.78}, 0.78),  # a published difference, whose sign is asked
        ({"above": 0.05}, {"published": 0.78}, None),  # the measure is a probability
        ({"above": 0.5}, {"published": "60%", "percent": True}, 0.6),
        ({"above": 0.5}, {"published": "up to 60%", "percent": True}, None),
        ({"undefined": True}, {"published": "NaN"}, None),
    ],
)
def test_published_numbers_are_those_in_the_units_of_the_measure(rule, options, number):
    assert published_number(claim(rule, **options)) == (None if number is None else pytest.approx(number))


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ({"above": 2}, (2, math.inf)),
        ({"below": -1}, (-math.inf, -1)),
        ({"within": [1, 3]}, (1, 3)),
        ({"equals": 1, "tolerance": 1}, None),
        ({"above": {"file": "a.json", "value": "c"}}, None),
    ],
)
def test_where_a_number_has_to_lie(rule, part):
    assert holds(claim(rule).rule) == part


def marks(svg: str) -> dict[str, list]:
    """The marks of a drawing by class, in its own units; it has to be well-formed."""
    found: dict[str, list] = {}
    for element in ElementTree.fromstring(svg):
        if "class" in element.attrib:
            found.setdefault(f"{element.tag}.{element.attrib['class']}", []).append(dict(element.attrib))
    return found


def test_a_drawing_has_dot_interval_diamond_and_shade_in_their_places():
    row = {**NOTHING, "value": 0.85, "low": 0.75, "high": 1.0, "compared_with": 0.5}
    asked = claim({"above": 0.75}, published="92%", percent=True)
    svg = drawing(asked, row, axis_over(numbers(asked, row), True), {"ours": "85% [75%, 100%]", "published": "9<2"})
    found = marks(svg)
    assert float(found["circle.ours"][0]["cx"]) == pytest.approx(16 + 228 * 0.85)
    assert found["path.ours"][0]["d"] == "M187 12H244"  # 16 + 228 * 0.75, to the axis's end
    # the diamond's top, at 16 + 228 * 0.92
    assert re.match(r"M225\.76 ", found["path.published"][0]["d"])
    assert float(found["circle.compared"][0]["cx"]) == pytest.approx(130)
    assert (float(found["rect.holds"][0]["x"]), float(found["rect.holds"][0]["width"])) == (187, 57)
    label = ElementTree.fromstring(svg).attrib["aria-label"]
    assert label == "measured 85% [75%, 100%]; published 9<2; axis from 0% to 100%"


def test_a_value_that_is_nearly_as_published_stands_close_to_it():
    row = {**NOTHING, "value": 0.33102}
    asked = claim({"equals": 0.331, "tolerance": 0.001}, published="0.331")
    assert numbers(asked, row) == pytest.approx([0.33102, 0.331, 0.33, 0.332])
    axis = axis_over(numbers(asked, row))
    assert abs(axis.x(0.33102) - axis.x(0.331)) < 3  # of 260


def test_where_the_shaded_part_ends_is_seen():
    row = {**NOTHING, "value": 0.2, "low": 0.1, "high": 0.3}
    # 0.15 of what lies between 0.1 and 0.3 on either side of the bound, 0.1
    assert numbers(claim({"above": 0.1}), row) == pytest.approx([0.2, 0.1, 0.3, 0.1, 0.07, 0.13])


def test_ticks_have_as_many_digits_as_they_need():
    def ticks(values: list[float]) -> list[str]:
        asked = claim({"above": values[0]})
        svg = drawing(asked, {**NOTHING, "value": values[1]}, axis_over(values), {})
        return [element.text for element in ElementTree.fromstring(svg) if element.tag == "text"]

    assert ticks([1353, 40]) == ["0", "500", "1000", "1500"]
    assert ticks([-0.2, 0.4]) == ["\N{MINUS SIGN}0.2", "0.0", "0.2", "0.4"]
