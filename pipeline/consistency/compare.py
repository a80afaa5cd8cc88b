"""Error consistency of two observers, from their files of trials: one number now.

    python -m pipeline.consistency.compare person.csv network.csv
    python -m pipeline.consistency.compare all.csv all.csv --observers subject-01 resnet50 --condition c10

A file is CSV or Parquet (formats.py says which columns), or a folder of such. Trials are matched by condition and
image; by image alone where one of the two has no conditions. The interval is 95% by resampling trials within
conditions.

Source: Geirhos, Meding, Wichmann (2020); papers/error-consistency.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from pipeline.consistency.formats import recoded, shown
from pipeline.consistency.kappa import Counts, expected_within, interval
from pipeline.consistency.sets import no_answer, read_trial_files
from pipeline.consistency.trials import NO_CONDITION
from pipeline.stage import UserError, one_line_errors
from pipeline.statistics.kappa import cohens_kappa

RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Two observers on the trials that both had.

    trials: how many. conditions: under how many. accuracies, observed, expected: 0..1. kappa: -1..1, with low and high,
    its central 95%; None where it is undefined, since both are always right or always wrong. within: kappa with the
    agreement that is expected within each condition, None likewise.
    """

    trials: int
    conditions: int
    accuracies: tuple[float, float]
    observed: float
    expected: float
    kappa: float | None
    low: float | None
    high: float | None
    within: float | None


def compare(first: pd.DataFrame, second: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Error consistency of two observers on the trials that both had.

    Args:
        first, second: a row a trial, with `condition`, `image` and `correct` (bool; None: left out); each trial once.

    Raises UserError where they share no trial.
    """
    a, b, places = _shared(first, second)
    cells = np.zeros((places.max() + 1, 4), int)  # [conditions, both right, first only, second only, neither]
    np.add.at(cells, (places, np.where(a, np.where(b, 0, 1), np.where(b, 2, 3))), 1)
    counts = [_counts(row[None]) for row in cells]
    pooled = sum(counts[1:], counts[0])  # arrays of one element
    rng = np.random.default_rng(seed)
    drawn = [_counts(rng.multinomial(row.sum(), row / row.sum(), size=resamples)) for row in cells]
    low, high = interval(sum(drawn[1:], drawn[0]).kappa)
    within = cohens_kappa(pooled.observed, expected_within(counts))
    return Comparison(
        trials=len(a),
        conditions=len(cells),
        accuracies=(float(pooled.accuracies[0][0]), float(pooled.accuracies[1][0])),
        observed=float(pooled.observed[0]),
        expected=float(pooled.expected[0]),
        kappa=_defined(pooled.kappa),
        low=_defined(np.where(np.isnan(pooled.kappa), np.nan, low)),
        high=_defined(np.where(np.isnan(pooled.kappa), np.nan, high)),
        within=_defined(within),
    )


def _counts(cells: np.ndarray) -> Counts:
    """cells: [n, 4], trials on which both were right, the first only, the second only, neither -> counts [n]."""
    both, only_first, only_second, neither = cells.T
    return Counts(both + only_first + only_second + neither, both + only_first, both + only_second, both)


def _defined(value: np.ndarray) -> float | None:
    return None if np.isnan(value).any() else float(np.squeeze(value))


def _shared(first: pd.DataFrame, second: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the trials that both had: was the first right, the second, bool [trials]; a condition's number [trials]."""
    tables = [rows[rows["correct"].notna()] for rows in (first, second)]
    conditions = [rows["condition"].astype("category").cat.remove_unused_categories() for rows in tables]
    if not set(conditions[0].cat.categories) & set(conditions[1].cat.categories):  # the experiments' names differ
        conditions = [recoded(column, lambda values: values.str.split("/", n=1).str[-1]) for column in conditions]
    none = [set(column.cat.categories) == {NO_CONDITION} for column in conditions]
    images = union_categoricals([rows["image"].astype("category") for rows in tables]).codes.astype(np.int64)
    if any(none) and not all(none):  # one has no conditions
        named = conditions[none.index(False)].cat.codes.to_numpy()
        keys = np.split(images, [len(tables[0])])
    else:
        codes = union_categoricals([column.cat.set_categories(column.cat.categories) for column in conditions]).codes
        named = codes[: len(tables[0])]
        keys = np.split(images + codes.astype(np.int64) * (images.max(initial=0) + 1), [len(tables[0])])
    for key, rows, column in zip(keys, tables, conditions, strict=True):
        if (twice := pd.Series(key).duplicated().to_numpy()).any():
            image = rows["image"].iloc[twice.argmax()]
            under = column[(rows["image"] == image).to_numpy()].unique()
            raise UserError(
                f"image {image} has several trials of {rows['observer'].iloc[0]}, under {shown(under)}; the other "
                f"observer's conditions do not tell which: add a column 'condition' there, or choose by --condition"
            )
    place = pd.Index(keys[1]).get_indexer(keys[0])
    had = place >= 0
    if not had.any():
        seen = [f"{rows['image'].iloc[0]} ({column.iloc[0]})" for rows, column in zip(tables, conditions, strict=True)]
        raise UserError(
            f"no shared trials: images and conditions have no pair in common; the first are {seen[0]}, {seen[1]}"
        )
    a, b = tables[0]["correct"].to_numpy(bool)[had], tables[1]["correct"].to_numpy(bool)[place[had]]
    named = named[place[had]] if none[0] and not none[1] else named[had]
    return a, b, pd.factorize(named)[0]


def choose(trials: pd.DataFrame, file: Path, observer: str | None, condition: str | None) -> pd.DataFrame:
    """The trials of one observer, under one condition or all. Raises UserError naming those that there are."""
    if condition is not None:
        found = trials["condition"].astype(str)
        which = (found == condition) | (found.str.split("/", n=1).str[-1] == condition)
        if not which.any():
            raise UserError(f"{file}: --condition = {condition!r} is not there; has {shown(found.unique())}")
        trials = trials[which]
    found = trials["observer"].astype(str).unique()
    if observer is None and len(found) > 1:
        raise UserError(f"{file}: {len(found)} observers, {shown(found)}; choose by --observers FIRST SECOND")
    if observer is not None and observer not in found:
        raise UserError(f"{file}: --observers = {observer!r} is not there; has {shown(found)}")
    return trials[trials["observer"] == (observer or found[0])]


def report(names: Sequence[str], found: Comparison, missed: Sequence[int] = (0, 0), repeated: int = 0) -> str:
    """What is printed. missed: trials of each that had no answer. repeated: answers of the files that do not count."""
    width = max(map(len, names))
    interval_of = f"   95% [{found.low:.3f}, {found.high:.3f}]" if found.kappa is not None else ""
    kappa = f"{found.kappa:.3f}" if found.kappa is not None else "undefined: both are always right, or always wrong"
    lines = [
        f"shared trials       {found.trials:,}" + (f", {found.conditions} conditions" if found.conditions > 1 else ""),
        *(f"right  {name:<{width}}  {share:.3f}" for name, share in zip(names, found.accuracies, strict=True)),
        f"observed agreement  {found.observed:.3f}",
        f"expected agreement  {found.expected:.3f}",
        f"kappa               {kappa}{interval_of}",
    ]
    if found.conditions > 1:
        within = "undefined" if found.within is None else f"{found.within:.3f}"
        lines.append(f"  within conditions {within}")
    if any(missed):
        lines.append(f"without an answer   {missed[0]:,} and {missed[1]:,} trials of theirs, which count as wrong")
    if repeated:
        lines.append(f"left out            {repeated:,} answers in the files to an image of an earlier session")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.consistency.compare", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="two files of trials, .csv or .parquet")
    parser.add_argument("--first", type=Path, help="the first file, in place of a position")
    parser.add_argument("--second", type=Path, help="the second file, likewise")
    parser.add_argument("--observers", nargs=2, metavar=("FIRST", "SECOND"), help="where a file has several")
    parser.add_argument("--condition", help="only trials under this condition")
    parser.add_argument("--categories", default="", help="answers that are allowed, with commas between them")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="for the interval")
    options = parser.parse_args(arguments)
    files = [*([options.first] if options.first else []), *options.files, *([options.second] if options.second else [])]
    if len(files) != 2 or options.resamples < 1:
        parser.error(f"two files are needed, and at least one resample; found {len(files)} and {options.resamples}")
    with one_line_errors("consistency.compare"):
        counts: Counter = Counter()
        categories = [name.strip() for name in options.categories.split(",") if name.strip()]
        tables = {file: read_trial_files(file, categories, counts) for file in dict.fromkeys(files)}
        chosen = [
            choose(tables[file], file, observer, options.condition)
            for file, observer in zip(files, options.observers or (None, None), strict=True)
        ]
        try:
            found = compare(*chosen, resamples=options.resamples)
        except UserError as error:
            raise UserError(f"{files[0]}, {files[1]}: {error}") from None
    missed = [int(no_answer(rows).sum()) for rows in chosen]
    names = [str(rows["observer"].iloc[0]) for rows in chosen]
    print(report(names, found, missed, counts["repeated_in_a_later_session"]))


if __name__ == "__main__":
    main()
