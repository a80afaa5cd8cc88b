"""Does a network that counts on purpose beat one that was asked for the majority only? On every margin and density.

    python -m pipeline.localize.compare

Every network was trained several times (localize.runs, shapes.runs). Intervals are 95%, for other images and other
training runs (pipeline/statistics/intervals.py), but of average precision: for other runs only. Run r of a counter is
compared with the classifier's run r on the same images. p of each such difference is adjusted by Holm's method in three
families: each counter at each density, all its margins but 0 together (with three of each, nine questions); each
counter at each single margin; and what true masks would give, margins and all. Costs are of the first run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.localize.bias import less_bias_over_runs
from pipeline.localize.costs import cost_table
from pipeline.localize.found import detection_table, mask_table
from pipeline.localize.paired import ALL_BUT_TIES, paired_runs, paired_table
from pipeline.localize.paths import (
    CLASSIFY,
    METRICS,
    PLOTS,
    TRUE_MASK,
    counted_path,
    margin_name,
    network_of,
    network_predictions,
    predictions_path,
    run_name,
    test_name,
)
from pipeline.localize.places import places_table
from pipeline.localize.runs import KEY, bias_table, by_run, mean_over_runs, rates
from pipeline.localize.scenes import KINDS, load
from pipeline.params import Params, load_params
from pipeline.predictions import COLUMNS, read_predictions, write_predictions
from pipeline.shards import item_rng
from pipeline.stage import run, write_json


def read_answers(params: Params) -> dict[str, pd.DataFrame]:
    """What each observer answered in each training run: classifier, counters, and what the true masks would give.

    True masks are no network's: their answers are there once, as run 0.
    """
    study = params.localize
    answers = {counter: read_runs([counted_path(counter, run) for run in study.runs]) for counter in study.counters}
    asked = next(iter(answers.values()))[KEY].drop_duplicates()
    classified = read_runs([network_predictions(study.density, run) for run in params.shapes.runs])
    classified = asked.merge(classified, on=KEY, how="left", validate="one_to_many")
    classified["counter"] = CLASSIFY
    classified["observer"] = [run_name(CLASSIFY, run) for run in classified["run"]]
    answers = {CLASSIFY: classified} | answers
    masks = next((rows for rows in answers.values() if f"true_mask_{KINDS[0]}s" in rows), None)
    if masks is not None:
        answers[TRUE_MASK] = from_true_masks(masks.drop_duplicates(KEY))
    return answers


def read_runs(paths: list[Path]) -> pd.DataFrame:
    return read_predictions(paths).astype({name: str for name in KEY})


def from_true_masks(rows: pd.DataFrame) -> pd.DataFrame:
    """The answers that follow from counting the components of the true masks."""
    counted = {f"counted_{kind}s": rows[f"true_mask_{kind}s"] for kind in KINDS}
    response = np.where(counted["counted_circles"] > counted["counted_squares"], KINDS[1], KINDS[0])
    correct = pd.Series(rows["category"].astype(str) == response, dtype="boolean").mask(rows["correct"].isna())
    return rows.assign(observer=TRUE_MASK, counter=TRUE_MASK, run=0, response=response, correct=correct, **counted)


def margin_table(by_condition: pd.DataFrame, observers: list[str], params: Params) -> pd.DataFrame:
    """One row for each observer, density and margin."""
    rows = [
        {"counter": name, "density": density, "margin": margin, **by_condition.loc[name, margin_name(density, margin)]}
        for name in observers
        for density in params.shapes.margin_densities
        for margin in sorted(params.shapes.margins)
    ]
    return pd.DataFrame(rows).astype({"images": int})


def test_table(by_condition: pd.DataFrame, observers: list[str], params: Params) -> pd.DataFrame:
    """One row for each observer and test set of a density."""
    rows = [
        {"counter": name, "density": density, **by_condition.loc[name, test_name(density)]}
        for name in observers
        for density in sorted(params.densities)
    ]
    return pd.DataFrame(rows).astype({"images": int})


def count_table(answers: dict[str, pd.DataFrame], params: Params) -> pd.DataFrame:
    """How far the counts are off, by observer and test set, in shapes: means over images and runs.

    error: without sign, the mean of the two kinds; difference_error: of circles - squares, without sign;
    too_many: of both kinds together, below 0 where too few are counted.
    """
    rows = []
    for name, answered in answers.items():
        if "counted_circles" not in answered:
            continue
        for density in sorted(params.densities):
            these = answered[answered["condition"] == test_name(density)]
            off = {kind: by_run(these, these[f"counted_{kind}s"] - these[f"{kind}s"]) for kind in KINDS}
            total = off["square"] + off["circle"]
            rows.append(
                {
                    "counter": name,
                    "density": density,
                    "runs": len(total),
                    **mean_over_runs((off["square"].abs() + off["circle"].abs()) / 2, "error", 0),
                    **mean_over_runs((off["circle"] - off["square"]).abs(), "difference_error", 0),
                    **mean_over_runs(total, "too_many"),
                }
            )
    return pd.DataFrame(rows)


def hidden_shapes(params: Params) -> dict[str, float]:
    """Share of the shapes of which nothing can be seen: others cover them. On a grid of the canvas' own pixels."""
    shares = {}
    for density in sorted(params.densities):
        scenes = load(test_name(density), params.shapes.scene.canvas, params.at_scale.localize.test_images)
        shapes = sum(map(len, scenes.shapes))
        seen = sum(len(np.setdiff1d(s.owners(params.shapes.scene.canvas), -1)) for s in scenes.shapes)
        shares[f"density_{density}"] = 1 - seen / shapes
    return shares


def summary(tables: dict[str, pd.DataFrame], params: Params) -> dict:
    """The study's numbers, for `dvc metrics`."""
    margins, paired = tables["margins"], tables["paired"]
    overall = paired[paired["margin"] == ALL_BUT_TIES]
    decided = margins[margins["margin"] != 0]
    keep = ["only_counter_right", "only_classifier_right", "gain", "gain_low", "gain_high", "p_holm"]
    return {
        "accuracy_on_margin_sets_but_ties": {
            name: {f"density_{density}": float(these["accuracy"].mean()) for density, these in rows.groupby("density")}
            for name, rows in decided.groupby("counter", sort=False)
        },
        "against_classify": {
            name: {f"density_{row['density']}": {key: row[key] for key in keep} for _, row in rows.iterrows()}
            for name, rows in overall.groupby("counter", sort=False)
        },
        "bias": {
            name: {
                f"density_{row['density']}": {k: row[k] for k in ("pse", "pse_low", "pse_high", "slope")}
                for _, row in rows.iterrows()
            }
            for name, rows in tables["bias"].groupby("counter", sort=False)
        },
        "count_error": {
            name: {f"density_{row['density']}": row["error"] for _, row in rows.iterrows()}
            for name, rows in tables["counts"].groupby("counter", sort=False)
        },
        "ap50": {
            name: {f"density_{row['density']}": row["ap50"] for _, row in rows.iterrows()}
            for name, rows in tables["detection"].groupby("counter", sort=False)
        },
        "iou": {
            f"density_{density}": dict(zip(rows["class"], rows["iou"], strict=True))
            for density, rows in tables["masks"].groupby("density")
        },
        "hidden_shapes": hidden_shapes(params),
        "cost": tables["cost"].set_index("counter").to_dict("index"),
    }


def paired_bias(answers: dict[str, pd.DataFrame], params: Params) -> dict[str, dict]:
    """How much less bias than the classifier each counter has; run r beside run r."""
    return {
        name: less_bias_over_runs(
            [
                [rows[rows["run"] == run] for rows, run in zip((answers[CLASSIFY], answers[name]), runs, strict=True)]
                for runs in ((theirs, mine) for mine, theirs in paired_runs(name, answers[name], answers[CLASSIFY]))
            ],
            params.shapes.margin_densities,
            params.shapes.margins,
            item_rng(params.seed, f"localize/compare/{name}/less_bias"),
            params.at_scale.shapes.bootstrap,
        )
        for name in params.localize.counters
    }


def main() -> str:
    params = load_params()
    answers = read_answers(params)
    for name, rows in answers.items():
        for number, of_run in rows.groupby("run") if name != TRUE_MASK else ():
            described = [*COLUMNS, "counter", "run", "circles", "squares"]
            write_predictions(predictions_path(name, number), of_run[described])
    by_condition = rates(answers)
    margins = margin_table(by_condition, list(answers), params)
    tables = {
        "margins": margins,
        "tests": test_table(by_condition, list(answers), params),
        "counts": count_table(answers, params),
        "bias": bias_table(margins, params.seed, params.at_scale.shapes.bootstrap),
        "paired": paired_table(answers, params.shapes.margin_densities, params.shapes.margins),
        "detection": detection_table(params),
        "masks": mask_table(answers, params),
        "places": places_table(answers, params),
        "cost": cost_table(params),
    }
    for name, table in tables.items():
        write_json(PLOTS / f"{name}.json", table.to_dict("records"))
    alone = sorted(set(params.localize.runs) - set(params.shapes.runs))
    found = {"less_bias_than_classify": paired_bias(answers, params), "runs_without_classify": alone}
    write_json(f"{METRICS}.json", summary(tables, params) | found)
    unpaired = f"; runs {alone} are in no pair, {network_of(params.localize.density)} lacks them" if alone else ""
    return f"{sum(map(len, answers.values())):,} answers of {len(answers)} observers{unpaired}"


if __name__ == "__main__":
    run(main)
