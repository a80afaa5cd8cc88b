"""Is it batch normalisation that fails on images of another density, and that places the boundary?

    python -m pipeline.shapes.normalisation

Answers as saved, and with statistics estimated anew (pipeline/shapes/renormalise.py), of the same weights on the same
images. Means over networks, each by the mean of its training runs; 95% intervals are Student's over networks.

own_over_other_sets      accuracy on the own test set minus the mean on the others
sparser_generalise_better   accuracy of the sparser-trained on the denser set minus the accuracy the other way round
other_sets               accuracy on the test sets of other densities
far_from_half            distance of the share of 'circle' from one half, on the same sets
bias                     the same on margin sets with as many to either side of 0, of densities with training images
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.figures import figure
from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shapes.answers import rates_over_runs, read_answers
from pipeline.shapes.evaluate import accuracy_table
from pipeline.shapes.figures import heat_map
from pipeline.shapes.paths import METRICS, PLOTS, margin_name
from pipeline.shapes.readings import READINGS, renormalised
from pipeline.shapes.statements import asymmetry_of, circle_bias, own_and_others
from pipeline.stage import run, write_json
from pipeline.statistics.intervals import over_networks

AS_SAVED = "as saved"


def by_network(rates: pd.DataFrame, table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The numbers above, a row a network; NaN where there is no other set, or no margin set.

    rates: `rates_over_runs`; table: the accuracy table made of it.
    """
    accuracy = own_and_others(table)
    others = table[table["network"] != table["test"]]
    far = others["circle_by_run"].map(lambda shares: np.abs(np.array(shares) - 0.5).mean())
    return pd.DataFrame(
        {
            "own_over_other_sets": accuracy["own"] - accuracy["others"],
            "other_sets": accuracy["others"],
            "far_from_half": far.groupby(others["network"]).mean(),
            "bias": {network: bias(rates, network, params) for network in accuracy.index},
        }
    )


def bias(rates: pd.DataFrame, network: int, params: Params) -> float:
    """Mean over runs and densities of the distance of a run's share of 'circle' from one half; NaN of no density."""
    sizes = []
    for density in sorted(set(params.densities) & set(params.shapes.margin_densities)):
        margins = sorted(params.shapes.margins)
        cells = rates.loc[[(network, margin_name(density, m)) for m in margins]]
        cells = cells.reset_index(drop=True).assign(margin=margins, network=network, density=density)
        table = circle_bias(cells)
        sizes += [np.abs(np.array(shares) - 0.5).mean() for shares in table.get("circle_by_run", [])]
    return float(np.mean(sizes)) if sizes else np.nan


def summary(rates: dict[str, pd.DataFrame], params: Params) -> dict:
    """Of each reading the numbers above; of each that is not as saved, what it gains: the reading minus as saved.

    rates: `rates_over_runs` of each reading. cells: of accuracies on other sets, how many rise, fall and stay.
    """
    cells = {reading: accuracy_table(table, params.densities) for reading, table in rates.items()}
    networks = {reading: by_network(table, cells[reading], params) for reading, table in rates.items()}
    tables = {
        reading: table.pivot_table(index="network", columns="test", values="accuracy").to_numpy()
        for reading, table in cells.items()
    }
    others = ~np.eye(len(params.densities), dtype=bool)
    found: dict[str, dict] = {}
    for reading, table in networks.items():
        name = reading.replace(" ", "_")
        found[name] = {of: over_networks(values.dropna().to_numpy()) for of, values in table.items()}
        found[name]["sparser_generalise_better"] = asymmetry_of(tables[reading])
        if reading == AS_SAVED:
            continue
        gain = table - networks[AS_SAVED]
        moved = (tables[reading] - tables[AS_SAVED])[others]
        found[f"gain_with_{name}"] = {
            **{of: over_networks(values.dropna().to_numpy()) for of, values in gain.items()},
            "sparser_generalise_better": asymmetry_of(tables[reading] - tables[AS_SAVED]),
            "cells": {
                "rise": int((moved > 1e-9).sum()),
                "fall": int((moved < -1e-9).sum()),
                "of": int(others.sum()),
            },
        }
    return found


def draw(tables: dict[str, pd.DataFrame]) -> None:
    """The accuracy table in each reading, one beside the other."""
    options = {"ncols": len(tables), "sharey": True, "figsize": (4.4 * len(tables) + 0.8, 4.6)}
    with figure(PLOTS / "normalisation.png", **options) as (drawing, axes):
        for ax, (reading, rows) in zip(axes, tables.items(), strict=True):
            image = heat_map(ax, rows)
            title = "as saved" if reading == AS_SAVED else f"statistics of the {reading}"
            ax.set(title=title, xlabel="density of the test set")
        drawing.suptitle("Accuracy (%) by the images that gave batch normalisation's statistics; own set in bold")
        axes[0].set_ylabel("network, by its training density")
        drawing.colorbar(image, ax=list(axes), label="accuracy", shrink=0.8, extend="min")


def main() -> str:
    params = load_params()
    adapted = read_predictions(renormalised(density) for density in params.densities)
    rates = {AS_SAVED: rates_over_runs(read_answers(params.densities, params.shapes.runs))}
    rates |= {of: rates_over_runs(adapted[adapted["reading"].astype(str) == of]) for of in READINGS}
    tables = {reading: accuracy_table(table, params.densities) for reading, table in rates.items()}
    write_json(METRICS / "normalisation.json", summary(rates, params))
    rows = [table.assign(reading=reading) for reading, table in tables.items()]
    write_json(PLOTS / "normalisation.json", pd.concat(rows).to_dict("records"))
    draw(tables)
    return f"{len(params.densities)} networks, {len(params.shapes.runs)} runs, in {len(rates)} readings"


if __name__ == "__main__":
    run(main)
