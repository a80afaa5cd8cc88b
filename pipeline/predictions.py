"""One row a trial: who decided what, on which image. What every study hands to error consistency.

Columns that every table has:

    observer   who decided, e.g. 'resnet18-n50'
    condition  under what, e.g. 'margins/density-50/margin+4'; an image belongs to one condition
    image      which image, unique within its condition
    category   the right answer
    response   the answer given
    correct    whether it counts as right (null where no answer is right)

A study may add columns of its own (logits, counts). Text columns are dictionary encoded.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.stage import UserError, write_bytes

COLUMNS = {
    "observer": pa.string(),
    "condition": pa.string(),
    "image": pa.string(),
    "category": pa.string(),
    "response": pa.string(),
    "correct": pa.bool_(),
}
TEXT = [name for name, kind in COLUMNS.items() if kind == pa.string()]
TRIAL = ["observer", "condition", "image"]


def write_predictions(path: str | Path, trials: pd.DataFrame) -> None:
    """Write trials whole or not at all, rows in the order given.

    Raises ValueError for a missing column, an empty text, or a trial that is there twice.
    """
    if missing := [name for name in COLUMNS if name not in trials]:
        raise ValueError(f"predictions for {path} lack the columns {missing}")
    if trials[TEXT].isna().any(axis=None):
        raise ValueError(f"predictions for {path} have empty cells in {TEXT}")
    if (twice := trials.duplicated(TRIAL)).any():
        raise ValueError(f"predictions for {path} hold a trial twice: {trials.loc[twice, TRIAL].iloc[0].tolist()}")
    extra = [name for name in trials.columns if name not in COLUMNS]
    table = pa.Table.from_pandas(trials[[*COLUMNS, *extra]], preserve_index=False).replace_schema_metadata(None)
    for position, (name, kind) in enumerate(COLUMNS.items()):
        column = table[name].cast(kind)
        table = table.set_column(position, name, column.dictionary_encode() if name in TEXT else column)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_predictions(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All trials of these files as one table. Raises UserError naming the file that is not such a table."""
    tables = []
    for path in paths:
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: not a whole Parquet file ({error}); delete it and run 'dvc repro'") from None
        if missing := [name for name in COLUMNS if name not in table.column_names]:
            raise UserError(f"{path}: lacks the columns {missing}; has {table.column_names}")
        tables.append(table)
    return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries().to_pandas()
