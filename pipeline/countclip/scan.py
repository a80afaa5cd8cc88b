"""Which rows of LAION-400M's metadata spell a number? (countclip, section 2.1)

    python -m pipeline.countclip.scan --metadata 's3://laion/*.parquet' --out counted.parquet

Streams Parquet files with a column TEXT (and URL), local or at any address that Polars or fsspec
reads; only captions that spell a number are held in memory. The rules are those of captions.py, run
by Polars: all captions pass a plain search for number words, and the few that have one the full rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.countclip.captions import ANY, NUMBERS, PATTERN
from pipeline.stage import UserError, replacing, run


@dataclass(frozen=True)
class Scan:
    """rows: those that spell a number, with 'count' beside their columns. read, null: rows in all, and without text."""

    rows: pl.DataFrame
    read: int
    null: int


def caption_counts(text: pl.Expr) -> pl.Expr:
    """The number that each caption spells (2..10 or null), as captions.caption_count does."""
    words = text.str.extract_all(PATTERN).list.eval(pl.element().str.to_lowercase())
    return words.list.eval(pl.element().replace_strict(NUMBERS, default=None, return_dtype=pl.Int64)).list.max()


def scan(metadata: str | Path, columns: tuple[str, ...] = ("URL", "TEXT")) -> Scan:
    """Rows of Parquet metadata whose TEXT spells a number; `metadata` is a file, a folder or a pattern.

    Raises UserError where there is no such file, or it lacks a column.
    """
    source = str(metadata)
    if Path(source).is_dir():
        source = f"{source.rstrip('/')}/**/*.parquet"
    try:
        table = pl.scan_parquet(source)
        found = table.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{metadata}: cannot be read as Parquet: {error}") from None
    if missing := [name for name in columns if name not in found]:
        raise UserError(f"{metadata}: lacks the columns {missing}; has {found}")
    text = pl.col("TEXT").cast(pl.String, strict=False)
    totals = table.select(pl.len().alias("read"), text.null_count().alias("null"))
    rows = (
        table.select(columns)
        .filter(text.str.contains(ANY))
        .with_columns(count=caption_counts(text))
        .filter(pl.col("count").is_not_null())
    )
    totals_found, rows_found = pl.collect_all([totals, rows], engine="streaming")
    return Scan(rows_found, *totals_found.row(0))


def main(metadata: str, out: str) -> str:
    found = scan(metadata)
    with replacing(out) as partial:
        found.rows.write_parquet(partial)
    return f"{len(found.rows):,} of {found.read:,} captions spell a number ({found.null:,} are null)"


if __name__ == "__main__":
    run(main, metadata=str, out=str)
