"""Does a network that counts on purpose beat one that was asked for the majority only? On every margin and density.

    python -m pipeline.localize.compare

Intervals are 95%: Wilson's for proportions, bootstrap percentiles for the psychometric fits, Student's for means over
images. They cover the sampling of test images, not of training runs. Every counter is compared with the classifier
on the same images by McNemar's exact test. p is adjusted by Holm's method in three families: each counter at each
density, all its margins but 0 together (with three of each, nine questions); each counter at each single margin; and
what true masks would give, margins and all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torchmetrics.detection import MeanAveragePrecision

from pipeline.localize.bias import less_bias
from pipeline.localize.costs import cost_table
from pipeline.localize.paths import (
    CLASSIFY,
    METRICS,
    PLOTS,
    TRUE_MASK,
    boxes_path,
    counted_path,
    margin_name,
    network_decisions,
    predictions_path,
    test_name,
)
from pipeline.localize.places import places_table
from pipeline.localize.scenes import KINDS, load
from pipeline.params import Params, load_params
from pipeline.predictions import COLUMNS, read_predictions, write_predictions
from pipeline.shards import item_rng
from pipeline.stage import run, write_json
from pipeline.statistics.intervals import agresti_min, mean_with_interval
from pipeline.statistics.psychometric import describe, rates
from pipeline.statistics.tests import holm, mcnemar

KEY = ["condition", "image"]
ALL_BUT_TIES = "all but 0"


def read_answers(params: Params) -> dict[str, pd.DataFrame]:
    """What each observer answered: the classifier, the counters, and what the true masks would give."""
    answers = {}
    for counter in params.localize.counters:
        answers[counter] = read_predictions([counted_path(counter)]).astype({name: str for name in KEY})
    asked = next(iter(answers.values()))[KEY]
    classified = read_predictions([network_decisions(params.localize.density)]).astype({name: str for name in KEY})
    classified = asked.merge(classified, on=KEY, how="left", validate="one_to_one")
    classified["observer"] = classified["counter"] = CLASSIFY
    answers = {CLASSIFY: classified} | answers
    masks = next((rows for rows in answers.values() if f"true_mask_{KINDS[0]}s" in rows), None)
    if masks is not None:
        answers[TRUE_MASK] = from_true_masks(masks)
    return answers


def from_true_masks(rows: pd.DataFrame) -> pd.DataFrame:
    """The answers that follow from counting the components of the true masks."""
    counted = {f"counted_{kind}s": rows[f"true_mask_{kind}s"] for kind in KINDS}
    response = np.where(counted["counted_circles"] > counted["counted_squares"], KINDS[1], KINDS[0])
    correct = pd.Series(rows["category"].astype(str) == response, dtype="boolean").mask(rows["correct"].isna())
    return rows.assign(observer=TRUE_MASK, counter=TRUE_MASK, response=response, correct=correct, **counted)


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
    """How far the counts are off, by observer and test set, in shapes: means over images.

    error: without sign, the mean of the two kinds; difference_error: of circles - squares, without sign;
    too_many: of both kinds together, below 0 where too few are counted.
    """
    rows = []
    for name, answered in answers.items():
        if "counted_circles" not in answered:
            continue
        for density in sorted(params.densities):
            these = answered[answered["condition"] == test_name(density)]
            off = {kind: (these[f"counted_{kind}s"] - these[f"{kind}s"]).to_numpy(float) for kind in KINDS}
            total = off["square"] + off["circle"]
            rows.append(
                {
                    "counter": name,
                    "density": density,
                    **mean_with_interval((np.abs(off["square"]) + np.abs(off["circle"])) / 2, "error"),
                    **mean_with_interval(np.abs(off["circle"] - off["square"]), "difference_error"),
                    **mean_with_interval(total, "too_many"),
                }
            )
    return pd.DataFrame(rows)


def average_precision(found: pd.DataFrame, density: int, params: Params) -> dict[str, float]:
    """COCO's AP over IoU 0.5:0.95, at 0.5 and at 0.75, and by kind at 0.5; boxes in canvas units."""
    canvas = params.shapes.scene.canvas
    scenes = load(test_name(density), canvas, params.at_scale.localize.test_images)
    by_image = dict(iter(found.groupby("image")))
    nothing = found.iloc[:0]
    guesses, truths = [], []
    for key, shapes in zip(scenes.keys, scenes.shapes, strict=True):
        rows = by_image.get(key, nothing)
        guesses.append(
            {
                "boxes": torch.tensor(rows[["x0", "y0", "x1", "y1"]].to_numpy(np.float32)) * canvas,
                "scores": torch.tensor(rows["score"].to_numpy(np.float32)),
                "labels": torch.tensor(rows["label"].to_numpy()),
            }
        )
        truths.append({"boxes": torch.from_numpy(shapes.boxes) * canvas, "labels": torch.from_numpy(shapes.label)})
    most = max(100, *(len(guess["boxes"]) for guess in guesses), *(len(truth["boxes"]) for truth in truths))
    metric = MeanAveragePrecision(
        max_detection_thresholds=[1, 10, most], extended_summary=True, backend="faster_coco_eval"
    )
    metric.update(guesses, truths)
    # 'map' itself is -1 where more than COCO's 100 boxes are allowed; precision: [IoU, recall, kind, area, boxes]
    result = metric.compute()
    precision = result["precision"][:, :, :, 0, -1].numpy()
    precision = np.where(precision < 0, np.nan, precision)
    kinds = [KINDS[int(label) - 1] for label in result["classes"].reshape(-1)]  # those that occur
    by_kind = {f"ap50_{kind}": np.nan for kind in KINDS}
    by_kind |= {f"ap50_{kind}": _mean(precision[0, :, i]) for i, kind in enumerate(kinds)}
    return {"ap": _mean(precision), "ap50": _mean(precision[0]), "ap75": _mean(precision[5]), **by_kind}


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def detection_table(params: Params) -> pd.DataFrame:
    rows = []
    for counter in params.localize.counters:
        if not boxes_path(counter).exists():
            continue
        found = pd.read_parquet(boxes_path(counter)).astype({name: str for name in KEY})
        for density in sorted(params.densities):
            these = found[found["condition"] == test_name(density)]
            rows.append({"counter": counter, "density": density, **average_precision(these, density, params)})
    return pd.DataFrame(rows, columns=["counter", "density", "ap", "ap50", "ap75", "ap50_square", "ap50_circle"])


def mask_table(answers: dict[str, pd.DataFrame], params: Params) -> pd.DataFrame:
    """IoU of each class over all pixels of a density's test images; undefined where a class is nowhere."""
    rows = []
    for counter, answered in answers.items():
        if "union_background" not in answered or counter == TRUE_MASK:
            continue
        for density in sorted(params.densities):
            these = answered[answered["condition"] == test_name(density)]
            for kind in ("background", *KINDS):
                both, either = these[f"intersection_{kind}"].sum(), these[f"union_{kind}"].sum()
                rows.append(
                    {"counter": counter, "density": density, "class": kind, "iou": both / either if either else np.nan}
                )
    return pd.DataFrame(rows, columns=["counter", "density", "class", "iou"])


def paired_table(answers: dict[str, pd.DataFrame], params: Params) -> pd.DataFrame:
    """Each counter against the classifier on the same images, by margin and over all margins of a density but 0.

    Without the ties, to answer always the same is right on half of the images; with them, 'square' on more. The
    interval of the gain is Agresti and Min's (2005) for paired proportions. p is undefined where there is no trial.
    p_holm: p adjusted within the row's family, of the three above.
    """
    right = {name: rows.set_index(KEY)["correct"] for name, rows in answers.items()}
    rows = []
    for name in [name for name in answers if name != CLASSIFY]:
        pairs = pd.concat({"mine": right[name], "theirs": right[CLASSIFY]}, axis=1).dropna().astype(bool)
        for density in params.shapes.margin_densities:
            margins_by_label = {ALL_BUT_TIES: [margin for margin in sorted(params.shapes.margins) if margin]}
            margins_by_label |= {str(margin): [margin] for margin in sorted(params.shapes.margins)}
            for label, margins in margins_by_label.items():
                asked = [margin_name(density, margin) for margin in margins]
                these = pairs[pairs.index.get_level_values("condition").isin(asked)]
                gained = int((these["mine"] & ~these["theirs"]).sum())
                lost = int((~these["mine"] & these["theirs"]).sum())
                low, high = agresti_min(gained, lost, len(these))
                rows.append(
                    {
                        "counter": name,
                        "density": density,
                        "margin": label,
                        "images": len(these),
                        "only_counter_right": gained,
                        "only_classifier_right": lost,
                        "gain": (gained - lost) / len(these) if len(these) else np.nan,
                        "gain_low": low,
                        "gain_high": high,
                        "p": mcnemar(gained, lost) if len(these) else np.nan,
                    }
                )
    table = pd.DataFrame(rows).sort_values(["counter", "density"], kind="stable", ignore_index=True)
    # what was asked first: do the counters differ from the classifier at a density? Then, where
    table["p_holm"] = np.nan
    first = (table["margin"] == ALL_BUT_TIES) & (table["counter"] != TRUE_MASK)
    for family in (first, ~first & (table["counter"] != TRUE_MASK), table["counter"] == TRUE_MASK):
        asked = table[family & table["p"].notna()].index
        table.loc[asked, "p_holm"] = holm(table.loc[asked, "p"].to_numpy())
    return table


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


def main() -> str:
    params = load_params()
    answers = read_answers(params)
    for name, rows in answers.items():
        if name != TRUE_MASK:
            described = [*COLUMNS, "counter", "circles", "squares"]
            write_predictions(predictions_path(name), rows[described])
    by_condition = pd.concat([rates(rows) for rows in answers.values()])
    margins = margin_table(by_condition, list(answers), params)
    bias = pd.DataFrame(
        {
            "counter": name,
            "density": density,
            **describe(rows, item_rng(params.seed, key), params.at_scale.shapes.bootstrap),
        }
        for (name, density), rows in margins.groupby(["counter", "density"], sort=False)
        for key in [f"localize/compare/{name}/{density}"]
    )
    tables = {
        "margins": margins,
        "tests": test_table(by_condition, list(answers), params),
        "counts": count_table(answers, params),
        "bias": bias,
        "paired": paired_table(answers, params),
        "detection": detection_table(params),
        "masks": mask_table(answers, params),
        "places": places_table(answers, params),
        "cost": cost_table(params),
    }
    for name, table in tables.items():
        write_json(PLOTS / f"{name}.json", table.to_dict("records"))
    found = {
        name: less_bias(
            answers[CLASSIFY],
            answers[name],
            params.shapes.margin_densities,
            params.shapes.margins,
            item_rng(params.seed, f"localize/compare/{name}/less_bias"),
            params.at_scale.shapes.bootstrap,
        )
        for name in params.localize.counters
    }
    write_json(f"{METRICS}.json", summary(tables, params) | {"less_bias_than_classify": found})
    return f"{sum(map(len, answers.values())):,} answers of {len(answers)} observers"


if __name__ == "__main__":
    run(main)
