"""What the training runs of an observer come to: means with intervals over runs and images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.shards import item_rng
from pipeline.statistics.intervals import over_runs_and_images, share_over_runs
from pipeline.statistics.psychometric import describe_runs

KEY = ["condition", "image"]


def by_run(rows: pd.DataFrame, values: pd.Series | np.ndarray) -> pd.DataFrame:
    """One observer's values, a row a run and a column an image (condition, image): float, NaN where there is none.

    rows: an answer a row, with 'run', 'condition' and 'image'; values: one for each.
    """
    runs, row = np.unique(rows["run"], return_inverse=True)
    place, images = pd.MultiIndex.from_frame(rows[KEY].astype(str)).factorize(sort=True)
    table = np.full((len(runs), len(images)), np.nan)
    table[row, place] = pd.array(values, dtype="Float64").to_numpy(float, np.nan)
    return pd.DataFrame(table, index=runs, columns=images.set_names(KEY))


def mean_over_runs(values: pd.DataFrame, name: str, least: float = -np.inf, most: float = np.inf) -> dict[str, object]:
    """{name, name_low, name_high} of values, a row a run and a column an image; bounds within least and most.

    {name}_images: how many have a value; {name}_by_run: a list, the mean of each run.
    """
    found = over_runs_and_images(values.to_numpy(float))
    low, high = np.clip([found["low"], found["high"]], least, most).tolist()
    images = int(values.notna().any(axis=0).sum())
    of_runs = values.mean(axis=1).tolist()
    bounds = {f"{name}_low": low, f"{name}_high": high}
    return {name: found["mean"], **bounds, f"{name}_images": images, f"{name}_by_run": of_runs}


def rates(answers: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy and share of 'circle' answers, with intervals over images and runs, by observer and condition.

    answers: by observer, an answer a row, with 'run', 'condition', 'image', 'correct' and 'response'. A trial that no
    answer gets right (`correct` is null: a tie under soft targets) counts half. accuracy_by_run, circle_by_run: lists,
    in order of the runs.
    """
    rows = {}
    for observer, answered in answers.items():
        tables = {
            "accuracy": by_run(answered, answered["correct"].astype("Float64").fillna(0.5)),
            "circle": by_run(answered, (answered["response"].astype(str) == "circle").astype(float)),
        }
        for condition in tables["accuracy"].columns.unique("condition"):
            row = {}
            for name, table in tables.items():
                values = table[condition].to_numpy()
                bounds = share_over_runs(values)
                row |= {"images": values.shape[1], "runs": len(values)}
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
                row[f"{name}_by_run"] = values.mean(axis=1).tolist()
            rows[observer, condition] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["counter", "condition"])
    return table


def bias_table(margins: pd.DataFrame, seed: int, resamples: int) -> pd.DataFrame:
    """Psychometric functions by observer and density: a row as `describe_runs` has it.

    margins: `rates` with 'counter', 'density' and 'margin'.
    """
    return pd.DataFrame(
        {
            "counter": observer,
            "density": density,
            **describe_runs(cells, item_rng(seed, f"localize/compare/{observer}/{density}"), resamples),
        }
        for (observer, density), cells in margins.groupby(["counter", "density"], sort=False)
    )
