"""The data are what the paper says: counts, proportions, positions, sizes, drawn areas, labels."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from scipy import stats

from pipeline.params import load_params
from pipeline.shapes.scenes import CIRCLE, SQUARE, Shapes, draw_counts, draw_shapes, render
from pipeline.shards import item_rng
from pipeline.stage import UserError

SCENE = load_params(REPOSITORY / "params.yaml").shapes.scene


def changed(**changes):
    return SCENE.model_copy(update=changes)


def lone(kind: int, size: float, x: float = 128.0, y: float = 128.0, grey: int = 255) -> Shapes:
    return Shapes(*(np.array([value]) for value in (kind, x, y, size, grey)))


@pytest.fixture(scope="module")
def counts():
    """Circles and squares of 20,000 images of density 50."""
    return np.array([draw_counts(item_rng(1, f"counts/{i}"), 50, SCENE) for i in range(20_000)])


def test_totals_are_normal_with_standard_deviation_3(counts):
    total = counts.sum(axis=1)
    # rounding to integers adds a variance of 1/12
    assert total.mean() == pytest.approx(50, abs=4 * 3 / math.sqrt(len(total)))
    assert total.std() == pytest.approx(math.sqrt(9 + 1 / 12), rel=0.03)
    expected = np.diff(stats.norm.cdf(np.arange(39.5, 61), 50, 3)) * len(total)
    observed = np.bincount(total, minlength=61)[40:61]
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def test_circle_shares_are_normal_with_standard_deviation_a_quarter(counts):
    share = counts[:, 0] / counts.sum(axis=1)
    inside = (share > 0.005) & (share < 0.995)
    assert share.mean() == pytest.approx(0.5, abs=0.008)
    # clipped at 0 and 1: probability Phi(-2) each, widened by the rounding of 50 shares of 2%
    for edge in (0, 1):
        assert (share == edge).mean() == pytest.approx(stats.norm.cdf(0.01, 0.5, 0.25), abs=0.006)
    assert share[inside].std() == pytest.approx(stats.truncnorm(-2, 2, 0.5, 0.25).std(), rel=0.03)


@pytest.mark.parametrize("density", [1, 2, 10])
def test_there_is_always_a_shape(density):
    counts = np.array([draw_counts(item_rng(2, f"{density}/{i}"), density, SCENE) for i in range(2000)])
    assert counts.sum(axis=1).min() >= 1
    assert counts.min() >= 0


def test_small_margins_come_from_the_same_law_given_the_margin():
    def margins(limit):
        pairs = [draw_counts(item_rng(3, f"{limit}/{i}"), 50, SCENE, limit) for i in range(6000)]
        return np.array([circles - squares for circles, squares in pairs])

    free, limited = margins(None), margins(4)
    assert np.abs(limited).max() == 4
    given = free[np.abs(free) <= 4]
    table = np.stack([np.bincount(m + 4, minlength=9) for m in (limited, given)])
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.fixture(scope="module")
def many():
    """20,000 shapes, half of them circles."""
    return draw_shapes(item_rng(4, "many"), 10_000, 10_000, SCENE)


@pytest.mark.parametrize(("kind", "low", "high"), [(CIRCLE, 2, 15), (SQUARE, 2, 20)])
def test_sizes_are_uniform(many, kind, low, high):
    sizes = many.size[many.kind == kind]
    assert len(sizes) == 10_000
    assert stats.kstest(sizes, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_positions_are_uniform_and_independent(many):
    for axis in (many.x, many.y):
        assert stats.kstest(axis, stats.uniform(0, 256).cdf).pvalue > 1e-4
    assert abs(stats.spearmanr(many.x, many.y).statistic) < 0.03
    assert abs(stats.spearmanr(many.x, many.size).statistic) < 0.03
    assert stats.ks_2samp(many.x[many.kind == CIRCLE], many.x[many.kind == SQUARE]).pvalue > 1e-4


def test_neither_kind_is_drawn_on_top(many):
    order = np.arange(len(many.kind))
    assert stats.mannwhitneyu(order[many.kind == CIRCLE], order[many.kind == SQUARE]).pvalue > 1e-4


def test_labels_are_the_number_of_stored_shapes():
    for i in range(50):
        rng = item_rng(5, str(i))
        circles, squares = draw_counts(rng, 30, SCENE)
        shapes = draw_shapes(rng, circles, squares, SCENE)
        record = json.loads(json.dumps(shapes.record()))
        kinds = record["shapes"]["kind"]
        assert (kinds.count("circle"), kinds.count("square")) == (circles, squares)
        assert (record["circles"], record["squares"]) == (circles, squares)
        assert np.array_equal(render(Shapes.from_record(record), 64, SCENE), render(shapes, 64, SCENE))


# Area: mean over sub-pixel positions, in canvas units


def mean_area(kind: int, size: float, resolution: int) -> float:
    rng = item_rng(6, f"{kind}/{size}")
    areas = [
        render(lone(kind, size, *rng.uniform(100, 156, 2)), resolution, SCENE).sum() / 255 * (256 / resolution) ** 2
        for _ in range(100)
    ]
    return float(np.mean(areas))


@pytest.mark.parametrize("resolution", [256, 72, 64])
@pytest.mark.parametrize("radius", [2, 3, 5, 9, 15])
def test_a_lone_circle_has_the_area_of_a_circle(radius, resolution):
    assert mean_area(CIRCLE, radius, resolution) == pytest.approx(math.pi * radius**2, rel=0.03)


@pytest.mark.parametrize("resolution", [256, 72, 64])
@pytest.mark.parametrize("side", [2, 3, 5, 10, 20])
def test_a_lone_square_has_the_area_of_a_square(side, resolution):
    assert mean_area(SQUARE, side, resolution) == pytest.approx(side**2, rel=0.05)


@pytest.mark.parametrize("kind", [CIRCLE, SQUARE])
@pytest.mark.parametrize(("x", "y"), [(128, 128), (100.25, 60.5), (31.9, 200.1)])
def test_the_image_lies_where_the_record_says(kind, x, y):
    image = render(lone(kind, 12, x, y), 256, SCENE).astype(float)
    rows, columns = np.mgrid[:256, :256] + 0.5  # pixel centres
    assert (image * columns).sum() / image.sum() == pytest.approx(x, abs=0.05)
    assert (image * rows).sum() / image.sum() == pytest.approx(y, abs=0.05)


def test_a_circle_is_round_and_a_square_has_corners():
    disc, square = render(lone(CIRCLE, 10), 256, SCENE) > 127, render(lone(SQUARE, 20), 256, SCENE) > 127
    rows, columns = np.mgrid[:256, :256] + 0.5 - 128
    distance = np.hypot(rows, columns)
    assert disc[distance < 9.3].all()
    assert not disc[distance > 10.7].any()
    side = np.maximum(abs(rows), abs(columns))
    assert square[side < 9.6].all()
    assert not square[side > 10.4].any()


def test_edges_are_anti_aliased_and_moving_by_half_a_pixel_shows():
    image = render(lone(CIRCLE, 10), 256, SCENE)
    assert len(np.unique(image)) > 10
    assert not np.array_equal(image, render(lone(CIRCLE, 10, 128.5), 256, SCENE))
    hard = render(lone(CIRCLE, 10), 256, changed(antialias=False))
    assert set(np.unique(hard)) == {0, 255}
    assert (hard > 0).sum() == pytest.approx(math.pi * 100, rel=0.05)


def test_canvas_and_shapes_shrink_together():
    shapes = draw_shapes(item_rng(7, "shrink"), 15, 15, SCENE)
    large, small = render(shapes, 256, SCENE), render(shapes, 64, SCENE)
    assert small.shape == (64, 64)
    np.testing.assert_allclose(cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA), small, atol=2)


def test_shapes_at_the_border_are_cut_not_moved():
    corner = render(lone(SQUARE, 20, 0, 0), 256, SCENE)
    assert corner.sum() / 255 == pytest.approx(100, rel=0.05)
    assert corner[:9, :9].min() == 255


def test_greys_and_background():
    scene = changed(background=40, grey=[100, 200])
    shapes = draw_shapes(item_rng(8, "grey"), 500, 500, scene)
    assert (shapes.grey.min(), shapes.grey.max()) == (100, 200)
    image = render(lone(CIRCLE, 15, grey=150), 256, scene)
    assert (image[0, 0], image[128, 128]) == (40, 150)
    dark = render(lone(CIRCLE, 15, grey=10), 256, changed(background=200))
    assert (dark[0, 0], dark[128, 128]) == (200, 10)


def test_without_overlap_no_two_shapes_touch():
    scene = changed(overlap=False)
    shapes = draw_shapes(item_rng(9, "apart"), 45, 45, scene)
    half = np.where(shapes.kind == CIRCLE, shapes.size, shapes.size / 2)
    gaps = np.maximum(abs(np.subtract.outer(shapes.x, shapes.x)), abs(np.subtract.outer(shapes.y, shapes.y)))
    gaps -= np.add.outer(half, half)
    assert gaps[~np.eye(90, dtype=bool)].min() >= 0
    with pytest.raises(UserError, match=r"shapes\.scene\.overlap is false, but 600 shapes found no room"):
        draw_shapes(item_rng(9, "too many"), 300, 300, scene)
