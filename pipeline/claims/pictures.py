"""Figures of the report: WebP in data URIs, with captions, and which figure stands behind which claim."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import PIL
from PIL import Image

from pipeline.claims.schema import Claim, Document
from pipeline.params import parse_yaml
from pipeline.section import Section
from pipeline.stage import write_bytes

KEPT = Path("report/.figures")  # figures as they were encoded for the last report: an experiment changes a few
WORDS = "page/words.yaml"
# Pixels across, of panoramas and of others, and WebP's quality (0 to 100): the first with which all figures fit. The
# last numbers are a page's bytes in units of the smallest size's, measured on the 76 figures of a laptop's run.
SIZES = (
    (2000, 1400, 76, 2.51),
    (1700, 1200, 70, 2.28),
    (1400, 1000, 64, 2.01),
    (1100, 800, 56, 1.49),
    (900, 600, 50, 1),
)
PANORAMA = 3  # times as wide as high
LARGE = 50_000  # bytes, from which a figure is worth a second try
ALL_FIGURES = 4_300_000  # characters in the page at most, of the 6 million that it may have
THUMBNAIL = (560, 300, 70)  # pixels across and down at most, quality


class Caption(Section):
    """What a figure shows. of: the claims behind which it stands, patterns of their names or of files they measure."""

    title: str
    shows: str
    published: str | None = None
    of: list[str]


class Words(Section):
    """What is said of a document: its question, the claims and the figure of the first screen, captions."""

    asks: str
    figure: str
    leads: list[str]
    figures: dict[str, Caption]


class AllWords(Section):
    """page/words.yaml. runs: other seeds and kinds of machine under results/<scale>/, in words."""

    runs: dict[str, str]
    folders: dict[str, str]
    documents: dict[str, Words]


@dataclass(frozen=True)
class Picture:
    """A figure: where it lies, its id in the page, its caption and what its folder's figures have in common."""

    path: Path
    id: str
    caption: Caption
    note: str
    size: tuple[int, int]
    uri: str = field(repr=False)


@lru_cache
def read_words() -> AllWords:
    """The captions and the first screen's words."""
    return AllWords.model_validate(parse_yaml((files("pipeline.claims") / WORDS).read_text(), WORDS))


def words_of(name: str) -> Words:
    """Of a document; of one without any, its first figure and its first claims will do."""
    return read_words().documents.get(name) or Words(asks="", figure="*", leads=[], figures={})


def paths(document: Document) -> Iterator[Path]:
    """Its figures' files: those named, and all PNG files in the folders named."""
    for place in map(Path, document.figures):
        yield from sorted(place.glob("*.png")) if place.is_dir() else [path for path in [place] if path.exists()]


def caption(name: str, path: Path) -> Caption:
    """A figure's caption; where it has none, its file's name in words."""
    captions = words_of(name).figures
    found = next((captions[pattern] for pattern in captions if fnmatchcase(path.stem, pattern)), None)
    return found or Caption(title=path.stem.replace("_", " ").capitalize(), shows="", of=[])


def pictures(documents: dict[str, Document]) -> dict[str, list[Picture]]:
    """The figures of all documents, as large as they fit in the page together."""
    found = {name: list(paths(document)) for name, document in documents.items()}
    encoded = fitting([path for of in found.values() for path in of])
    notes = read_words().folders
    return {
        name: [
            Picture(
                path,
                f"figure/{path.with_suffix('').as_posix()}",
                caption(name, path),
                next((note for folder, note in notes.items() if path.is_relative_to(folder)), ""),
                *encoded[path],
            )
            for path in of
        ]
        for name, of in found.items()
    }


def fitting(found: list[Path], limit: int = ALL_FIGURES) -> dict[Path, tuple[tuple[int, int], str]]:
    """Size and data URI of each, in the first of the sizes tried in which all have `limit` characters or less together.

    The smallest size is encoded first. Larger ones, the largest first, are tried where they should fit by its length
    and SIZES; that saves half of the time. If none fits, the smallest is taken, however long.
    """

    def encode(wide: int, other: int, quality: int, _: float) -> tuple[dict[Path, Path], int]:
        encoded = {path: _webp(path, wide, other, quality) for path in found}
        return encoded, sum(len(_uri(kept.read_bytes())) for kept in encoded.values())

    smallest, length = encode(*SIZES[-1])
    chosen, used = smallest, {*smallest.values()}
    for size in SIZES[:-1]:
        if length * size[-1] <= limit:
            encoded, taken = encode(*size)
            used.update(encoded.values())  # of one that does not fit too: the next report tries it again
            if taken <= limit:
                chosen = encoded
                break
    for path in {*KEPT.glob("*.webp")} - used:
        path.unlink(missing_ok=True)
    return {path: (_size(kept), _uri(kept.read_bytes())) for path, kept in chosen.items()}


def _webp(path: Path, wide: int, other: int, quality: int) -> Path:
    """Where the figure lies in that size. It is encoded where it, or how it is encoded, has changed."""
    content = path.read_bytes()
    made_of = [f"{wide} {other} {quality} {PIL.__version__}".encode(), Path(__file__).read_bytes(), content]
    digests = [hashlib.sha256(part).digest() for part in made_of]
    kept = KEPT / f"{hashlib.sha256(b''.join(digests)).hexdigest()}.webp"
    if not kept.exists():
        write_bytes(kept, _smaller(content, wide, other, quality))
    return kept


def _smaller(content: bytes, wide: int, other: int, quality: int) -> bytes:
    """Of a large figure, 256 colours without loss where that takes less, as maps of few colours do."""
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    whole = image.copy()
    across = wide if image.width >= PANORAMA * image.height else other
    image.thumbnail((across, image.height), Image.Resampling.LANCZOS)
    encoded = _encode(image, quality=quality)
    if len(encoded) > LARGE and whole.width <= wide:
        few = whole.quantize(256, dither=Image.Dither.NONE).convert("RGB")
        encoded = min(encoded, _encode(few, lossless=True, quality=30), key=len)
    return encoded


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def thumbnail(path: Path) -> str:
    """A data URI of a small figure for the first screen."""
    across, down, quality = THUMBNAIL
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((across, down), Image.Resampling.LANCZOS)
    return _uri(_encode(image, quality=quality))


def _encode(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "WEBP", method=4, **options)
    return content.getvalue()


def _uri(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def hero(name: str, found: list[Picture]) -> Picture | None:
    """The one figure of the first screen; another where this run has not drawn it, None where it has none."""
    wanted = words_of(name).figure
    return next((p for p in found if fnmatchcase(p.path.stem, wanted)), found[0] if found else None)


def behind(name: str, claim: Claim, found: list[Picture]) -> list[Picture]:
    """The figures behind a claim, by its name or the file that it measures."""
    names = [name, *([claim.measure.file] if claim.measure else [])]
    return [p for p in found if any(fnmatchcase(each, pattern) for each in names for pattern in p.caption.of)]
