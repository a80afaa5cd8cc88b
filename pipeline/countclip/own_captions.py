"""Images and captions of one's own: a folder with a table, or a shard as the benchmark's.

The folder holds the images and one CSV file with the columns image, caption and number:

    image,caption,number
    cats.jpg,three cats on a sofa,3

image: a path below the folder. caption: spells the number as a word. number: 2 to 10, what the image shows.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.countclip.captions import NUMBERS, WORDS, number_words
from pipeline.countclip.samples import IMAGE_EXTENSIONS, record_of
from pipeline.shards import read_shard
from pipeline.stage import UserError

COLUMNS = ("image", "caption", "number")


@dataclass(frozen=True)
class Captioned:
    """key: of the image, unique. number: 2..10, which `caption` spells. content: the image file, or its bytes."""

    key: str
    caption: str
    number: int
    content: Path | bytes

    def read(self) -> bytes:
        """The bytes of the image file."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def read_captioned(place: Path) -> list[Captioned]:
    """All rows of a folder's table, or all samples of a .tar shard, in their order.

    Raises UserError naming the first row that is wrong, and how many there are.
    """
    if place.suffix == ".tar" and place.is_file():
        return _read_shard(place)
    if not place.is_dir():
        raise UserError(f"{place}: no such folder; should be a folder with images and a table, or a .tar shard")
    tables = sorted(place.glob("*.csv"))
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise UserError(
            f"{place}: should hold one .csv table, with the columns {', '.join(COLUMNS)}, beside its images; "
            f"found {found}"
        )
    return _read_table(tables[0])


def _read_table(path: Path) -> list[Captioned]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            table, header = list(reader), list(reader.fieldnames or [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV table in UTF-8 ({error}); should begin with {','.join(COLUMNS)}") from None
    if missing := [name for name in COLUMNS if name not in header]:
        hint = "; separate them by commas" if any(";" in name or "\t" in name for name in header) else ""
        raise UserError(
            f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; has "
            f"{', '.join(header) or 'none'}{hint}"
        )
    if not table:
        raise UserError(f"{path}: no rows below its header; should have one an image")
    times = Counter(row["image"] for row in table)
    rows: list[Captioned] = []
    wrong: list[str] = []
    for line, row in enumerate(table, start=1):
        if None in row or None in row.values():
            more = "more" if None in row else "fewer"
            wrong.append(f"row {line}: has {more} cells than the header; put a caption that has commas in quotes")
            continue
        image, caption, number = (row[name] for name in COLUMNS)
        file = path.parent / image
        if (reason := _mistake(file, image, caption, number)) is not None:
            wrong.append(f"row {line}: {reason}")
        else:
            key = image if times[image] == 1 else f"{image}#{line}"  # one image may have several captions
            rows.append(Captioned(key, caption, int(number), file))
    _raise_first(path, wrong)
    return rows


def _mistake(file: Path, image: str, caption: str, number: str) -> str | None:
    if not image or not file.is_file():
        return f"image '{image}' is not there; should be a path below {file.parent}"
    if number.strip() not in map(str, NUMBERS):
        return f"number = '{number}'; should be {NUMBERS[0]} to {NUMBERS[-1]}"
    return _not_spelled(caption, int(number))


def _not_spelled(caption: str, number: int) -> str | None:
    if number in {found for _, _, found in number_words(caption)}:
        return None
    return f"caption '{caption:.80}' does not spell its number; should hold the word '{WORDS[number]}'"


def _raise_first(path: Path, wrong: list[str]) -> None:
    if wrong:
        more = f" ({len(wrong) - 1:,} more rows are wrong)" if len(wrong) > 1 else ""
        raise UserError(f"{path}, {wrong[0]}{more}")


def _read_shard(path: Path) -> list[Captioned]:
    rows = list(_samples(path))
    if not rows:
        raise UserError(f"{path}: no samples; should have an image, .txt (caption) and .json (number) each")
    wrong = [f"sample {row.key}: {reason}" for row in rows if (reason := _not_spelled(row.caption, row.number))]
    _raise_first(path, wrong)
    return rows


def _samples(path: Path) -> Iterator[Captioned]:
    for sample in read_shard(path):
        key, number = str(sample["__key__"]), record_of(sample).get("number")
        content = next((sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample), None)
        if number not in NUMBERS or content is None or "txt" not in sample:
            raise UserError(
                f"{path}, sample {key}: should have an image ({', '.join(IMAGE_EXTENSIONS)}), a caption (.txt) and a "
                f"number of {NUMBERS[0]} to {NUMBERS[-1]} (.json); found {', '.join(sorted(sample))}, number {number!r}"
            )
        yield Captioned(key, sample["txt"].decode(errors="replace"), number, content)
