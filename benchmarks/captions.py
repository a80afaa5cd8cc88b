"""Captions scanned a second, against a Python loop.

    python -m benchmarks.captions [--captions 5000000]

The captions are the real LAION rows below STUDIES_MIRROR (or, without it, generated alt texts),
repeated with their row's number at the end until there are as many as asked for, in Parquet files as
LAION's metadata comes. Ours scans the files on one core. The reference reads them with pandas and puts
captions.caption_count, the same rule with Python's `re`, to one caption after another; its time is
that of one file, scaled up. Both must find the same captions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ["POLARS_MAX_THREADS"] = "1"  # before Polars is imported: one core

import pandas as pd
import polars as pl

from benchmarks.common import seconds
from pipeline.countclip.captions import caption_count
from pipeline.countclip.pool import draw_sample
from pipeline.countclip.scan import scan
from pipeline.params import load_params

ROWS_A_FILE = 500_000


def some_captions() -> pl.DataFrame:
    mirror = os.environ.get("STUDIES_MIRROR")
    if mirror and (path := Path(mirror) / "laion/laion400m-sample.parquet").exists():
        return pl.read_parquet(path)
    pool = load_params().countclip.pool
    samples = [draw_sample(i, seed=0, pool=pool, resolution=64) for i in range(2000)]
    return pl.DataFrame({"URL": [s["__key__"] for s in samples], "TEXT": [s["txt"].decode() for s in samples]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=5_000_000)
    wanted = parser.parse_args().captions
    base = some_captions()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-(-wanted // ROWS_A_FILE)):
            rows = pl.concat([base] * (ROWS_A_FILE // len(base) + 1)).head(ROWS_A_FILE).with_row_index("row")
            text = pl.col("TEXT") + " " + (pl.col("row") + number * ROWS_A_FILE).cast(pl.String)
            rows.select("URL", text).write_parquet(Path(folder) / f"{number:05d}.parquet")
        files = sorted(Path(folder).glob("*.parquet"))
        rows_in_all = ROWS_A_FILE * len(files)
        found: dict[str, int] = {}
        ours = min(seconds(lambda: found.update(ours=len(scan(folder).rows))) for _ in range(3))

        def loop() -> None:
            texts = pd.read_parquet(files[0], columns=["URL", "TEXT"])["TEXT"]
            found["loop"] = sum(caption_count(text) is not None for text in texts)

        reference = min(seconds(loop) for _ in range(2)) * len(files)
        assert found["loop"] == len(scan(files[0]).rows)
        size = sum(file.stat().st_size for file in files) / rows_in_all
    print(f"{rows_in_all:,} captions, {size:.0f} bytes a row in Parquet; {found['ours']:,} spell a number")
    print(f"  ours, one core               {rows_in_all / ours / 1e6:>8.2f} million captions/s")
    print(f"  loop with re (scaled)        {rows_in_all / reference / 1e6:>8.2f} million captions/s")
    print(f"  ratio {reference / ours:.1f}x")
    print(
        f"  400 million rows: {4e8 / (rows_in_all / ours) / 60:.1f} minutes on one core, if storage gives "
        f"{size * rows_in_all / ours / 2**20:.0f} MiB/s; the loop, {4e8 / (rows_in_all / reference) / 3600:.1f} hours"
    )


if __name__ == "__main__":
    main()
