"""What benchmarks share: the scenes that they draw, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from pipeline.params import load_params
from pipeline.shapes.scenes import Shapes, draw_counts, draw_shapes
from pipeline.shards import item_rng

DENSITY = 50
SCENE = load_params().shapes.scene
COUNTS = partial(draw_counts, density=DENSITY, scene=SCENE)


def draw_scenes(number: int) -> list[Shapes]:
    """Scenes of density 50, laid out and not yet drawn."""
    scenes = []
    for i in range(number):
        rng = item_rng(0, f"benchmark/{i}")
        scenes.append(draw_shapes(rng, *COUNTS(rng), SCENE))
    return scenes


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
