"""One shard of pairs: which captions' numbers are what a detector counts (countclip, section 2.1).

`filter_shard` is the unit of work of the filter: it depends on its shard and settings alone.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from pipeline.countclip.captions import caption_count
from pipeline.countclip.samples import caption_of, open_image, record_of
from pipeline.shards import Sample, read_shard, write_shard
from pipeline.stage import UserError, write_bytes, write_json

AT_ONCE = 256  # images held decoded
PARTS = ("counting", "other")  # shards of pairs that are kept for counting, and of all the others


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know. detector: path of a checkpoint (with its sha256) or of our own safetensors."""

    detector: str
    sha256: str | None
    size: int
    confidence: float
    iou: float
    batch: int
    threads: int
    precision: str = "fp32"
    by: str = "detector"  # or "truth": what a generated scene shows, whatever is detected in it


@cache
def detector(settings: Settings) -> Callable[[list[Image.Image]], list]:
    """A worker's detector, loaded once."""
    from pipeline.countclip.detector import Detector, load_checkpoint, load_detector, use_threads

    use_threads(settings.threads)
    path = Path(settings.detector)
    yolo = load_checkpoint(path, settings.sha256) if settings.sha256 else load_detector(path)
    return Detector(
        yolo,
        size=settings.size,
        confidence=settings.confidence,
        iou=settings.iou,
        batch=settings.batch,
        precision=settings.precision,
    )


def filter_shard(shard: Path, out: Path, settings: Settings) -> dict:
    """Filter one shard into `out`; returns, and writes last, its statistics. What is done is not done again."""
    statistics = out / "statistics" / f"{shard.stem}.json"
    if statistics.exists():
        return json.loads(statistics.read_text())
    samples = list(read_shard(shard))
    rows = [_read_caption(sample) for sample in samples]
    spelled = [(sample, row) for sample, row in zip(samples, rows, strict=True) if row["reason"] is None]
    for start in range(0, len(spelled), AT_ONCE):
        _count_things(spelled[start : start + AT_ONCE], settings)
    _write_parts(shard, out, samples, rows)
    numbers = {
        "rows": len(rows),
        "kept": sum(row["reason"] is None for row in rows),
        "dropped": dict(sorted(Counter(row["reason"] for row in rows if row["reason"]).items())),
        "by_count": {str(n): c for n, c in sorted(Counter(row["count"] for row in rows if not row["reason"]).items())},
        "truth": _against_truth(samples, rows),
    }
    write_json(statistics, numbers)
    return numbers


def _read_caption(sample: Sample) -> dict:
    """The row of a sample: its caption and the number that this spells, or the reason why it is dropped."""
    row = {"key": sample["__key__"], "caption": None, "count": None, "reason": None}
    try:
        row["caption"] = caption_of(sample)
    except UnicodeDecodeError:
        return row | {"reason": "caption cannot be decoded"}
    row["count"] = caption_count(row["caption"])
    if row["count"] is None:
        row["reason"] = "caption is missing" if row["caption"] is None else "caption spells no number"
    return row


def _count_things(pairs: list[tuple[Sample, dict]], settings: Settings) -> None:
    """Put what is detected in the images into their rows, and the reason why a row is dropped, if it is."""
    opened: list[tuple[Image.Image, dict]] = []
    for sample, row in pairs:
        try:
            if settings.by == "truth":
                row["truth"] = _true_count(sample)
            opened.append((open_image(sample, settings.size), row))
        except ValueError as error:
            row["reason"] = str(error)
    if not opened:
        return
    images, rows = zip(*opened, strict=True)
    for row, found in zip(rows, detector(settings)(list(images)), strict=True):
        most = found.most_frequent
        row.update(
            detected_class=most[0] if most else None,
            detected_count=most[1] if most else 0,
            boxes=np.round(found.boxes, 5).tolist(),
            classes=found.classes,
            scores=np.round(found.scores.astype(float), 5).tolist(),
        )
        if settings.by == "truth":
            if row.pop("truth") != row["count"]:
                row["reason"] = "true count differs from the caption's"
        elif most is None:
            row["reason"] = "nothing detected"
        elif most[1] != row["count"]:
            row["reason"] = "detected count differs from the caption's"


def _true_count(sample: Sample) -> int:
    """What a generated scene shows. Raises UserError for a pair of which that is not known."""
    try:
        return record_of(sample)["truth"]["count"]
    except KeyError:
        raise UserError(
            f"params.yaml: scales.*.countclip.filter_by = 'truth': {sample['__key__']} is no generated scene, "
            f"its true count is not known; set it to 'detector'"
        ) from None


def _write_parts(shard: Path, out: Path, samples: list[Sample], rows: list[dict]) -> None:
    """The samples in their parts, each with what was found in its .json; and a manifest of all rows."""
    described: dict[str, list[Sample]] = {part: [] for part in PARTS}
    for sample, row in zip(samples, rows, strict=True):
        record = record_of(sample)
        row["url"] = record.get("url")
        found = {
            key: row.get(key) for key in ("count", "detected_class", "detected_count", "classes", "boxes", "scores")
        }
        content = json.dumps({**record, "caption": row["caption"], **found, "reason": row["reason"]})
        described["other" if row["reason"] else "counting"].append({**sample, "json": content.encode()})
    for part, members in described.items():
        write_shard(out / part / shard.name, members)
    schema = {
        "key": pl.String, "url": pl.String, "caption": pl.String, "count": pl.Int64, "reason": pl.String,
        "detected_class": pl.String, "detected_count": pl.Int64,
    }  # fmt: skip
    manifest = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema)
    buffer = io.BytesIO()
    manifest.with_columns(shard=pl.lit(shard.stem)).write_parquet(buffer)
    write_bytes(out / "manifest" / f"{shard.stem}.parquet", buffer.getvalue())


def _against_truth(samples: list[Sample], rows: list[dict]) -> dict[str, int]:
    """For scenes: pairs that should be kept (their caption's number is their number of things), and were."""
    counts: Counter = Counter(should=0, kept=0, rightly=0)
    for sample, row in zip(samples, rows, strict=True):
        if truth := record_of(sample).get("truth"):
            should, was = truth["count"] == row["count"], row["reason"] is None
            counts.update(should=should, kept=was, rightly=should and was)
    return dict(counts)
