"""Published trials: the CSV files of github.com/wichmann-lab/error-consistency, raw-data/, as one tidy table.

One folder an experiment, one file an observer and session, one row a trial, with the columns

    subj, session, trial, rt, object_response, category, condition, imagename

in either case (formats.py); others are left out, and without `session` there is one.

What the files have that a reader should know, and what is done about it:

- People's image names carry a prefix of the trial ('0001_edg_s01_0_oven_00_oven10.png'), networks'
  may not ('oven10.png'). What names the image is the last part, with the ImageNet class before it
  where there is one ('n03041632_43625.png').
- Where an experiment has a single condition, people's files call it 0 and networks' NaN: '-' here.
- A person who gave no answer in time is recorded as 'na'. Such a trial counts as wrong, as in the
  paper, and their number is in the metrics.
- In the noise experiments people and networks saw images of their own, and observers came for
  several sessions. There a pair of observers is compared on the trials that both had; in all other
  experiments every observer must have had the same trials.
- An image that an observer saw again under the same condition in a later session counts once, the
  first time; the repetitions are in the metrics.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from pipeline.consistency.formats import NAMES, read_csv
from pipeline.stage import UserError

COLUMNS = ["subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename"]
ANSWERS = ["condition", "category", "response"]  # columns beside observer, session and image
# fmt: off
CATEGORIES = [
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat",
    "chair", "clock", "dog", "elephant", "keyboard", "knife", "oven", "truck",
]
# fmt: on
NO_RESPONSE = "na"
NO_CONDITION = "-"
OWN_IMAGES = "noise-generalisation"  # experiments whose names begin so: observers need not have had the same trials
CUE_CONFLICT = "cue-conflict"  # experiments whose names end so: in 'dog10-bicycle1.png', a dog has a bicycle's texture

# fmt: off
CNNS = {  # the paper's sixteen
    "alexnet", "vgg11-bn", "vgg13-bn", "vgg16-bn", "vgg19-bn", "squeezenet1-0", "squeezenet1-1", "inception-v3",
    "densenet121", "densenet169", "densenet201", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
}
# fmt: on


def kind_of(observer: str) -> str:
    """What an observer is: person, cnn (the paper's sixteen), recurrent cnn, bagnet, stylized resnet, other network."""
    name = observer.lower()
    if name.startswith("subject"):
        return "person"
    if name in CNNS:
        return "cnn"
    if name.startswith("cornet"):
        return "recurrent cnn"
    if name.startswith("bagnet"):
        return "bagnet"
    if "trained-on-sin" in name:
        return "stylized resnet"
    if name.startswith("simulated"):  # 'simulated-family-a-01': see simulate.py
        return name.rpartition("-")[0].replace("-", " ")
    return "other network"


def read_trials(folder: str | Path, counts: Counter | None = None) -> pd.DataFrame:
    """All trials below a folder: of one experiment (the folder holds CSV files) or of several (its folders do).

    Returns a row a trial with the columns observer, kind (see `kind_of`), session (int), condition
    ('<experiment>/<condition>'), image, response (None where a person gave none), category, correct
    (bool), and texture: for cue-conflict images the category of the texture, else None. Rows are
    ordered by experiment, observer, condition and image. `counts` receives, by experiment, the number
    of trials without a response, and of repetitions left out.

    Raises UserError, naming file and row, for a missing column, an unknown category or response, a
    trial that is there twice, and trials that observers of one experiment do not share.
    """
    folder = Path(folder)
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.csv")) or sorted(folder.glob("*/*.csv")):
        files.setdefault(path.parent.name, []).append(path)
    if not files:
        raise UserError(f"{folder}: no trials: neither it nor a folder in it holds a .csv file")
    counts = Counter() if counts is None else counts
    return pd.concat([_read_experiment(name, paths, counts) for name, paths in files.items()], ignore_index=True)


def _read_experiment(experiment: str, paths: list[Path], counts: Counter) -> pd.DataFrame:
    rows = pd.concat([_read_file(path) for path in paths], ignore_index=True)
    rows["condition"] = plain_conditions(rows["condition"])
    rows["image"] = rows["image"].str.extract(r"((?:n\d{8}_)?[^_]+)$")[0]

    key = ["observer", "condition", "image"]
    rows = rows.sort_values([*key, "session"], kind="stable")
    if (twice := rows.duplicated([*key, "session"])).any():
        row = rows[twice].iloc[0]
        first = rows[(rows[[*key, "session"]] == row[[*key, "session"]]).all(axis=1)].iloc[0]
        raise UserError(
            f"{row['file']}, row {row['row']}: observer {row['observer']} has the trial {row['image']} (condition "
            f"{row['condition']}) twice in session {row['session']}, first in row {first['row']} of {first['file']}"
        )
    repeated = rows.duplicated(key)
    counts[experiment, "repeated in a later session"] += int(repeated.sum())
    rows = rows[~repeated]
    if not experiment.startswith(OWN_IMAGES):
        _check_shared(rows, experiment)

    missed = rows["response"] == NO_RESPONSE
    counts[experiment, "no response"] += int(missed.sum())
    table = pd.DataFrame(
        {
            "observer": rows["observer"],
            "kind": rows["observer"].map(kind_of),
            "session": rows["session"].astype(int),
            "condition": experiment + "/" + rows["condition"],
            "image": rows["image"],
            "response": rows["response"].mask(missed, None),
            "category": rows["category"],
            "correct": rows["response"] == rows["category"],
            "texture": None,
        }
    )
    if experiment.endswith(CUE_CONFLICT):
        table["texture"] = table["image"].str.extract(r"-([a-z]+)\d*\.\w+$")[0]
        if (unknown := ~table["texture"].isin(CATEGORIES)).any():
            image = table.loc[unknown, "image"].iloc[0]
            raise UserError(f"{experiment}: {image}: should name shape and texture, as in 'dog10-bicycle1.png'")
    return table


def _read_file(path: Path) -> pd.DataFrame:
    """Rows of one file as text, with their file and their row in it (the header is row 1)."""
    rows = read_csv(path)
    if missing := [name for name in ANSWERS if name not in rows]:
        allowed = "; ".join(f"{name}: {' or '.join(NAMES[name])}" for name in missing)
        raise UserError(f"{path}: lacks the columns {missing}; allowed in either case: {allowed}")
    rows = rows[["observer", "session", "image", "row", *ANSWERS]].assign(file=str(path))
    rows = rows.astype({name: str for name in ("observer", "image", *ANSWERS)})
    for column, allowed in {"category": CATEGORIES, "response": [*CATEGORIES, NO_RESPONSE]}.items():
        if (unknown := ~rows[column].isin(allowed)).any():
            row = rows[unknown].iloc[0]
            raise UserError(f"{path}, row {row['row']}: {column} = {row[column]!r}; allowed: {', '.join(allowed)}")
    return rows


def plain_conditions(found: pd.Series) -> pd.Series:
    """Conditions by one name: 'c05' and 'c5' are 'c5'; '0.10' and '0.1' are '0.1'; a single condition is '-'."""
    if set(found.unique()) <= {"NaN", "nan", "", "0"}:
        return pd.Series(NO_CONDITION, index=found.index)
    parts = found.str.extract(r"^(?P<prefix>[a-z]?)(?P<number>\d+(?:\.\d*)?)$")
    number = pd.to_numeric(parts["number"])
    plain = parts["prefix"] + number.map("{:g}".format)
    return plain.where(number.notna(), found)


def _check_shared(rows: pd.DataFrame, experiment: str) -> None:
    """Every observer should have had the trials that most observers had, and their images one category."""
    trial = rows["condition"] + " " + rows["image"]
    had = trial.groupby(trial).transform("size")
    observers = rows["observer"].nunique()
    common = had > observers / 2
    if not common.all():
        row = rows[~common].iloc[0]
        raise UserError(
            f"{row['file']}, row {row['row']}: {row['image']} (condition {row['condition']}) is a trial of "
            f"{had[row.name]} of the {observers} observers of {experiment}; all should have had the same images"
        )
    shared = trial.nunique()
    for observer, own in rows.groupby("observer"):
        if len(own) < shared:
            absent = sorted(set(trial) - set(trial[own.index]))
            raise UserError(
                f"{own['file'].iloc[0]}: observer {observer} lacks {len(absent)} of {shared} trials, the first of them "
                f"{absent[0].split(' ', 1)[1]} (condition {absent[0].split(' ', 1)[0]})"
            )
    differ = rows.groupby(trial)["category"].transform("nunique") > 1
    if differ.any():
        row = rows[differ].iloc[0]
        raise UserError(
            f"{row['file']}, row {row['row']}: category = {row['category']!r}, but other observers' files give "
            f"{row['image']} another category"
        )
