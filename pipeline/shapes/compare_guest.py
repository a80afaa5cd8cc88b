"""A guest beside the paper's networks: accuracy, answers by margin, bias, Weber fraction, and error consistency.

    python -m pipeline.shapes.compare_guest --name blob

Intervals are 95%. Those of the guest, which is one network, are over images; those of kappa also over the training runs
of the network that it is compared with. Error consistency is Cohen's kappa of right and wrong answers (Geirhos et al.,
2020), on the margin sets.
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd

from pipeline.figures import COLOURS, figure
from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shapes.answers import rates_over_runs, read_answers
from pipeline.shapes.guests import Places
from pipeline.shapes.paths import margin_name, observer, split_name
from pipeline.shapes.weber import SETS, read
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.intervals import over_runs
from pipeline.statistics.kappa import kappa_of_answers
from pipeline.statistics.psychometric import describe, probability, rates
from pipeline.statistics.weber import weber_fraction

BATCH = 50  # resamples held in memory at once
WEBER = ("weber_fraction", "low", "high", "sensitivity", "sensitivity_low", "sensitivity_high", "lapse", "reason")


def kappa_with_interval(
    right_a: np.ndarray, right_b: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """kappa and the bounds of its 95% interval, over resampled trials [N]; NaN where undefined."""
    from scipy.stats import bootstrap

    value = float(kappa_of_answers(right_a, right_b))
    if np.isnan(value):
        return value, np.nan, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resamples whose kappa is undefined; they are left out below
        options = {"n_resamples": resamples, "method": "percentile", "batch": BATCH, "rng": rng}
        drawn = bootstrap((right_a, right_b), kappa_of_answers, paired=True, **options)
    low, high = np.nanquantile(drawn.bootstrap_distribution, [0.025, 0.975])
    return value, float(low), float(high)


def accuracy_rows(name: str, own: pd.DataFrame, networks: pd.DataFrame, params: Params) -> list[dict]:
    """A row a network and test set, the guest's first. own: `rates` by condition; networks: `rates_over_runs`."""
    rows = []
    for test in params.densities:
        condition = split_name(test, "test")
        cells = {name: own.loc[condition]}
        cells |= {observer(density): networks.loc[(density, condition)] for density in params.densities}
        for network, cell in cells.items():
            bounds = {"accuracy": cell["accuracy"], "low": cell["accuracy_low"], "high": cell["accuracy_high"]}
            rows.append({"network": network, "test": test, **bounds, "images": int(cell["images"])})
    return rows


def margin_rows(own: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The guest's answers, a row a density and margin."""
    rows = [
        {"density": density, "margin": margin, **own.loc[margin_name(density, margin)]}
        for density in params.shapes.margin_densities
        for margin in sorted(params.shapes.margins)
    ]
    return pd.DataFrame(rows).astype({"images": int})


def right_answers(trials: pd.DataFrame) -> pd.Series:
    """Right (1.0) or wrong (0.0) on the margin sets, by condition and image; what no answer gets right is left out."""
    keys = {name: trials[name].astype(str) for name in ("condition", "image")}
    known = pd.DataFrame(keys).assign(correct=trials["correct"].astype("Float64"))
    known = known[known["condition"].str.startswith(SETS["margin_sets"])].dropna()
    return known.set_index(["condition", "image"])["correct"].astype(float).sort_index()


def consistency_rows(name: str, trials: pd.DataFrame, others: pd.DataFrame, params: Params) -> list[dict]:
    """kappa of the guest with every network, the mean of its training runs.

    Raises UserError where a network was not tested on the same images.
    """
    mine, rows = right_answers(trials), []
    for density, of_network in others.groupby("density"):
        found, agreement = [], []
        for number, of_run in of_network.groupby("run"):
            theirs = right_answers(of_run)
            if not mine.index.equals(theirs.index):
                raise UserError(f"{name} and {observer(density)} were not tested on the same images; run 'dvc repro'")
            rng = item_rng(params.seed, f"shapes/compare_guest/{name}/{density}/{number}")
            found.append(kappa_with_interval(mine.to_numpy(), theirs.to_numpy(), params.at_scale.shapes.bootstrap, rng))
            agreement.append(float((mine == theirs).mean()))
        value, low, high = over_runs(*zip(*found, strict=True))
        # beyond 1 there is nothing
        bounds = {"kappa": value, "low": max(low, -1.0), "high": min(high, 1.0)}
        numbers = {"observed": float(np.mean(agreement)), "runs": len(found), "trials": len(mine)}
        rows.append({"network": observer(density), **bounds, **numbers})
    return rows


def draw(name: str, accuracy: pd.DataFrame, margins: pd.DataFrame, bias: dict, kappas: pd.DataFrame) -> None:
    """Accuracy on every test set, answers by margin, and kappa; the paper's networks beside the guest."""
    with figure(Places(name).plots / "guest.png", ncols=3, figsize=(13, 4)) as (_, (left, middle, right)):
        for network, row in accuracy.groupby("network", sort=False):
            if network == name:
                reach = [row["accuracy"] - row["low"], row["high"] - row["accuracy"]]
                left.errorbar(row["test"], row["accuracy"], reach, color=COLOURS[1], capsize=2, label=name, zorder=3)
            else:
                left.plot(row["test"], row["accuracy"], color="#999999", lw=0.8)
        left.plot([], [], color="#999999", lw=0.8, label="the paper's networks")
        left.axhline(0.5, color="#888888", lw=1, ls=":")
        left.set(title="Accuracy on every test set", xlabel="density of the test set", ylim=(None, 1.02))
        left.legend()
        fine = np.linspace(margins["margin"].min(), margins["margin"].max(), 200)
        for colour, (density, points) in zip(COLOURS, margins.groupby("density"), strict=False):
            reach = [points["circle"] - points["circle_low"], points["circle_high"] - points["circle"]]
            middle.errorbar(points["margin"], points["circle"], reach, fmt="o", color=colour, ms=3.5, lw=1)
            fitted = [bias[f"density_{density}"][key] for key in ("intercept", "slope", "lapse")]
            middle.plot(fine, probability(fine, *fitted), color=colour, lw=1, label=f"{density} shapes")
        middle.axhline(0.5, color="#888888", lw=1, ls=":")
        middle.set(
            title="Answers by margin", xlabel="circles - squares", ylabel="answered 'circle'", ylim=(-0.02, 1.02)
        )
        middle.legend()
        places = np.arange(len(kappas))
        reach = np.stack([kappas["kappa"] - kappas["low"], kappas["high"] - kappas["kappa"]]).astype(float)
        right.errorbar(places, kappas["kappa"].astype(float), reach, fmt="o", color=COLOURS[0], capsize=2)
        right.axhline(0, color="#888888", lw=1, ls=":")
        right.set(title="Error consistency with each network", ylabel="kappa, on the margin sets")
        right.set_xticks(places, kappas["network"])


def main(name: str) -> str:
    params, places = load_params(), Places(name)
    trials = read_predictions([places.decisions])
    others = read_answers(params.densities, params.shapes.runs)
    own = rates(trials).droplevel("observer")
    own.index = own.index.astype(str)
    accuracy = pd.DataFrame(accuracy_rows(name, own, rates_over_runs(others), params))
    margins = margin_rows(own, params)
    bias = {}
    for density, cells in margins.groupby("density"):
        rng = item_rng(params.seed, f"shapes/compare_guest/{name}/{density}")
        bias[f"density_{density}"] = describe(cells, rng, params.at_scale.shapes.bootstrap)
    weber = {}
    for of in SETS:
        table = read(places.decisions, of)
        counts = (table[kind].to_numpy() for kind in ("circles", "squares", "set"))
        fitted = weber_fraction(*counts, (table["response"] == "circle").to_numpy())
        weber[of] = {key: fitted[key] for key in WEBER} | {"images": len(table)}
    kappas = pd.DataFrame(consistency_rows(name, trials, others, params))
    of_guest = accuracy[accuracy["network"] == name]
    beside = accuracy[accuracy["network"] != name].groupby("test")["accuracy"]
    answers = trials["response"].astype(str).unique().tolist()
    found = json.loads(places.found.read_text())
    write_json(
        places.metrics,
        {
            "build": found["guest"]["build"],
            "parameters": found["parameters"],
            "trained_here": found["guest"]["train"],
            "always_answers": answers[0] if len(answers) == 1 else None,
            "accuracy": {
                f"test_{row.test}": {
                    "accuracy": row.accuracy,
                    "low": row.low,
                    "high": row.high,
                    "networks_lowest": beside.min()[row.test],
                    "networks_highest": beside.max()[row.test],
                }
                for row in of_guest.itertuples()
            },
            "bias": bias,
            "weber": weber,
            "kappa": {row.pop("network"): row for row in kappas.to_dict("records")},
        },
    )
    for table, rows in {"accuracy": accuracy, "margins": margins, "kappa": kappas}.items():
        write_json(places.plots / f"{table}.json", rows.to_dict("records"))
    draw(name, accuracy, margins, bias, kappas)
    return f"{len(trials):,} decisions beside those of {len(params.densities)} networks"


if __name__ == "__main__":
    run(main, name=str)
