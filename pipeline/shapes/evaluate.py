"""Accuracy on every test set, answers by margin, and each network's bias (implicit-counting, Figs. 2 and 3).

    python -m pipeline.shapes.evaluate

Intervals are 95%: Wilson's for proportions, bootstrap percentiles for the psychometric fits. They
cover the sampling of test images, not of training runs.
"""

from __future__ import annotations

import json

import pandas as pd
from scipy.stats import binomtest

from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shapes.paths import PLOTS, Network, margin_name, observer, split_name
from pipeline.shapes.statements import convergence, margins_of_test_sets, statements
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.intervals import wilson
from pipeline.statistics.psychometric import describe, rates

# The paper's 21 margin sets; -6 and 6 were left out by mistake
PAPER_DENSITIES, PAPER_MARGINS = {10, 50, 100}, {-8, -4, -2, 0, 2, 4, 8}


def accuracy_table(by_condition: pd.DataFrame, densities: list[int]) -> pd.DataFrame:
    """Fig. 2: one row for each network and test set."""
    cells = [
        {"network": network, "test": test, **by_condition.loc[observer(network), split_name(test, "test")]}
        for network in densities
        for test in densities
    ]
    return pd.DataFrame(cells).astype({"images": int})


def margin_table(by_condition: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Fig. 3: one row for each network, density and margin."""
    cells = [
        {
            "network": network,
            "density": density,
            "margin": margin,
            "in_paper": density in PAPER_DENSITIES and margin in PAPER_MARGINS,
            **by_condition.loc[observer(network), margin_name(density, margin)],
        }
        for network in params.densities
        for density in params.shapes.margin_densities
        for margin in sorted(params.shapes.margins)
    ]
    return pd.DataFrame(cells).astype({"images": int})


def bias_table(margins: pd.DataFrame, seed: int, resamples: int) -> pd.DataFrame:
    """A psychometric function for each network and density."""
    return pd.DataFrame(
        {"network": network, "density": density, **describe(rows, item_rng(seed, name), resamples)}
        for (network, density), rows in margins.groupby(["network", "density"])
        for name in [f"shapes/evaluate/{network}/{density}"]
    )


def extreme(table: pd.DataFrame, place: int, keys: list[str]) -> dict:
    """One cell, chosen among all: an interval that holds for every one of them at once (Bonferroni)."""
    row = table.loc[place]
    right = binomtest(round(row["accuracy"] * row["images"]), int(row["images"]))
    bounds = right.proportion_ci(1 - 0.05 / len(table), method="wilson")
    where = {key: int(row[key]) for key in keys}
    return {"accuracy": row["accuracy"], "low": bounds.low, "high": bounds.high, "of": len(table), **where}


def summary(accuracy: pd.DataFrame, margins: pd.DataFrame, bias: pd.DataFrame) -> dict:
    """The study's numbers, for `dvc metrics`."""
    own = accuracy[accuracy["network"] == accuracy["test"]]
    low, high = wilson((own["accuracy"] * own["images"]).sum(), own["images"].sum())
    published = margins[margins["in_paper"]]
    fewer_circles = margins[margins["margin"] == -4]

    return {
        "own_test_accuracy": {
            "mean": own["accuracy"].mean(),
            "low": float(low),
            "high": float(high),
            **{observer(row.network): row.accuracy for row in own.itertuples()},
        },
        "lowest": extreme(accuracy, accuracy["accuracy"].idxmin(), ["network", "test"]),
        "highest": extreme(accuracy, accuracy["accuracy"].idxmax(), ["network", "test"]),
        "mean_accuracy_on_denser_sets": accuracy.loc[accuracy["test"] > accuracy["network"], "accuracy"].mean(),
        "mean_accuracy_on_sparser_sets": accuracy.loc[accuracy["test"] < accuracy["network"], "accuracy"].mean(),
        "lowest_margin_set": extreme(published, published["accuracy"].idxmin(), ["network", "density", "margin"])
        if len(published)
        else None,
        "answered_circle_with_4_more_squares": {
            observer(network): {f"density_{row.density}": row.circle for row in rows.itertuples()}
            for network, rows in fewer_circles.groupby("network")
        },
        "bias": {
            observer(network): {
                f"density_{row.density}": {"pse": row.pse, "low": row.pse_low, "high": row.pse_high, "slope": row.slope}
                for row in rows.itertuples()
            }
            for network, rows in bias.groupby("network")
        },
    }


def main() -> str:
    params = load_params()
    trials = read_predictions(Network(density).predictions for density in params.densities)
    by_condition = rates(trials)
    try:
        accuracy = accuracy_table(by_condition, params.densities)
        margins = margin_table(by_condition, params)
    except KeyError as error:
        raise UserError(
            f"data/shapes/predictions/paper: no trials of {error}; run 'dvc repro predict_shapes'"
        ) from None
    bias = bias_table(margins, params.seed, params.at_scale.shapes.bootstrap)
    curves = pd.concat([pd.read_csv(Network(density).curve) for density in params.densities])
    for name, table in {"curves": curves, "accuracy": accuracy, "margins": margins, "bias": bias}.items():
        write_json(PLOTS / f"{name}.json", table.to_dict("records"))
    resamples = params.at_scale.shapes.bootstrap
    found = statements(accuracy, margins, bias, item_rng(params.seed, "shapes/evaluate/statements"), resamples)
    found["margins_of_test_sets"] = margins_of_test_sets(trials, params.densities)
    trained = {density: json.loads(Network(density).training_metrics.read_text()) for density in params.densities}
    found["convergence"] = convergence(
        curves, {density: [epoch["test_accuracy"] for epoch in own["epochs"]] for density, own in trained.items()}
    )
    write_json("metrics/shapes.json", summary(accuracy, margins, bias) | {"statements": found})
    return f"{len(trials):,} decisions of {len(params.densities)} networks"


if __name__ == "__main__":
    run(main)
