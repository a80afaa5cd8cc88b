"""Weber's law: do answers follow the difference of two numbers or their ratio, and how finely are numbers told apart?

    python -m pipeline.shapes.weber

The document holds that the relative margin matters most (implicit-counting, Results and Discussion). Of every network,
training run and counter on purpose, on the margin sets and on the test sets of all densities: the log-likelihood of
answers held out of the fit, by the difference, the ratio and the log ratio, with a criterion for each density and one
slope for all; and the Weber fraction (pipeline/statistics/weber.py).

People asked for the majority of two kinds of dots have a Weber fraction of about 0.11 (Halberda and Feigenson, 2008;
16 adults); over studies, those of young adults range from below 0.10 to above 0.60 with how dots were drawn (Guillaume
and Van Rinsveld, 2018, Frontiers in Psychology 9:1694). Those people looked for a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures import COLOURS, figure
from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shapes.paths import METRICS, PLOTS, Network, observer
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.intervals import over_networks
from pipeline.statistics.weber import PREDICTORS, folds_of, held_out, predictors, weber_fraction

SETS = {"margin_sets": "margins/", "test_sets": "test/"}
COUNTERS = Path("data/localize/predictions")
CLASSIFY = "classify"  # there, the shapes study's own network once more
FOLDS = 5
PEOPLE = 0.11  # Halberda and Feigenson (2008)


def files(params: Params) -> Iterable[Path]:
    """The predictions of all networks that params.yaml names, and of the counters on purpose."""
    study = params.shapes
    for density in params.densities:
        yield from (Network(density, run=number).predictions for number in study.runs)
    for architecture in study.variants.architectures:
        yield from (Network(study.variants.density, architecture, n).predictions for n in study.variants.runs)
    yield from sorted(path for path in COUNTERS.glob("*.parquet") if not path.name.startswith(CLASSIFY))


def kind_of(table: pd.DataFrame) -> dict[str, object]:
    """What an observer is: kind ('paper', 'variant', 'counter'), network (its density or its name) and run."""
    first = table.iloc[0]
    if "counter" in table:
        return {"kind": "counter", "network": str(first["counter"]), "run": int(first["run"])}
    trained = Network(int(first["density"]), str(first["architecture"]), int(first["run"]))
    if trained.group == "paper":
        return {"kind": "paper", "network": observer(trained.density), "run": trained.run}
    return {"kind": "variant", "network": trained.architecture, "run": trained.run}


def read(path: Path, of: str) -> pd.DataFrame:
    """One observer's trials on one of SETS in the order of images; 'set' is the density of the images.

    Images without circles or without squares, which have no log ratio, are left out.
    """
    table = read_predictions([path])
    condition = table["condition"].astype(str)
    table = table.assign(condition=condition)[condition.str.startswith(SETS[of])]
    table = table[(table["circles"] > 0) & (table["squares"] > 0)]
    return table.assign(set=table["condition"].str.extract(r"density-(\d+)")[0].astype(int)).sort_values(
        ["condition", "image"], ignore_index=True
    )


def likelihoods(tables: list[pd.DataFrame], rng: np.random.Generator) -> np.ndarray:
    """Mean log-likelihood (nats an answer) of held-out answers, [observers, PREDICTORS].

    Raises UserError where observers were not tested on the same images.
    """
    first = tables[0]
    keys = ["condition", "image"]
    for table in tables[1:]:
        if len(table) != len(first) or (table[keys].astype(str) != first[keys].astype(str)).to_numpy().any():
            who = ", ".join(sorted({str(t["observer"].iloc[0]) for t in (first, table)}))
            raise UserError(f"{who}: were not tested on the same images; run 'dvc repro weigh_margins'")
    circle = np.stack([(table["response"] == "circle").to_numpy() for table in tables])
    folds = folds_of(first["condition"].to_numpy(), FOLDS, rng)
    x = predictors(first["circles"], first["squares"])
    groups = first["set"].to_numpy()
    return np.stack([held_out(x[name], groups, folds, circle).mean(axis=1) for name in PREDICTORS], axis=1)


def rows_of(of: str, params: Params) -> list[dict]:
    """A row an observer: mean log-likelihood by each predictor, and the Weber fraction with its interval."""
    rng = item_rng(params.seed, f"shapes/weber/{of}")
    tables = [table for path in files(params) if len(table := read(path, of))]
    # counters on purpose may have had fewer images; a variant has the test set of its own density only
    together: dict[tuple, list[int]] = {}
    for place, table in enumerate(tables):
        together.setdefault(tuple(table[["condition", "image"]].astype(str).agg("/".join, axis=1)), []).append(place)
    found = np.full((len(tables), len(PREDICTORS)), np.nan)
    for places in together.values():
        found[places] = likelihoods([tables[place] for place in places], rng)
    rows = []
    for table, values in zip(tables, found, strict=True):
        answers = (table["response"] == "circle").to_numpy()
        fitted = weber_fraction(
            table["circles"].to_numpy(),
            table["squares"].to_numpy(),
            table["set"].to_numpy(),
            answers,
        )
        likelihood = dict(zip(PREDICTORS, values.tolist(), strict=True))
        rows.append({"sets": of, **kind_of(table), "images": len(table), **likelihood, **fitted})
    return rows


def summary(rows: pd.DataFrame) -> dict[str, dict]:
    """Of the paper's networks, each the mean of its runs: what the ratio gains, and the Weber fraction; by SETS.

    ratio_over_difference, log_ratio_over_difference, log_ratio_over_ratio: nats an answer, held out. sensitivity: 1/w.
    weber_fraction: its inverse, low and high too. undefined: observers without a Weber fraction, by the reason.
    """
    found: dict[str, dict] = {}
    for of, table in rows.groupby("sets", sort=False):
        paper = table[table["kind"] == "paper"]
        means = paper.groupby("network", sort=False)[[*PREDICTORS, "sensitivity"]].mean()
        gains = {
            f"{more}_over_{than}": over_networks((means[more] - means[than]).dropna().to_numpy())
            for more, than in (("ratio", "difference"), ("log_ratio", "difference"), ("log_ratio", "ratio"))
        }
        sensitivity = over_networks(means["sensitivity"].dropna().to_numpy())
        low, high = sensitivity["low"], sensitivity["high"]
        bounded = low is not None and low > 0
        found[str(of)] = {
            **gains,
            "sensitivity": sensitivity,
            "weber_fraction": {
                "mean": 1 / sensitivity["mean"] if sensitivity["mean"] else None,
                "low": 1 / high if bounded else None,
                "high": 1 / low if bounded else None,
                "networks": sensitivity["networks"],
            },
            "undefined": table["reason"].dropna().value_counts().sort_index().to_dict(),
        }
    return found


def draw(rows: pd.DataFrame) -> None:
    """What the ratio gains over the difference, by network; and every observer's Weber fraction."""
    names = list(dict.fromkeys(rows["network"]))[::-1]
    places = {name: place for place, name in enumerate(names)}
    labels = {"margin_sets": "margin sets", "test_sets": "test sets"}
    with figure(PLOTS / "weber.png", ncols=2, sharey=True, figsize=(10, 0.32 * len(names) + 1.9)) as (drawing, axes):
        drawing.suptitle("Majority by the ratio or by the difference? Each training run is a point", fontsize=11)
        for shift, colour, (of, label) in zip((0.15, -0.15), COLOURS, labels.items(), strict=False):
            these = rows[rows["sets"] == of]
            y = these["network"].map(places).astype(float) + shift
            axes[0].plot(
                1000 * (these["ratio"] - these["difference"]), y, "o", color=colour, ms=4, alpha=0.6, label=label
            )
            known = these.dropna(subset=["weber_fraction"])
            reach = [known["weber_fraction"] - known["low"], known["high"] - known["weber_fraction"]]
            y = known["network"].map(places).astype(float) + shift
            axes[1].errorbar(known["weber_fraction"], y, xerr=np.array(reach), fmt="o", color=colour, ms=4, lw=1)
        axes[0].axvline(0, color="#888888", lw=1, ls=":")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set(
            title="Difference (left of 0) or ratio (right)?",
            xlabel="log-likelihood by the ratio minus by the difference\n(thousandths of a nat an answer, held out)",
        )
        axes[0].legend()
        axes[1].axvline(PEOPLE, color="#888888", lw=1, ls="--")
        axes[1].annotate(" people", (PEOPLE, len(names) - 0.6), color="#555555", fontsize=8)
        axes[1].set(
            title="Weber fraction: smaller is finer",
            xlabel="Weber fraction with 95% interval",
            xscale="log",
            xlim=(0.03, 10),
        )


def main() -> str:
    params = load_params()
    rows = pd.DataFrame([row for of in SETS for row in rows_of(of, params)])
    numbers = [*PREDICTORS, *(name for name in rows if name.startswith(("weber", "low", "high", "sensitivity")))]
    rows[numbers] = rows[numbers].astype(float)  # where none is defined, too
    write_json(METRICS / "weber.json", summary(rows))
    write_json(PLOTS / "weber.json", rows.to_dict("records"))
    draw(rows)
    return f"{len(rows)} observers and sets"


if __name__ == "__main__":
    run(main)
