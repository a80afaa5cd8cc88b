"""Draw one density's training and test images (implicit-counting, Method).

python -m pipeline.shapes.generate --density 50
"""

from __future__ import annotations

from functools import partial

from pipeline.params import load_params
from pipeline.shapes.dataset import draw_shard
from pipeline.shapes.paths import split_name
from pipeline.shapes.scenes import draw_counts
from pipeline.shards import process_pool
from pipeline.stage import run


def main(density: int) -> str:
    params = load_params()
    scene, scale = params.shapes.scene, params.at_scale.shapes
    splits = {
        "train": (
            scale.train_images,
            partial(draw_counts, density=density, scene=scene, max_margin=params.shapes.max_train_margin),
        ),
        "test": (scale.images - scale.train_images, partial(draw_counts, density=density, scene=scene)),
    }
    with process_pool() as parallel_map:
        for split, (images, counts) in splits.items():
            draw_shard(
                parallel_map,
                name=split_name(density, split),
                images=images,
                seed=params.seed,
                counts=counts,
                scene=scene,
                resolution=scale.resolution,
            )
    return f"{scale.images:,} images"


if __name__ == "__main__":
    run(main, density=int)
