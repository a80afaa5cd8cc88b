"""The CountCLIP authors' own training set and benchmark images (Zenodo 10.5281/zenodo.10981852).

merged.json has one JSON object a line: pths (an image in data.zip), caps (its caption), urls, and counts,
which is the number that their filter found, or -1 for the images that do not count. Our filter decides
by itself; the authors' number is kept beside its own, as `authors_count`. val.json is such a list of
CountBench's rows, whose images are in the same archive.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

from pipeline.shards import Sample, write_shard
from pipeline.stage import UserError

LIST, BENCHMARK, IMAGES = "merged.json", "val.json", "data.zip"
FIELDS = ("pths", "caps", "urls", "counts")
A_SHARD = 1000  # images


def write_shards(source: Path, folder: Path) -> dict:
    """Write the set below `source` as shards; returns their number and the images by outcome.

    Raises UserError, naming file and line, where the list or the archive is not as described.
    """
    outcomes: Counter = Counter()
    with _archive(source / IMAGES) as archive:
        samples = _samples(source / LIST, archive, outcomes)
        shards = 0
        while part := list(islice(samples, A_SHARD)):
            write_shard(folder / f"{shards:05d}.tar", part)
            shards += 1
    return {"shards": shards, "images": dict(sorted(outcomes.items()))}


def benchmark_images(source: Path) -> dict[str, Sample]:
    """URL -> sample of CountBench's images below `source`. Raises UserError as `write_shards` does."""
    with _archive(source / IMAGES) as archive:
        return {
            json.loads(sample["json"])["url"]: sample for sample in _samples(source / BENCHMARK, archive, Counter())
        }


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a whole zip archive ({error}); fetch it again") from None


def _samples(path: Path, archive: zipfile.ZipFile, outcomes: Counter) -> Iterator[Sample]:
    # the paths were written on the authors' machine: what names an image is the end of its path
    by_name = {PurePosixPath(name).name: name for name in archive.namelist() if not name.endswith("/")}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            pths, caption, url, count = (json.loads(line)[field] for field in FIELDS)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: should be an object with {', '.join(FIELDS)}: {error!r}") from None
        name = PurePosixPath(str(pths).replace("\\", "/")).name
        if name not in by_name:
            outcomes["not in the archive"] += 1
            continue
        if caption is None:
            outcomes["without a caption"] += 1
            continue
        outcomes["taken"] += 1
        extension = PurePosixPath(name).suffix.lstrip(".").lower() or "jpg"
        record = {"url": url, "caption": caption, "authors_count": count if count != -1 else None}
        yield {
            "__key__": f"{number:09d}",
            extension: archive.read(by_name[name]),
            "txt": str(caption).encode(),
            "json": json.dumps(record).encode(),
        }
