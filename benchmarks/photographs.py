"""The filter on photographs with known annotations: what it keeps, and how fast.

    STUDIES_MIRROR=... python -m benchmarks.photographs [--sheet sheet.png]

64 COCO photographs, each twice: with a caption that spells the number of its most frequent annotated
class, and with one that spells another number (where that number is 2..10). A pair should be kept if
its caption is right. Speed: the filter as the stage runs it, processes of one thread, against
`YOLO(path)` on one file after another with all cores; model loading is left out of both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.common import seconds
from pipeline.countclip.captions import WORDS
from pipeline.countclip.figures import sheet
from pipeline.countclip.filter import merged, run_locally
from pipeline.countclip.pairs import Settings
from pipeline.shards import Sample, cores, write_shard

REPEATS = 4  # of the photographs, for timing


def pairs(folder: Path) -> list[Sample]:
    """Each photograph with a right caption and with a wrong one."""
    coco = json.loads((folder / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    for image in coco["images"]:
        of_image = (a["category_id"] for a in coco["annotations"] if a["image_id"] == image["id"])
        (most, count), *_ = Counter(of_image).most_common(1) or [(None, 0)]
        content = (folder / "images" / image["file_name"]).read_bytes()
        if count not in WORDS:
            continue
        wrong = int(rng.choice([n for n in WORDS if n != count]))
        for kind, number in (("right", count), ("wrong", wrong)):
            record = {"url": image["file_name"], "truth": {"count": count}}
            text = f"{WORDS[number]} of kind {names[most]}"
            key = f"{image['id']:012d}-{kind}"
            samples.append({"__key__": key, "jpg": content, "txt": text.encode(), "json": json.dumps(record).encode()})
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    options = parser.parse_args()
    mirror = Path(os.environ["STUDIES_MIRROR"])
    checkpoint = mirror / "weights/yolov8n.pt"
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    settings = Settings(
        str(checkpoint), digest, size=640, confidence=0.25, iou=0.7, batch=1, threads=1, precision=options.precision
    )
    samples = pairs(mirror / "coco")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = [folder / f"{i:05d}.tar" for i in range(cores() * REPEATS)]
        for shard, part in zip(shards[: cores()], np.array_split(np.array(samples), cores()), strict=True):
            write_shard(shard, part.tolist())
        numbers = merged(run_locally(shards[: cores()], folder / "once", settings))
        right = sum(b"right" in s["__key__"].encode() for s in samples)
        print(f"{len(samples)} pairs, {right} of them right; kept {numbers['kept']}")
        print(f"  precision {numbers['precision']:.3f}, recall {numbers['recall']:.3f}")
        if options.sheet:
            sheet(folder / "once", options.sheet)

        for shard in shards:
            write_shard(shard, samples)
        warm = seconds(lambda: list(run_locally(shards[: cores()], folder / "warm", settings)))
        full = seconds(lambda: list(run_locally(shards, folder / "full", settings)))
        # the same start-up in both: what more shards take longer is work alone
        ours = len(samples) * (len(shards) - cores()) / (full - warm)

        from pipeline.countclip.detector import load_checkpoint, use_threads

        files = sorted((mirror / "coco/images").glob("*.jpg"))
        use_threads(cores())
        yolo = load_checkpoint(checkpoint, digest)
        yolo(str(files[0]), verbose=False)
        reference = len(files) / seconds(lambda: [yolo(str(file), verbose=False) for file in files])
    print(f"  ours, {cores()} processes          {ours:>7.1f} images/s")
    print(f"  YOLO(path), {cores()} threads      {reference:>7.1f} images/s")
    print(f"  ratio {ours / reference:.2f}x")


if __name__ == "__main__":
    main()
