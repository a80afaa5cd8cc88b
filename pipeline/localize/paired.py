"""Each counter beside the classifier, on the same images and in training runs of the same number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.localize.paths import CLASSIFY, TRUE_MASK, margin_name
from pipeline.localize.runs import by_run
from pipeline.statistics.intervals import agresti_min, over_runs_and_images
from pipeline.statistics.tests import holm, mcnemar, mean_test

ALL_BUT_TIES = "all but 0"


def paired_runs(observer: str, mine: pd.DataFrame, theirs: pd.DataFrame) -> list[tuple[int, int]]:
    """Runs of an observer and of the classifier that are compared: of the same number. True masks have no runs.

    mine, theirs: answers with 'run'. Of true masks, which nothing was trained for, the one set of answers is compared
    with every run of the classifier.
    """
    others = sorted(theirs["run"].unique())
    if observer == TRUE_MASK:
        (only,) = mine["run"].unique()
        return [(only, run) for run in others]
    return [(run, run) for run in sorted(mine["run"].unique()) if run in others]


def differences(observer: str, mine: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Right minus right: 1 where the observer alone is, -1 where the classifier alone is, 0 where both or neither are.

    A row a pair of runs, a column an image (condition, image); NaN where no answer is right.
    """
    pairs = paired_runs(observer, mine, theirs)
    right = [by_run(rows, rows["correct"]) for rows in (mine, theirs)]
    return right[0].loc[[a for a, _ in pairs]] - right[1].loc[[b for _, b in pairs]].set_axis([a for a, _ in pairs])


def gain(values: np.ndarray) -> dict[str, float]:
    """Mean of differences [runs, images] of -1, 0 and 1, its 95% interval, and p of a mean of 0.

    Over images and runs (`over_runs_and_images`, `mean_test`). One run, and differences that are all the same, have
    proportions' own: Agresti and Min's (2005) interval and McNemar's exact test, of the images. NaN where there is no
    value.
    """
    values = values[:, ~np.isnan(values).any(axis=0)]
    runs, images = values.shape
    if not values.size:
        return {"gain": np.nan, "gain_low": np.nan, "gain_high": np.nan, "p": np.nan}
    if runs == 1 or (values == values[0, 0]).all():
        gained, lost = (int((values[0] == which).sum()) for which in (1, -1))
        low, high = agresti_min(gained, lost, images)
        return {"gain": (gained - lost) / images, "gain_low": low, "gain_high": high, "p": mcnemar(gained, lost)}
    found = over_runs_and_images(values)
    low, high = max(found["low"], -1.0), min(found["high"], 1.0)
    return {"gain": found["mean"], "gain_low": low, "gain_high": high, "p": mean_test(values)}


def paired_table(answers: dict[str, pd.DataFrame], densities: list[int], margins: list[int]) -> pd.DataFrame:
    """Each counter against the classifier on the same images, by margin and over all margins of a density but 0.

    answers: by observer, an answer a row, with 'run', 'condition', 'image' and 'correct'. Run r is compared with the
    classifier's run r; a run that it lacks is in no pair. Without the ties, to answer always the same is right on half
    of the images; with them, 'square' on more.

    runs: pairs of runs. images: with a right answer. only_counter_right, only_classifier_right: answers, of all runs.
    gain, p: of `gain`, undefined where there is no trial. p_holm: p adjusted by Holm's method in three families: each
    counter at each density, ties apart; each counter at each single margin; and what true masks would give.
    """
    rows = []
    for name in [name for name in answers if name != CLASSIFY]:
        apart = differences(name, answers[name], answers[CLASSIFY])
        conditions = apart.columns.get_level_values("condition")
        for density in densities:
            by_label = {ALL_BUT_TIES: [margin for margin in sorted(margins) if margin]}
            by_label |= {str(margin): [margin] for margin in sorted(margins)}
            for label, of_label in by_label.items():
                these = apart.loc[:, conditions.isin([margin_name(density, margin) for margin in of_label])]
                values = these.dropna(axis=1).to_numpy(float)
                rows.append(
                    {
                        "counter": name,
                        "density": density,
                        "margin": label,
                        "runs": len(values),
                        "images": values.shape[1] if len(values) else 0,
                        "only_counter_right": int((values == 1).sum()),
                        "only_classifier_right": int((values == -1).sum()),
                        **gain(values),
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
