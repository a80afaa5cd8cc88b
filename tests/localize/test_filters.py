"""Units that follow shapes of one kind and size, on activity with a planted relation to their numbers."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from pipeline.localize import filters
from pipeline.localize.scenes import CIRCLE, SQUARE, Shapes
from pipeline.stage import UserError

FOLLOWS = [(kind, size) for kind in ("square", "circle") for size in ("small", "middle", "large")]


@pytest.fixture
def design() -> np.ndarray:
    return np.random.default_rng(0).poisson(6, size=(300, 8))


def test_classes_are_of_equal_area_by_hand():
    # a circle of radius 2 has the area of a square of side 3.54; squares end at 20
    bounds = filters.sides_between((2, 20), (2, 15))
    assert bounds == pytest.approx([3.544908, 9.029939, 14.514969, 20])
    with pytest.raises(UserError, match="share no area"):
        filters.sides_between((2, 3), (10, 15))


def test_shapes_are_counted_by_kind_and_side():
    bounds = np.array([0.1, 0.2, 0.3, 0.4])
    # squares of sides 0.05 (beyond), 0.15 and 0.35; circles with the sides 0.25 and, twice, 0.5 (beyond)
    half = np.array([0.025, 0.075, 0.175, *(np.array([0.25, 0.5, 0.5]) / np.sqrt(np.pi))])
    shapes = Shapes(np.array([SQUARE] * 3 + [CIRCLE] * 3), np.zeros(6), np.zeros(6), half)
    assert filters.numbers(shapes, bounds).tolist() == [1, 0, 1, 0, 1, 0, 1, 2]


def test_t_is_that_of_statsmodels(design):
    rng = np.random.default_rng(1)
    units = np.column_stack([design[:, 4] * 0.1 + rng.normal(size=300), rng.normal(size=300), np.ones(300)])
    t = filters.Regression(design).t(units)
    for unit in range(2):
        fit = sm.OLS(units[:, unit], sm.add_constant(design)).fit()
        np.testing.assert_allclose(t[:6, unit], fit.tvalues[1:7])
        apart = [fit.t_test([0] + [-1 if i == s else 1 if i == s + 3 else 0 for i in range(8)]) for s in range(3)]
        np.testing.assert_allclose(t[6:, unit], [float(of.tvalue.item()) for of in apart])
    assert (t[:, 2] == 0).all()  # a constant unit follows nothing


def test_planted_units_are_found_and_noise_is_not(design):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(300, 40))
    # of large circles alone, of all small shapes alike, falling with middle squares
    planted = np.column_stack([design[:, 5], design[:, 0] + design[:, 3], -design[:, 1]])
    units = np.column_stack([planted + rng.normal(0, 0.5, planted.shape), noise])
    regression = filters.Regression(design)
    level = filters.levels(regression, units, np.random.default_rng(3))
    assert 2.5 < level[1] <= level[0] < 5  # Bonferroni over 258 and 129 questions: 3.8 and 3.6
    rows = {(row["kind"], row["size"]): row for row in filters.shares(regression.t(units[:, :3]), *level)}
    assert list(rows) == FOLLOWS
    found = {place: [round(3 * row[of]) for of in ("follows", "only", "more_by")] for place, row in rows.items()}
    assert found == {
        ("square", "small"): [1, 0, 0],
        ("square", "middle"): [1, 1, 0],
        ("square", "large"): [0, 0, 0],
        ("circle", "small"): [1, 0, 0],
        ("circle", "middle"): [0, 0, 1],  # a circle adds nothing, a square takes away
        ("circle", "large"): [1, 1, 1],
    }
    assert all(row["follows"] == 0 for row in filters.shares(regression.t(noise), *level))


def test_too_few_images_are_refused_in_one_line(design):
    with pytest.raises(UserError, match="9 images of one density: too few"):
        filters.Regression(design[:9])
    design[:, 2] = 0  # no large square: the columns after it must not take its place
    with pytest.raises(UserError, match="300 images of one density: too few"):
        filters.Regression(design)
