"""Draw the margin sets: images with exactly so many shapes, and so many more circles than squares.

    python -m pipeline.shapes.margin_sets

Source: implicit-counting, Method, last paragraph.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pipeline.params import load_params
from pipeline.shapes.dataset import draw_shard
from pipeline.shapes.paths import margin_name
from pipeline.shards import process_pool
from pipeline.stage import run


def exact_counts(rng: np.random.Generator, density: int, margin: int) -> tuple[int, int]:
    """Circles and squares of an image with `density` shapes and circles - squares = `margin`."""
    return (density + margin) // 2, (density - margin) // 2


def main() -> str:
    params = load_params()
    scale = params.at_scale.shapes
    drawn = 0
    with process_pool() as parallel_map:
        for density in params.shapes.margin_densities:
            for margin in params.shapes.margins:
                drawn += draw_shard(
                    parallel_map,
                    name=margin_name(density, margin),
                    images=scale.margin_images,
                    seed=params.seed,
                    counts=partial(exact_counts, density=density, margin=margin),
                    scene=params.shapes.scene,
                    resolution=scale.resolution,
                )
    return f"{drawn:,} images"


if __name__ == "__main__":
    run(main)
