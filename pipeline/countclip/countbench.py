"""The benchmark: images with captions that spell a number, and the audit of what is missing (countclip, section 3).

    python -m pipeline.countclip.countbench

`generated`: scenes, as many of each number, and scenes to name. Otherwise CountBench's rows with the images of
the authors' set, or of a folder of shards that img2dataset wrote (see the top of pipeline/countclip/pool.py):

    img2dataset --url_list CountBench.json --input_format json --url_col image_url --caption_col text \
        --output_format webdataset --output_folder countbench-images --image_size 640 \
        --resize_mode keep_ratio_largest --resize_only_if_bigger True

In the shard countbench.tar, a sample has its image, .txt (caption) and .json (url, number).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.countclip import authors
from pipeline.countclip.captions import NUMBERS, number_words
from pipeline.countclip.paths import BENCHMARK, CLASSES, METRICS, MISSING, ZERO_SHOT
from pipeline.countclip.samples import IMAGE_EXTENSIONS, open_image, record_of
from pipeline.countclip.scenes import COLOURS, PLURAL, SURFACES, caption, draw_scene
from pipeline.params import load_params
from pipeline.shards import Sample, item_rng, process_pool, read_shard, write_shard
from pipeline.stage import UserError, run, write_json

DECODED_AT = 336  # pixels; enough to tell whether an image can be decoded
SCENE_TEMPLATES = [f"{{}} {surface}" for surface in SURFACES] + ["{} - royalty free image"]
PHOTO_TEMPLATES = ["a photo of a {}."]


def scene_sample(number: int, *, seed: int, split: str, count: int | None, resolution: int) -> Sample:
    """A scene of `count` things (2 to 10 at random where None), its caption and what it shows."""
    rng = item_rng(seed, f"countclip/{split}/{number}")
    scene = draw_scene(rng, count or int(rng.integers(2, 11)), resolution)
    record = {
        "url": f"generated:{split}/{number}",
        "number": scene.count,
        "class": f"{scene.colour} {PLURAL[scene.kind]}",
    }
    return {
        "__key__": f"{number:06d}",
        "jpg": scene.jpeg(),
        "txt": caption(rng, scene, "right").encode(),
        "json": json.dumps(record).encode(),
    }


def draw(seed: int, per_number: int, zero_shot_images: int, resolution: int) -> dict:
    """Write the generated benchmark and the scenes to name; returns the audit."""
    counts = list(NUMBERS) * per_number
    with process_pool() as parallel_map:
        settings = {"seed": seed, "resolution": resolution}
        benchmark = partial(_numbered, split="countbench", **settings)
        write_shard(BENCHMARK, parallel_map(benchmark, list(enumerate(counts))))
        named = partial(_numbered, split="zero-shot", **settings)
        write_shard(ZERO_SHOT, parallel_map(named, [(number, None) for number in range(zero_shot_images)]))
    names = [f"{colour} {plural}" for plural in PLURAL.values() for colour in COLOURS]
    write_json(CLASSES, {"names": names, "templates": SCENE_TEMPLATES})
    write_json(MISSING, [])
    return _audit(counts, missing=[])


def _numbered(item: tuple[int, int | None], **settings) -> Sample:
    number, count = item
    return scene_sample(number, count=count, **settings)


def collect(rows: list[dict], images: dict[str, Sample], why_missing: dict[str, str], otherwise: str) -> dict:
    """Write the benchmark of CountBench's rows and the images at hand; returns the audit.

    images: URL -> sample; why_missing: URL -> why there is none; otherwise: the reason for those not named there.
    """
    missing: list[dict] = []

    def present() -> Iterator[Sample]:
        for index, row in enumerate(rows):
            url, text, number = row["image_url"], row["text"], row["number"]
            reason, sample = None, images.get(url)
            if number not in {found for _, _, found in number_words(text or "")}:
                reason = "caption does not spell the number"
            elif sample is None:
                reason = why_missing.get(url, otherwise)
            else:
                try:
                    open_image(sample, DECODED_AT)
                except ValueError as error:
                    reason = str(error)
            if reason is not None:
                missing.append({"index": index, "url": url, "number": number, "caption": text, "reason": reason})
                continue
            content = {extension: sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample}
            described = {"url": url, "number": number}
            yield {"__key__": f"{index:06d}", **content, "txt": text.encode(), "json": json.dumps(described).encode()}

    write_shard(BENCHMARK, present())
    write_json(MISSING, missing)
    return _audit([row["number"] for row in rows], missing)


def _audit(numbers: list[int], missing: list[dict]) -> dict:
    """How many rows and images there are, and how many of which number are missing, by reason.

    numbers: of each row. rows_of_a_number: of the number that has the fewest rows, and of the one that has the most.
    """
    if len(numbers) == len(missing):
        raise UserError(f"none of the {len(numbers)} images of the benchmark is at hand: {missing[0]['reason']}")
    rows = [numbers.count(number) for number in NUMBERS]
    return {
        "rows": len(numbers),
        "rows_of_a_number": {"least": min(rows), "most": max(rows)},
        "present": len(numbers) - len(missing),
        "missing": dict(sorted(Counter(row["reason"] for row in missing).items())),
        "missing_by_number": {str(n): count for n, count in sorted(Counter(row["number"] for row in missing).items())},
    }


def read_rows(path: Path) -> list[dict]:
    """CountBench's rows. Raises UserError naming the row that is not one."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}); fetch it again") from None
    for index, row in enumerate(rows):
        fits = isinstance(row, dict) and {"image_url", "text", "number"} <= row.keys()
        if not fits or row["number"] not in NUMBERS:
            raise UserError(
                f"{path}, row {index}: should have image_url, text, and a number of 2..10; found {row!r:.200}"
            )
    return rows


def read_folder(folder: Path) -> tuple[dict[str, Sample], dict[str, str]]:
    """URL -> sample, and URL -> why it could not be fetched, of a folder of shards that img2dataset wrote."""
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise UserError(
            f"params.yaml: countbench = '{folder}': not in sources.yaml, and no folder with .tar shards; make some "
            f"with img2dataset (see the top of pipeline/countclip/countbench.py)"
        )
    import pyarrow.parquet as pq

    images = {record_of(sample).get("url"): sample for shard in shards for sample in read_shard(shard)}
    why: dict[str, str] = {}
    for path in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row.get("error_message"):
                why[row.get("url")] = row["error_message"]
    return images, why


def take_labelled(folder: Path) -> None:
    """Write a folder of images, a folder a class, as the set to name. Raises UserError where there are none."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    paths = [
        path
        for name in classes
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS
    ]
    if not paths:
        raise UserError(
            f"params.yaml: zero_shot = '{folder}': should be a folder with a folder of images "
            f"({', '.join(IMAGE_EXTENSIONS)}) for each class, or null"
        )
    samples = (
        {
            "__key__": f"{number:06d}",
            path.suffix.lower().lstrip("."): path.read_bytes(),
            "json": json.dumps({"class": path.parent.name.replace("_", " ")}).encode(),
        }
        for number, path in enumerate(paths)
    )
    write_shard(ZERO_SHOT, samples)
    names = sorted({path.parent.name.replace("_", " ") for path in paths})
    write_json(CLASSES, {"names": names, "templates": PHOTO_TEMPLATES})


def main() -> str:
    params = load_params()
    scale, chosen = params.at_scale.countclip, params.inputs.countbench
    if chosen == "generated":
        audit = draw(params.seed, scale.benchmark_per_number, scale.zero_shot_images, scale.resolution)
    else:
        from pipeline.inputs import sources

        rows = read_rows(sources.fetch("countbench") / "CountBench.json")
        if chosen in sources.read_registry():
            images = authors.benchmark_images(sources.fetch(chosen))
            audit = collect(rows, images, {}, "not in the authors' set")
        else:
            audit = collect(rows, *read_folder(Path(chosen)), "not in the folder")
        if params.inputs.zero_shot is not None:
            take_labelled(Path(params.inputs.zero_shot))
    write_json(METRICS / "benchmark.json", audit)
    return f"{audit['present']:,} of {audit['rows']:,} images"


if __name__ == "__main__":
    run(main)
