"""What the paper's networks answered on each set of images, all training runs together."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.predictions import read_predictions
from pipeline.shapes.paths import Network
from pipeline.stage import UserError
from pipeline.statistics.intervals import share_over_runs


def read_answers(densities: Sequence[int], runs: Sequence[int]) -> pd.DataFrame:
    """The decisions of these networks in these training runs, one row an image (pipeline/shapes/predict.py)."""
    return read_predictions(Network(density, run=run).predictions for density in densities for run in runs)


def rates_over_runs(trials: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and share of 'circle' answers, with intervals over images and runs, by network (density) and condition.

    trials: rows with density, run, condition, image, correct and response. A trial that no answer gets right
    (`correct` is null: a tie under soft targets) counts half.

    images: of the condition. runs: that the network was trained. accuracy_by_run, circle_by_run: lists, in order of the
    runs.

    Raises:
        UserError: the runs of a network were not tested on the same images.
    """
    scored = pd.DataFrame(
        {
            "network": trials["density"].astype(int),
            "condition": trials["condition"].astype(str),
            "run": trials["run"].astype(int),
            "image": trials["image"].astype(str),
            "accuracy": trials["correct"].astype("Float64").fillna(0.5).astype(float),
            "circle": (trials["response"] == "circle").astype(float),
        }
    ).sort_values(["network", "condition", "run", "image"])
    rows = {}
    for key, cell in scored.groupby(["network", "condition"]):
        images = cell.groupby("run")["image"].agg(tuple)
        if len(set(images)) > 1:
            raise UserError(
                f"the training runs of network M{key[0]} were not tested on the same images of {key[1]}; run "
                "'dvc repro predict_shapes'"
            )
        rows[key] = {"images": len(images.iloc[0]), "runs": len(images)}
        for name in ("accuracy", "circle"):
            values = cell[name].to_numpy().reshape(len(images), -1)
            bounds = share_over_runs(values)
            rows[key] |= dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
            rows[key][f"{name}_by_run"] = values.mean(axis=1).tolist()
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["network", "condition"])
    return table
