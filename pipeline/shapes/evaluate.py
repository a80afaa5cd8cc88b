"""Accuracy on every test set, answers by margin, and each network's bias (implicit-counting, Figs. 2 and 3).

    python -m pipeline.shapes.evaluate

Intervals are 95%, over test images and training runs (pipeline/statistics/intervals.py).
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from pipeline.params import Params, load_params
from pipeline.shapes.answers import rates_over_runs, read_answers
from pipeline.shapes.paths import PLOTS, Network, margin_name, observer, split_name
from pipeline.shapes.statements import convergence, margins_of_test_sets, of_single_networks, statements
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.intervals import over_networks, over_runs, wilson
from pipeline.statistics.psychometric import describe_runs

# The paper's 21 margin sets; -6 and 6 were left out by mistake
PAPER_DENSITIES, PAPER_MARGINS = {10, 50, 100}, {-8, -4, -2, 0, 2, 4, 8}


def networks_in(by_condition: pd.DataFrame) -> list[int]:
    """The networks of `rates_over_runs`' table, by their training densities."""
    return by_condition.index.unique("network").tolist()


def accuracy_table(by_condition: pd.DataFrame, densities: list[int]) -> pd.DataFrame:
    """Fig. 2: one row for each network and test set."""
    cells = [
        {"network": network, "test": test, **by_condition.loc[network, split_name(test, "test")]}
        for network in networks_in(by_condition)
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
            **by_condition.loc[network, margin_name(density, margin)],
        }
        for network in networks_in(by_condition)
        for density in params.shapes.margin_densities
        for margin in sorted(params.shapes.margins)
    ]
    return pd.DataFrame(cells).astype({"images": int})


def bias_table(margins: pd.DataFrame, seed: int, resamples: int) -> pd.DataFrame:
    """Psychometric functions by network and density: a row as `describe_runs` has it."""
    return pd.DataFrame(
        {
            "network": network,
            "density": density,
            **describe_runs(cells, item_rng(seed, f"shapes/evaluate/{network}/{density}"), resamples),
        }
        for (network, density), cells in margins.groupby(["network", "density"])
    )


def extreme(table: pd.DataFrame, keys: list[str], lowest: bool) -> dict:
    """The lowest, or highest, accuracy of a table, mean over runs; and the cell whose own mean is lowest, or highest.

    A run's interval over images is Wilson's at a level that holds for every cell at once (Bonferroni).
    """
    by_run = np.array(table["accuracy_by_run"].tolist())  # [cells, runs]
    places = by_run.argmin(axis=0) if lowest else by_run.argmax(axis=0)
    values = by_run[places, np.arange(by_run.shape[1])]
    images = table["images"].to_numpy()[places]
    value, low, high = over_runs(values, *wilson(values * images, images, alpha=0.05 / len(table)))
    cell = table.loc[table["accuracy"].idxmin() if lowest else table["accuracy"].idxmax()]
    where = {key: int(cell[key]) for key in keys}
    return {"accuracy": value, "low": max(low, 0.0), "high": min(high, 1.0), "of": len(table), **where}


def point_of_subjective_equality(row: tuple) -> dict:
    """Of a row of `bias_table`. Of one training run without an interval: images alone do not say what another gives."""
    low, high = (row.pse_low, row.pse_high) if row.runs > 1 else (None, None)
    return {"pse": row.pse, "low": low, "high": high, "slope": row.slope}


def summary(accuracy: pd.DataFrame, margins: pd.DataFrame, bias: pd.DataFrame) -> dict:
    """The study's numbers, for `dvc metrics`; of fewer networks than test sets, those of single networks only."""
    own = accuracy[accuracy["network"] == accuracy["test"]]
    published = margins[margins["in_paper"]]
    fewer_circles = margins[margins["margin"] == -4]
    found = {
        "own_test_accuracy": {observer(row.network): row.accuracy for row in own.itertuples()},
        "answered_circle_with_4_more_squares": {
            observer(network): {f"density_{row.density}": row.circle for row in rows.itertuples()}
            for network, rows in fewer_circles.groupby("network")
        },
        "bias": {
            observer(network): {
                f"density_{row.density}": point_of_subjective_equality(row) for row in rows.itertuples()
            }
            for network, rows in bias.groupby("network")
        },
    }
    if missing := sorted(set(accuracy["test"]) - set(accuracy["network"])):
        needs = {"needs": "all networks; not there: " + ", ".join(map(observer, missing))}
        return found | needs | {"own_test_accuracy": found["own_test_accuracy"] | needs}
    lowest_margin_set = extreme(published, ["network", "density", "margin"], lowest=True) if len(published) else None
    return {
        "own_test_accuracy": over_networks(own["accuracy"].to_numpy()) | found.pop("own_test_accuracy"),
        "lowest": extreme(accuracy, ["network", "test"], lowest=True),
        "highest": extreme(accuracy, ["network", "test"], lowest=False),
        "mean_accuracy_on_denser_sets": accuracy.loc[accuracy["test"] > accuracy["network"], "accuracy"].mean(),
        "mean_accuracy_on_sparser_sets": accuracy.loc[accuracy["test"] < accuracy["network"], "accuracy"].mean(),
        "lowest_margin_set": lowest_margin_set,
        **found,
    }


def evaluated(
    trials: pd.DataFrame, curves: pd.DataFrame, epochs: dict[int, list[list[float]]], params: Params
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """What `metrics/shapes.json` holds, and the tables of `plots/shapes` by name.

    trials: the networks' decisions (`read_answers`); they may be of some of the networks only. curves: of their
    training, rows with network, run, images_seen, loss and accuracy. epochs: of each network, for each run its accuracy
    on its own test set after each epoch.

    Raises KeyError where a network lacks the trials of a test set or margin set.
    """
    by_condition = rates_over_runs(trials)
    accuracy = accuracy_table(by_condition, params.densities)
    margins = margin_table(by_condition, params)
    bias = bias_table(margins, params.seed, params.at_scale.shapes.bootstrap)
    mean_curves = curves.groupby(["network", "images_seen"], as_index=False)[["loss", "accuracy"]].mean()
    numbers = summary(accuracy, margins, bias)
    whole = "needs" not in numbers
    found = statements(accuracy, margins, bias) if whole else of_single_networks(margins)
    found["margins_of_test_sets"] = margins_of_test_sets(trials, params.densities)
    if whole:
        found["convergence"] = convergence(curves, epochs)
    else:
        found["needs"] = numbers["needs"]
    tables = {"curves": mean_curves, "accuracy": accuracy, "margins": margins, "bias": bias}
    return numbers | {"statements": found}, tables


def main() -> str:
    params = load_params()
    runs = params.shapes.runs
    trials = read_answers(params.densities, runs)
    networks = {density: [Network(density, run=run) for run in runs] for density in params.densities}
    curves = pd.concat([pd.read_csv(one.curve) for several in networks.values() for one in several])
    epochs = {
        density: [
            [epoch["test_accuracy"] for epoch in json.loads(one.training_metrics.read_text())["epochs"]]
            for one in several
        ]
        for density, several in networks.items()
    }
    try:
        numbers, tables = evaluated(trials, curves, epochs, params)
    except KeyError as error:
        raise UserError(
            f"data/shapes/predictions/paper: no trials of {error}; run 'dvc repro predict_shapes'"
        ) from None
    for name, table in tables.items():
        write_json(PLOTS / f"{name}.json", table.to_dict("records"))
    write_json("metrics/shapes.json", numbers)
    return f"{len(trials):,} decisions of {len(params.densities)} networks in {len(runs)} training runs"


if __name__ == "__main__":
    run(main)
