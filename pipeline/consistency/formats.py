"""Files of trials in the formats that the field has, each as one table with the same names of columns.

- CSV as modelvshuman has it: subj, session, trial, rt, object_response, category, condition, imagename.
- CSV with who saw what and was right: observer, image, correct.

pipeline/predictions.py reads this project's Parquet. A CSV file is in UTF-8, separated by commas. Its names of columns
are in either case, and a column may have any of the names in NAMES. Columns beyond these are kept. Text columns are
categorical, so that 10 million trials fit.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from pipeline.stage import UserError

NAMES = {  # our name of a column: those that it may have in a file; of two in one file, the first counts
    "observer": ("subj", "observer"),
    "session": ("session",),
    "condition": ("condition",),
    "image": ("imagename", "image"),
    "category": ("category",),
    "response": ("object_response", "response"),
    "correct": ("correct",),
}
RIGHT = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
UNSCORED = {"", "na", "nan", "null"}  # in the column `correct`: no answer is right
HEADER_BYTES = 1 << 20
BLOCK = 16 << 20  # bytes of a file that are parsed at once
SHOWN = 20  # values, in an error


def read_csv(path: str | Path) -> pd.DataFrame:
    """One CSV file of trials, a row a trial.

    Columns: observer, image (as written) and, as far as the file has them, condition, category, response, all
    categorical; session (int, 1 where the file has none); correct (bool, or None where no answer is right), if the file
    has it; `row`, the line in the file; and all others, by their names in lower case.

    Raises UserError in one line, naming file, what was found and what is expected: for an empty file, another
    separator, another encoding, a missing column, and values of `session` or `correct` that are none.
    """
    path = Path(path)
    names = _header(path)
    known = _known(path, names)
    try:
        table = pacsv.read_csv(
            path,
            pacsv.ReadOptions(block_size=BLOCK),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.dictionary(pa.int32(), pa.string()) for name in known.values()},
                auto_dict_encode=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(path) from None
        raise UserError(f"{path}: not a CSV table: {' '.join(str(error).split())[:300]}") from None
    ours = {name: column for column, name in known.items()}
    table = table.rename_columns([ours.get(name, _extra(name)) for name in table.column_names])
    if not table.num_rows:
        raise UserError(f"{path}: no trials below the header")
    rows = table.unify_dictionaries().to_pandas()
    for name in known:
        if (rows[name].cat.categories.str.strip() != rows[name].cat.categories).any():
            rows[name] = recoded(rows[name], lambda values: values.str.strip())
    rows["row"] = np.arange(2, len(rows) + 2, dtype=np.int32)
    for name in ("observer", "image"):
        if (empty := rows[name] == "").any():
            raise UserError(f"{path}, row {rows.loc[empty, 'row'].iloc[0]}: no {name}, in column '{known[name]}'")
    rows["session"] = _sessions(path, rows) if "session" in known else 1
    if "correct" in known:
        rows["correct"] = _correct(path, rows)
    return rows


def recoded(column: pd.Series, change: Callable[[pd.Series], pd.Series]) -> pd.Series:
    """A categorical column with its values changed; values that become the same are one.

    change: of the distinct values, [values] -> [values].
    """
    values = column.cat.categories.to_series(index=range(len(column.cat.categories)))
    codes, distinct = pd.factorize(change(values))
    return pd.Series(pd.Categorical.from_codes(codes[column.cat.codes], distinct), index=column.index)


def shown(values: object) -> str:
    """Values for an error: the first of them, in order."""
    ordered = sorted(map(str, values))
    return ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(HEADER_BYTES)
    if not line.strip():
        raise UserError(f"{path}: empty; expected a line of column names, then a row a trial")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if "\0" in text:
        raise _not_utf8(path)
    names = next(csv.reader([text]))
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in text), None)):
        raise UserError(f"{path}: columns are separated by {other!r}; expected commas, and points in numbers")
    return names


def _not_utf8(path: Path) -> UserError:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
                return UserError(f"{path}: UTF-16, or no text; expected CSV in UTF-8, so save it as that")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                return UserError(f"{path}, row {number}: byte {byte} is not UTF-8; expected UTF-8, so save it as that")
    return UserError(f"{path}: not UTF-8; save it as that")


def _known(path: Path, names: list[str]) -> dict[str, str]:
    """Our names of the columns that the file has, and its own."""
    lower = [name.strip().lower() for name in names]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise UserError(f"{path}: has the columns {twice} twice; has {names}")
    known = {}
    for column, allowed in NAMES.items():
        if found := next((name for name in allowed if name in lower), None):
            known[column] = names[lower.index(found)]
    missing = [column for column in ("observer", "image") if column not in known]
    if "correct" not in known:
        lacking = [column for column in ("response", "category") if column not in known]
        missing += lacking if len(lacking) < 2 else ["correct"]
    if missing:
        allowed = "; ".join(f"{column}: {' or '.join(NAMES[column])}" for column in missing)
        instead = "; response and category serve for correct" if "correct" in missing else ""
        raise UserError(
            f"{path}: lacks the columns {missing}; has {names}; allowed, in either case: {allowed}{instead}"
        )
    return known


def _extra(name: str) -> str:
    """A column that is none of ours, in lower case; one whose name we need has another."""
    lower = name.strip().lower()
    return f"other_{lower}" if lower in (*NAMES, "row", "file") else lower


def _sessions(path: Path, rows: pd.DataFrame) -> pd.Series:
    numbers = pd.to_numeric(rows["session"].cat.categories.to_series(), errors="coerce").to_numpy()
    wrong = np.isnan(numbers) | (numbers % 1 != 0)
    if wrong.any():
        row = rows[wrong[rows["session"].cat.codes]].iloc[0]
        raise UserError(f"{path}, row {row['row']}: session = {row['session']!r}; should be a whole number")
    return pd.Series(numbers.astype(int)[rows["session"].cat.codes], index=rows.index)


def _correct(path: Path, rows: pd.DataFrame) -> pd.Series:
    values, codes = [value.lower() for value in rows["correct"].cat.categories], rows["correct"].cat.codes.to_numpy()
    wrong = np.array([value not in RIGHT and value not in UNSCORED for value in values])
    if wrong.any():
        row = rows[wrong[codes]].iloc[0]
        raise UserError(
            f"{path}, row {row['row']}: correct = {row['correct']!r}; allowed: {', '.join(RIGHT)}, in either case, or "
            f"nothing where no answer is right"
        )
    right = pd.Series(np.array([RIGHT.get(value, False) for value in values])[codes], index=rows.index)
    unscored = np.array([value in UNSCORED for value in values])[codes]
    return right.astype(object).mask(unscored, None) if unscored.any() else right
