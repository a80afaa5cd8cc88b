"""What a person's sitting says: accuracy, boundary, Weber fraction, and whether networks err on the same images.

    python -m pipeline.consistency.person subject-01_session-1.csv
    python -m pipeline.consistency.person subject-01_session-1.csv subject-01_session-2.csv

Files are as sit.py's page saves them. A trial without an answer counts as wrong where answers are right or wrong, as in
the published trials, and is left out of the psychometric functions. Ties have no right answer: only the share of
'circle' answers is given of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.consistency.formats import read_csv
from pipeline.consistency.kappa import Design, interval
from pipeline.consistency.pairs import bootstrap
from pipeline.consistency.sitting import ANSWERS, COLUMNS, MARGINS, NO_ANSWER, TIE, answer, counts_of
from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shards import item_rng
from pipeline.stage import UserError
from pipeline.statistics.intervals import wilson
from pipeline.statistics.psychometric import fit
from pipeline.statistics.weber import weber_fraction

RESAMPLES = 2000


def read_sitting(paths: Sequence[Path]) -> pd.DataFrame:
    """One person's trials, of one session or several, in the order of the files.

    Returns a row a trial: observer, session, trial (int), response ('circle', 'square', or 'na' where there was none),
    rt (seconds from the noise on, NaN where there was no answer), condition, image (as the networks' tables have both),
    density, margin, circles, squares (int), and correct (bool; of a tie, None).

    Raises UserError, naming file and row, where a file is no sitting's, is not whole, or is another person's.
    """
    tables = [_read_file(path) for path in paths]
    rows = pd.concat(tables, ignore_index=True)
    if len(people := rows["observer"].unique()) > 1:
        raise UserError(f"{', '.join(map(str, paths))}: of {', '.join(people)}; should all be one person's")
    if (twice := rows.duplicated(["condition", "image"])).any():
        row = rows[twice].iloc[0]
        raise UserError(
            f"{row['file']}, row {row['row']}: {row['imagename']} was answered before; another session has other "
            f"images: make its page with --session"
        )
    return rows.drop(columns=["file", "row", "imagename"])


def _read_file(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path}: No such file; expected is a CSV file, as the page of sit.py saves it")
    rows = read_csv(path).rename(columns={"observer": "subj", "response": "object_response", "image": "imagename"})
    if missing := [name for name in COLUMNS if name not in rows]:
        raise UserError(f"{path}: lacks the columns {missing}; expected are {', '.join(COLUMNS)}")
    rows = rows.astype(dict.fromkeys(COLUMNS, str)).assign(file=str(path))
    counts = rows["condition"].map(counts_of)
    circles, squares = (counts.map(lambda pair, i=i: pair[i] if pair else 0) for i in range(2))
    right = np.select([circles > squares, circles < squares], ANSWERS, "")
    rt = pd.to_numeric(rows["rt"], errors="coerce")
    given = rows["object_response"] != NO_ANSWER
    whole = {name: pd.to_numeric(rows[name], errors="coerce") for name in ("session", "trial")}
    for column, wrong, wanted in (
        ("session", ~(whole["session"] >= 1), "a whole number from 1"),
        ("trial", ~(whole["trial"] >= 1) | (whole["trial"] % 1 != 0), "a whole number from 1"),
        ("condition", counts.isna(), "a margin set, as in margins/density-50/margin+4"),
        ("object_response", ~rows["object_response"].isin([*ANSWERS, NO_ANSWER]), f"{', '.join(ANSWERS)} or na"),
        (
            "category",
            ~np.where(right == "", rows["category"].isin([*ANSWERS, TIE]), rows["category"] == right),
            "what most of the shapes are, by the condition",
        ),
        ("rt", given & ~((rt > 0) & np.isfinite(rt)), "seconds above 0, as there is an answer"),
        ("imagename", rows["imagename"].str.rpartition("_")[2] == "", "an image's name, the last part of it after '_'"),
    ):
        if np.any(wrong):
            row = rows[np.asarray(wrong, bool)].iloc[0]
            raise UserError(f"{path}, row {row['row']}: {column} = {row[column]!r}; should be {wanted}")
    _check_finished(path, rows, whole["trial"])
    return pd.DataFrame(
        {
            "observer": rows["subj"],
            "session": whole["session"].astype(int),
            "trial": whole["trial"].astype(int),
            "response": rows["object_response"],
            "rt": rt,
            "condition": rows["condition"],
            "image": rows["imagename"].str.rpartition("_")[2],
            "density": circles + squares,
            "margin": circles - squares,
            "circles": circles,
            "squares": squares,
            "correct": pd.Series(rows["object_response"] == right, dtype=object).where(right != "", None),
            "file": rows["file"],
            "row": rows["row"],
            "imagename": rows["imagename"],
        }
    )


def _check_finished(path: Path, rows: pd.DataFrame, trial: pd.Series) -> None:
    """Raises UserError unless the trials are numbered without gaps, and each margin set has as many as the others."""
    for session, numbers in trial.groupby(rows["session"]):
        if absent := sorted(set(range(1, int(numbers.max()) + 1)) - set(numbers.astype(int))):
            raise UserError(f"{path}: an unfinished sitting: session {session} has no trial {absent[0]}; sit it anew")
    each = rows["condition"].value_counts(sort=False)
    if each.min() < each.max():
        raise UserError(
            f"{path}: an unfinished sitting: {each.idxmin()} has {each.min()} trials, {each.idxmax()} has "
            f"{each.max()}, and all should have as many; sit it anew to the end"
        )


def by_margin(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each density and margin: trials, missed, circle (share of answers) and right (of trials), 0..1.

    circle_low, circle_high, right_low, right_high: 95%, Wilson. right: NaN of a tie; circle: NaN without any answer.
    """
    found = []
    for (density, margin), rows in trials.groupby(["density", "margin"]):
        answered = rows[rows["response"] != NO_ANSWER]
        row = {"density": density, "margin": margin, "trials": len(rows), "missed": len(rows) - len(answered)}
        right = np.nan if margin == 0 else rows["correct"].astype(bool).sum()
        for name, number, of in (
            ("circle", (answered["response"] == "circle").sum(), len(answered)),
            ("right", right, len(rows)),
        ):
            of = of or np.nan
            low, high = wilson(np.asarray(number, float), np.asarray(of, float))
            row |= {name: number / of, f"{name}_low": float(low), f"{name}_high": float(high)}
        found.append(row)
    return pd.DataFrame(found)


def psychometrics(trials: pd.DataFrame, seed: int) -> dict[int, dict]:
    """By density: 'pse' and 'slope' (pipeline/statistics/psychometric.py) and 'weber' (weber.py), with 95% intervals.

    pse: circles - squares at which both answers are as likely; below 0 where circles are favoured. pse, and bounds, may
    be None: undefined, or infinite. weber: as `weber_fraction` returns it.
    """
    found = {}
    for density, rows in trials[trials["response"] != NO_ANSWER].groupby("density"):
        circle = (rows["response"] == "circle").to_numpy()
        cells = pd.Series(circle).groupby(rows["margin"].to_numpy()).agg(["sum", "size"])
        fitted = fit(
            cells.index.to_numpy(),
            cells["sum"].to_numpy(),
            cells["size"].to_numpy(),
            item_rng(seed, f"consistency/person/{density}"),
            RESAMPLES,
        )
        weber = weber_fraction(rows["circles"].to_numpy(), rows["squares"].to_numpy(), rows["density"], circle)
        found[int(density)] = {
            "pse": (fitted.pse, *fitted.pse_interval),
            "slope": (fitted.slope, *fitted.slope_interval),
            "weber": weber,
        }
    return found


def networks_files(params: Params) -> tuple[list[Path], list[str]]:
    """Predictions on the margin sets that consistency.sets in params.yaml names, and the folders for them."""
    sets = [described for described in params.consistency.sets.values() if described.conditions.startswith(MARGINS)]
    places = list(dict.fromkeys(described.predictions for described in sets))
    files = [path for place in places for path in [Path(place), *sorted(Path(place).rglob("*.parquet"))]]
    return [path for path in files if path.is_file() and path.suffix == ".parquet"], places


def with_networks(trials: pd.DataFrame, files: Sequence[Path], seed: int) -> pd.DataFrame:
    """Error consistency of the person with every network that answered to these images; ties are left out.

    A row a network: network, trials (that both had), right (the network's share, 0..1), observed, expected, kappa, low,
    high: 95% over trials, resampled within margin sets. kappa is NaN where it is undefined. No rows: no such network.
    """
    decided = trials[trials["margin"] != 0]
    if decided.empty:
        return pd.DataFrame()
    keys = pd.MultiIndex.from_frame(decided[["condition", "image"]])
    columns = {"": decided["correct"].astype(float).to_numpy()}  # nobody else's name
    for path in files:
        table = read_predictions([path]).astype({"observer": str, "condition": str, "image": str})
        table = table[table["condition"].isin(set(decided["condition"]))]
        for name, rows in table.groupby("observer"):
            rows = rows.drop_duplicates(["condition", "image"]).set_index(["condition", "image"])
            answers = rows["correct"].astype("Float64").reindex(keys).to_numpy(float, na_value=np.nan)
            if not np.isnan(answers).all():
                columns.setdefault(str(name), answers)
    correct = np.stack(list(columns.values()))  # [observers, trials], the person first
    if len(correct) < 2:
        return pd.DataFrame()
    parts = [
        Design(correct[:, places] == 1, ~np.isnan(correct[:, places]))
        for places in decided.reset_index(drop=True).groupby("condition").indices.values()
    ]
    person = parts[0].first == 0
    counts = [part.counts() for part in parts]
    pooled = sum(counts[1:], counts[0])
    drawn = bootstrap(parts, np.ones((len(person), 1)), RESAMPLES, item_rng(seed, "consistency/person/networks"))
    low, high = interval(drawn.kappa[:, person])
    return pd.DataFrame(
        {
            "network": list(columns)[1:],
            "trials": pooled.trials[person].astype(int),
            "right": pooled.accuracies[1][person],
            "observed": pooled.observed[person],
            "expected": pooled.expected[person],
            "kappa": pooled.kappa[person],
            "low": low,
            "high": high,
        }
    )


def bounds(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """'0.50 [0.24, 0.76]'; 'undefined' where there is no value, and no bound where it is infinite."""
    if value is None or np.isnan(value):
        return "undefined"
    ends = ["none" if end is None or np.isnan(end) else f"{end:.{digits}f}" for end in (low, high)]
    return f"{value:.{digits}f} [{ends[0]}, {ends[1]}]"


def columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def report(trials: pd.DataFrame, files: Sequence[Path], folders: Sequence[str], seed: int) -> str:
    """All of it as text; intervals are 95%."""
    decided = trials[trials["margin"] != 0]
    missed = int((trials["response"] == NO_ANSWER).sum())
    lines = [
        f"{trials['observer'].iloc[0]}: {len(trials)} trials in {trials['session'].nunique()} session(s), {missed} "
        f"without an answer; intervals are 95%",
    ]
    if len(decided):
        right = int(decided["correct"].sum())
        low, high = wilson(np.float64(right), np.float64(len(decided)))
        lines += [f"right: {bounds(right / len(decided), low, high)} of {len(decided)} trials that are no ties"]
    table = [["shapes", "circles - squares", "trials", "answered 'circle'", "right"]]
    for row in by_margin(trials).to_dict("records"):
        shares = [bounds(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("circle", "right")]
        shares[1] = "a tie" if row["margin"] == 0 else shares[1]
        table.append([str(row["density"]), f"{row['margin']:+d}", str(row["trials"]), *shares])
    lines += ["", columns(table), ""]
    for density, found in psychometrics(trials, seed).items():
        pse, weber = found["pse"], found["weber"]
        lines.append(
            f"{density} shapes: point of subjective equality {bounds(*pse, digits=1)} circles - squares (below 0: "
            f"circles are favoured)"
        )
        fraction = bounds(weber["weber_fraction"], weber["low"], weber["high"], digits=3)
        lines.append(f"{density} shapes: Weber fraction {fraction}" + (f": {weber['reason']}" * bool(weber["reason"])))
    rows = with_networks(trials, files, seed)
    if rows.empty:
        why = "the networks there answered to none of these images" if files else "no predictions there"
        makes = "'dvc repro analyse_consistency@counters' makes them"
        lines += ["", f"error consistency: {why}: {', '.join(folders)}; {makes}"]
        return "\n".join(lines)
    table = [["network", "trials", "right", "agreement", "by chance", "error consistency (kappa)"]]
    for row in rows.to_dict("records"):
        shares = [f"{row[name]:.2f}" for name in ("right", "observed", "expected")]
        table.append([row["network"], str(row["trials"]), *shares, bounds(row["kappa"], row["low"], row["high"])])
    return "\n".join([*lines, "", "Errors on the same images, ties left out:", columns(table)])


def main(trials: list[Path]) -> str:
    params = load_params()
    files, folders = networks_files(params)
    return report(read_sitting(trials), files, folders, params.seed)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m pipeline.consistency.person",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("trials", type=Path, nargs="+", metavar="trials.csv", help="a session of the person each")
    return found


if __name__ == "__main__":
    answer(main, parser())
