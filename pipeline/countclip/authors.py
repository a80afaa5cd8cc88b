"""The CountCLIP authors' own training set (Zenodo 10.5281/zenodo.10981852) as shards of the pool.

merged.json has one JSON object a line: pths (an image in data.zip), caps (its caption), urls, and counts,
which is the number that their filter found, or -1 for the images that do not count. Our filter decides
by itself; the authors' number is kept beside its own, as `authors_count`.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from pipeline.shards import Sample, write_shard
from pipeline.stage import UserError

LIST, IMAGES = "merged.json", "data.zip"
FIELDS = ("pths", "caps", "urls", "counts")
A_SHARD = 1000  # images


def write_shards(source: Path, folder: Path) -> dict:
    """Write the set below `source` as shards; returns their number and the images by outcome.

    Raises UserError, naming file and line, where the list or the archive is not as described.
    """
    try:
        with zipfile.ZipFile(source / IMAGES) as archive:
            outcomes: Counter = Counter()
            samples = _samples(source / LIST, archive, outcomes)
            shards = 0
            while part := list(islice(samples, A_SHARD)):
                write_shard(folder / f"{shards:05d}.tar", part)
                shards += 1
    except zipfile.BadZipFile as error:
        raise UserError(f"{source / IMAGES}: not a whole zip archive ({error}); fetch it again") from None
    return {"shards": shards, "images": dict(sorted(outcomes.items()))}


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
