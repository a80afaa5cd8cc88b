"""Which rows of LAION-400M's metadata spell a number? (countclip, section 2.1)

    python -m pipeline.countclip.scan --metadata 's3://laion/*.parquet' --out counted.parquet

Streams Parquet files with a column TEXT (and URL), local or at any address that fsspec reads; only
captions that spell a number are held in memory. The rules are those of captions.py, run by Polars: all
captions pass a plain search for number words, and the few that have one the full rule. A file with
captions that are not UTF-8 is read again more slowly, the offending bytes replaced, and they are counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.countclip.captions import ANY, NUMBER_OF, PATTERN
from pipeline.stage import UserError, replacing, run

COLUMNS = ["URL", "TEXT"]
BY_POLARS = ("", "s3://", "gs://", "az://", "hf://", "http://", "https://")  # read without fsspec's files


@dataclass(frozen=True)
class Scan:
    """rows: those that spell a number, with 'count' beside URL and TEXT.

    read, null, not_utf8: rows in all, without a caption, and with one that is not UTF-8.
    """

    rows: pl.DataFrame
    read: int
    null: int
    not_utf8: int


def caption_counts(text: pl.Expr) -> pl.Expr:
    """The number that each caption spells (2..10 or null), as captions.caption_count does."""
    words = text.str.extract_all(PATTERN).list.eval(pl.element().str.to_lowercase())
    return words.list.eval(pl.element().replace_strict(NUMBER_OF, default=None, return_dtype=pl.Int64)).list.max()


def scan(metadata: str | Path) -> Scan:
    """Rows of Parquet metadata whose TEXT spells a number; `metadata` is a file, a folder, a pattern or their address.

    Raises UserError where there is no such file, or one cannot be read or lacks a column.
    """
    files = _files(str(metadata))
    parts = [_scan_file(file) for file in tqdm(files, "scan", unit="file", disable=None, leave=False)]
    return _joined(parts)


def _joined(parts: list[Scan]) -> Scan:
    return Scan(
        rows=pl.concat([part.rows for part in parts]),
        read=sum(part.read for part in parts),
        null=sum(part.null for part in parts),
        not_utf8=sum(part.not_utf8 for part in parts),
    )


def _files(metadata: str) -> list[str]:
    system, path = fsspec.url_to_fs(metadata)
    pattern = f"{path.rstrip('/')}/**/*.parquet" if system.isdir(path) else path
    files = sorted(system.glob(pattern))
    if not files:
        raise UserError(f"{metadata}: no Parquet file; give a file, a folder or a pattern ending in .parquet")
    return [system.unstrip_protocol(file) if "://" in metadata else file for file in files]


def _scan_file(file: str) -> Scan:
    protocol = f"{file.partition('://')[0]}://" if "://" in file else ""
    source = file if protocol in BY_POLARS else fsspec.open(file, "rb").open()
    try:
        table = pl.scan_parquet(source)
        found = table.collect_schema().names()
        if missing := [name for name in COLUMNS if name not in found]:
            raise UserError(f"{file}: lacks the columns {missing}; has {found}")
        return _count(table.select("URL", pl.col("TEXT").cast(pl.String)))
    except pl.exceptions.ComputeError as error:
        if not re.search("utf-?8", str(error), re.IGNORECASE):
            raise UserError(f"{file}: cannot be read as Parquet: {error}") from None
        return _scan_bytes(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{file}: cannot be read as Parquet: {error}") from None


def _count(table: pl.LazyFrame, not_utf8: int = 0) -> Scan:
    totals = table.select(pl.len().alias("read"), pl.col("TEXT").null_count().alias("null"))
    rows = (
        table.filter(pl.col("TEXT").str.contains(ANY))
        .with_columns(count=caption_counts(pl.col("TEXT")))
        .filter(pl.col("count").is_not_null())
    )
    totals_found, rows_found = pl.collect_all([totals, rows], engine="streaming")
    return Scan(rows_found, *totals_found.row(0), not_utf8=not_utf8)


def _scan_bytes(file: str) -> Scan:
    """A file some of whose captions are not UTF-8."""
    parts = []
    with fsspec.open(file, "rb") as opened:
        for batch in pq.ParquetFile(opened).iter_batches(columns=COLUMNS):
            texts = batch.column("TEXT").cast(pa.binary()).to_pylist()
            decoded = [None if text is None else text.decode(errors="replace") for text in texts]
            wrong = sum(t is not None and d.encode() != t for t, d in zip(texts, decoded, strict=True))
            urls = batch.column("URL").to_pylist()
            table = pl.LazyFrame({"URL": urls, "TEXT": decoded}, {"URL": pl.String, "TEXT": pl.String})
            parts.append(_count(table, wrong))
    return _joined(parts)


def main(metadata: str, out: str) -> str:
    found = scan(metadata)
    with replacing(out) as partial:
        found.rows.write_parquet(partial)
    return (
        f"{len(found.rows):,} of {found.read:,} captions spell a number ({found.null:,} null, "
        f"{found.not_utf8:,} not UTF-8)"
    )


if __name__ == "__main__":
    run(main, metadata=str, out=str)
