"""All trials of a set: its files, in whichever format, as one table that the analysis takes.

What is done to CSV files (formats.py says which):

- The experiment is the folder that a file lies in, or the file's name where the set is one file. A condition that holds
  a slash names its experiment itself, as in Parquet: 'margins/density-50/margin+4'.
- Conditions have one name each: 'c05' is 'c5', and where an experiment has one condition, it is '-'.
- modelvshuman writes trial, experiment, person, condition, category and a number before an image's name; they go.
- An image that an observer saw again under the same condition, in a later session, counts once: the first time.
- No answer in time ('na') is a wrong one.
- `kind` is what an observer's name says (trials.kind_of), unless the file has a column of that name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from pipeline.consistency.formats import read_csv, recoded, shown
from pipeline.consistency.trials import CATEGORIES, NO_CONDITION, kind_of, plain_conditions
from pipeline.predictions import TEXT, TRIAL, read_predictions
from pipeline.stage import UserError

SUFFIXES = (".csv", ".parquet")
PREFIX = r"^\d+_[^_]+_[^_]+_[^_]+_[^_]+_\d+_"  # '0001_fc_s01_true_knife_35_' of '..._n03041632_86251.png'
NO_ANSWER = {"na", "nan", "none", ""}


def read_trial_files(path: str | Path, categories: Sequence[str] = (), counts: Counter | None = None) -> pd.DataFrame:
    """All trials of a file, or of all files in a folder and its folders: .csv and .parquet.

    Columns: observer, condition ('<experiment>/<condition>'), image, correct (bool, or None where no answer is right);
    category, response, kind and others as the files have them. A trial is there once for an observer.

    Args:
        categories: answers that are allowed. None given: the sixteen of modelvshuman where the files have any of these,
            else all that the files give as right. Only files without a column `correct` are held to that.
        counts: receives 'repeated_in_a_later_session' and 'without_an_answer', of CSV files, where there are any.

    Raises UserError in one line, naming file and row, for files that are no such tables, an unknown category or
    response, two answers of one observer to one image, and an image of two categories.
    """
    path, counts = Path(path), Counter() if counts is None else counts
    files = files_of(path)
    tables = {file: read_csv(file) for file in files if file.suffix.lower() == ".csv"}
    if not tables:
        return _once(read_predictions(files), path, counts)
    allowed = _allowed(tables, categories)
    experiments: dict[str, list[Path]] = {}
    for file in tables:
        experiments.setdefault(file.stem if file == path else file.resolve().parent.name, []).append(file)
    for experiment, these in experiments.items():
        found = pd.Series(sorted({value for file in these for value in _values(tables[file], "condition")}), dtype=str)
        plain = dict(zip(found, plain_conditions(found), strict=True))
        for file in these:
            tables[file] = _tidy(tables[file], file, experiment, plain, allowed, counts)
    for file in files:
        if file not in tables:
            tables[file] = read_predictions([file]).astype(dict.fromkeys(TEXT, "category")).assign(row=0)
    trials = _once(_join([_placed(table, file) for file, table in tables.items()]), path, counts)
    _check_categories(trials)
    kinds = recoded(trials["observer"], lambda names: names.map(kind_of))
    trials["kind"] = trials["kind"].fillna(kinds) if "kind" in trials else kinds
    return trials.drop(columns=["file", "row"])


def files_of(path: Path) -> list[Path]:
    """The files of trials that a set's path stands for, in order."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: a file of trials ends in .csv or .parquet, not '{path.suffix}'")
        return [path]
    if not path.exists():
        raise UserError(
            f"{path}: not there; expected a .csv or .parquet file, or a folder of them; is it a stage's? 'dvc repro'"
        )
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"{path}: no .parquet or .csv file in it; run 'dvc repro', or put trials there")
    return files


def _values(table: pd.DataFrame, column: str) -> list[str]:
    return list(table[column].cat.categories) if column in table else []


def _placed(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    return table.assign(file=pd.Categorical.from_codes(np.zeros(len(table), np.int8), pd.Index([str(file)])))


def _allowed(tables: dict[Path, pd.DataFrame], categories: Sequence[str]) -> list[str]:
    """The answers that files without a column `correct` may give."""
    found = {value for table in tables.values() if "correct" not in table for value in _values(table, "category")}
    return sorted(categories or (CATEGORIES if found.intersection(CATEGORIES) else found))


def _tidy(
    rows: pd.DataFrame, file: Path, experiment: str, plain: dict[str, str], allowed: list[str], counts: Counter
) -> pd.DataFrame:
    """A CSV file's table with `correct`, and with conditions and images as Parquet has them."""
    if "correct" not in rows:
        for column, none in (("category", set()), ("response", NO_ANSWER)):
            known = np.array([value in allowed or value.lower() in none for value in _values(rows, column)])
            if not (fits := known[rows[column].cat.codes]).all():
                row = rows[~fits].iloc[0]
                raise UserError(
                    f"{file}, row {row['row']}: {column} = {row[column]!r}; allowed: {shown(allowed)}, and 'na' as a "
                    f"response; if yours are others, list them all in `categories` of the set (compare: --categories)"
                )
        if missed := int(no_answer(rows).sum()):
            counts["without_an_answer"] += missed
        both = sorted({*_values(rows, "category"), *_values(rows, "response")})
        given, right = (rows[column].cat.set_categories(both).cat.codes for column in ("response", "category"))
        rows["correct"] = given == right
    if "condition" not in rows:
        rows["condition"] = pd.Categorical.from_codes(np.zeros(len(rows), np.int8), pd.Index([NO_CONDITION]))
        plain = {NO_CONDITION: NO_CONDITION}
    rows["condition"] = recoded(
        rows["condition"],
        lambda values: values.map(lambda value: value if "/" in value else f"{experiment}/{plain[value]}"),
    )
    rows["image"] = recoded(rows["image"], lambda values: values.str.replace(PREFIX, "", regex=True))
    return rows


def no_answer(trials: pd.DataFrame) -> np.ndarray:
    """Whether the observer gave none in time, bool [trials]; False where the files have no responses."""
    if "response" not in trials:
        return np.zeros(len(trials), bool)
    values = trials["response"].astype("category").cat
    return np.isin(values.codes, np.flatnonzero([value.lower() in NO_ANSWER for value in values.categories]))


def _join(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables below one another. Columns that are categorical wherever they are stay so, their values in order."""
    columns = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        parts = [table.get(name) for table in tables]
        if all(part is None or part.dtype == "category" for part in parts):
            none = pd.Index([], dtype=str)
            whole = [
                pd.Categorical.from_codes(np.full(len(table), -1), none) if part is None else pd.Categorical(part)
                for table, part in zip(tables, parts, strict=True)
            ]
            columns[name] = union_categoricals(whole, sort_categories=True)
        else:
            whole = [
                pd.Series(np.nan, table.index) if part is None else part
                for table, part in zip(tables, parts, strict=True)
            ]
            columns[name] = pd.concat(whole, ignore_index=True).to_numpy()
    return pd.DataFrame(columns)


def _codes(trials: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """A number for each row, the same where all of these columns of text are, [trials]."""
    key = np.zeros(len(trials), np.int64)
    for column in columns:
        values = trials[column].astype("category").cat
        key = key * len(values.categories) + values.codes.to_numpy()
    return key


def _once(trials: pd.DataFrame, path: Path, counts: Counter) -> pd.DataFrame:
    """Each trial of an observer once, of the first session that has it. Raises UserError for two in one session."""
    key = pd.Series(_codes(trials, TRIAL), index=trials.index)
    if not key.duplicated().any():
        return trials
    sessions = trials["session"].fillna(1) if "session" in trials else pd.Series(1, trials.index)
    order = sessions.sort_values(kind="stable").index
    places = pd.DataFrame({"key": key[order], "session": sessions[order]})
    if (twice := places.duplicated()).any():
        second = twice.index[twice.argmax()]
        first = places.index[(places == places.loc[second]).all(axis=1)][0]
        rows = [trials.loc[i] for i in (first, second)]
        at = [f"{row['file']}, row {row['row']}" if "row" in trials else str(path) for row in rows]
        raise UserError(
            f"{at[1]}: observer {rows[1]['observer']} answered image {rows[1]['image']} (condition "
            f"{rows[1]['condition']}) twice, first in {at[0]}; expected one answer to an image, or a column 'session' "
            f"that tells them apart"
        )
    again = places["key"].duplicated().sort_index()
    counts["repeated_in_a_later_session"] += int(again.sum())
    return trials[~again].reset_index(drop=True)


def _check_categories(trials: pd.DataFrame) -> None:
    """Under one condition an image has one category, whoever saw it."""
    if "category" not in trials:
        return
    known = trials["category"].notna().to_numpy() & ~trials["category"].isin(["", NO_CONDITION]).to_numpy()
    images = _codes(trials, ["condition", "image"])
    first = pd.Series(trials["category"].cat.codes.to_numpy()[known]).groupby(images[known]).transform("first")
    differs = first.to_numpy() != trials["category"].cat.codes.to_numpy()[known]
    if differs.any():
        place = np.flatnonzero(known)[differs.argmax()]
        row = trials.iloc[place]
        other = trials["category"].cat.categories[first.to_numpy()[differs.argmax()]]
        raise UserError(
            f"{row['file']}, row {row['row']}: category = {row['category']!r} of image {row['image']} (condition "
            f"{row['condition']}); another row has {other!r}; an image has one category"
        )
