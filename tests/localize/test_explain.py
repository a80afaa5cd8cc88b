"""Heat maps against networks with random weights: each image has a control, whatever maps are empty."""

from __future__ import annotations

from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.localize import explain, figures
from pipeline.localize.scenes import CIRCLE, SQUARE, Scenes, Shapes

SIDE = 16


def scenes(images: int) -> Scenes:
    """A square in the upper left corner and a circle in the lower right."""
    shapes = Shapes(np.array([SQUARE, CIRCLE]), np.array([0.25, 0.75]), np.array([0.25, 0.75]), np.full(2, 0.125))
    return Scenes([f"{i}" for i in range(images)], np.zeros((images, SIDE, SIDE), np.uint8), [shapes] * images)


def undecided(images: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(images), 2)


def measure(energies: list[np.ndarray], *drawn) -> pd.DataFrame:
    of = scenes(len(energies))
    inputs, chosen = torch.zeros(len(of), 1, SIDE, SIDE), torch.zeros(len(of), dtype=torch.long)
    return explain.measure(undecided, of, inputs, chosen, {"cam": np.stack(energies)}, 0, *drawn)


EMPTY = np.zeros((SIDE, SIDE))
SQUARES = np.zeros((SIDE, SIDE))
SQUARES[2:6, 2:6] = 1 / 16


def test_an_image_without_a_map_of_the_first_network_has_a_control():
    """As ReLU leaves them: the first network has a map of the first image only, the third of the second only."""
    tested = set()
    drawn = [[SQUARES, EMPTY], [EMPTY, EMPTY], [EMPTY, SQUARES.T[::-1]], [SQUARES[::-1], EMPTY]]
    random = pd.concat([measure(maps, i, tested).assign(draw=i) for i, maps in enumerate(drawn)])
    trained = measure([SQUARES, SQUARES])
    rows = pd.DataFrame(explain.summarise({"trained": trained, "random": random}, "M10", 2)).set_index("measure")
    row = rows.loc["chosen"]
    assert (row["value"], row["value_images"]) == (1, 2)
    assert row["random"] == pytest.approx((1 / 2 + 0) / 2)  # of the first image the first network's 1 and the last's 0
    assert (row["random_images"], row["random_draws"], row["random_maps"]) == (2, 3, 3)
    assert row["gain"] == pytest.approx(1 - row["random"])
    assert (row["gain_images"], row["gain_draws"]) == (2, 3)
    assert rows.loc["specificity", "value"] == rows.loc["chosen_over_area", "value"] == SIDE**2 / 16
    assert set(rows.index) == set(explain.MEASURES)


def test_one_map_of_an_image_is_tested_and_images_take_turns():
    tested = set()
    full, without_second = [SQUARES] * 10, [SQUARES, EMPTY, *[SQUARES] * 8]
    drawn = [measure(without_second if draw in (1, 2) else full, draw, tested) for draw in range(10)]
    table = pd.concat(drawn, keys=range(10), names=["draw"]).reset_index().dropna(subset="deletion")
    # the second image's turn is draw 1, and the first map that it has since is of draw 3
    assert table.set_index("image")["draw"].to_dict() == {f"{i}": 3 if i == 1 else i % 5 for i in range(10)}
    assert measure(full)["deletion"].notna().all()
    assert [explain.turn("lime", i) for i in range(4)] == [0, 1, 0, 1]


def test_heat_that_follows_the_class_that_is_asked_for():
    """Squares are chosen. Each kind covers 1/16 of the image, so a map all on it has 16 times its share there."""
    circles = SQUARES[::-1, ::-1]
    chosen = torch.zeros(2, dtype=torch.long)

    def both(mine: np.ndarray, others: np.ndarray) -> pd.Series:
        maps = [{"cam": np.stack([energy, EMPTY])} for energy in (mine, others)]
        rows = explain.both_classes(scenes(2), chosen, *maps).set_index("image")
        assert rows.loc["1", list(explain.BOTH)].isna().all()  # no map, no measure
        return rows.loc["0"]

    shapes = scenes(1).shapes[0].mask(SIDE)
    assert (shapes[2:6, 2:6] == SQUARE).all()
    over_area = 1 / (shapes == SQUARE).mean()
    circle_over_area = circles[shapes == CIRCLE].sum() / (shapes == CIRCLE).mean()
    follows = both(SQUARES, circles)
    assert follows["follows_class"] == pytest.approx((over_area + circle_over_area) / 2)
    assert follows["other_class_specificity"] == pytest.approx(circle_over_area)
    blind = both(SQUARES, SQUARES)  # the same map for either class, as of what is merely salient
    assert blind["follows_class"] == 0
    assert blind["other_class_specificity"] == pytest.approx(-over_area)
    crossed = both(circles, SQUARES)
    assert crossed["follows_class"] == pytest.approx(-follows["follows_class"])


def test_units_are_said_to_be_ranked_not_to_follow(monkeypatch):
    """A ranking has a first even where no unit follows anything."""
    drawn = {}

    @contextmanager
    def kept(path, **options):
        drawn[path.name], axes = plt.subplots(**options)
        yield drawn[path.name], axes

    monkeypatch.setattr(figures, "figure", kept)
    found = pd.DataFrame({"follows": ["square", "circle"], "r_squares": [0.1, 0.0], "r_circles": [0.0, 0.1]})
    ablated = pd.DataFrame({"follows": ["square", "circle"], "units": 1} | dict.fromkeys(
        ("changed", "changed_by_chance", "changed_by_chance_high"), 0.1))  # fmt: skip
    figures.units(found, ablated)
    said = [text.get_text() for ax in drawn["units.png"].axes for text in ax.get_legend().get_texts()]
    plt.close(drawn["units.png"])
    assert set(said) >= {f"ranked {first}for {kind}s" for first in ("", "first ") for kind in ("circle", "square")}
    assert not any("follow" in text for text in said)
