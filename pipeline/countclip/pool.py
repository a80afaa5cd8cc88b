"""The pool of images with captions from which the counting set is filtered (countclip, section 2.1).

    python -m pipeline.countclip.pool

`pool: generated` draws scenes whose captions spell the right number, a wrong one, none, or one that
counts nothing, in stated shares; the class frequencies fall off as the authors' (Fig. 2).
`pool: countclip_set` takes the authors' own set from Zenodo. A path takes shards that img2dataset
wrote (1.47.0, in an environment of its own), as they are, with its account of dead links:

    python -m pipeline.countclip.scan --metadata laion400m/ --out counted.parquet
    img2dataset --url_list counted.parquet --input_format parquet --url_col URL --caption_col TEXT \
        --save_additional_columns '["count"]' --output_format webdataset --output_folder downloaded \
        --image_size 640 --resize_mode keep_ratio_largest --resize_only_if_bigger True
    dvc exp run -S source=published -S sources.published.pool=downloaded

A sample has .jpg, .txt (its caption) and .json (url, caption, and for scenes the truth).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.countclip import authors
from pipeline.countclip.params import Pool
from pipeline.countclip.paths import METRICS, POOL
from pipeline.countclip.scenes import caption, draw_scene
from pipeline.params import load_params
from pipeline.shards import Sample, item_rng, process_pool, write_shard
from pipeline.stage import UserError, replacing, run, write_json

MOST_OUTCOMES = 20


def draw_sample(number: int, *, seed: int, pool: Pool, resolution: int) -> Sample:
    """Image `number` of the generated pool, its caption and its truth."""
    rng = item_rng(seed, f"countclip/pool/{number}")
    counts, weights = zip(*sorted(pool.counts.items()), strict=True)
    count = int(rng.choice(counts, p=np.array(weights) / sum(weights)))
    spells = str(
        rng.choice(list(pool.captions), p=np.array(list(pool.captions.values())) / sum(pool.captions.values()))
    )
    scene = draw_scene(rng, count, resolution)
    text = caption(rng, scene, spells)
    record = {
        "url": f"generated:{number}",
        "caption": text,
        "truth": {
            "kind": scene.kind,
            "count": scene.count,
            "things": [{"kind": thing.kind, "colour": thing.colour, "box": thing.box} for thing in scene.things],
        },
    }
    return {
        "__key__": f"{number:09d}",
        "jpg": scene.jpeg(),
        "txt": text.encode(),
        "json": json.dumps(record, separators=(",", ":")).encode(),
    }


def draw_pool(seed: int, pool: Pool, images: int, shards: int, resolution: int) -> None:
    with process_pool() as parallel_map:
        for shard, numbers in enumerate(np.array_split(np.arange(images), shards)):
            sample = partial(draw_sample, seed=seed, pool=pool, resolution=resolution)
            samples = parallel_map(sample, numbers.tolist())
            progress = tqdm(samples, f"pool {shard}", len(numbers), unit="image", disable=None, leave=False)
            write_shard(POOL / f"{shard:05d}.tar", progress)


def take_shards(folder: Path) -> dict:
    """Copy the shards of a folder; returns their number, and img2dataset's downloads by outcome where it noted them."""
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise UserError(
            f"params.yaml: sources.published.pool = '{folder}': holds no .tar shards; "
            f"make some with img2dataset (see the top of pipeline/countclip/pool.py)"
        )
    for shard in shards:
        with replacing(POOL / shard.name) as partial_path:
            shutil.copyfile(shard, partial_path)
    outcomes: Counter = Counter()
    for path in sorted(folder.glob("*_stats.json")):
        try:
            outcomes.update(json.loads(path.read_text())["status_dict"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not img2dataset's statistics of a shard ({error!r}); delete it or fetch again"
            ) from None
    # networks word the same failure in many ways: the most frequent ones, and the rest together
    frequent = dict(outcomes.most_common(MOST_OUTCOMES))
    rest = outcomes.total() - sum(frequent.values())
    return {"shards": len(shards), "downloads": {**frequent, **({"other reasons": rest} if rest else {})}}


def main() -> str:
    params = load_params()
    pool, scale = params.countclip.pool, params.at_scale.countclip
    if params.inputs.pool == "generated":
        draw_pool(params.seed, pool, scale.pool_images, scale.pool_shards, scale.resolution)
        numbers = {"shards": scale.pool_shards, "images": scale.pool_images}
    else:
        from pipeline.inputs import sources

        if params.inputs.pool in sources.read_registry():
            numbers = authors.write_shards(sources.fetch(params.inputs.pool), POOL)
        else:
            numbers = take_shards(Path(params.inputs.pool))
    write_json(METRICS / "pool.json", numbers)
    return f"{numbers['shards']:,} shards"


if __name__ == "__main__":
    run(main)
