"""Is training by Adam stable beside stochastic gradient descent? (posenet, section 2.4)

The document has no measure of 'stable'. Here a training is stable where it ends with a lower mean absolute error on
held-out images than its first weights have: of one that diverges, the error has no bound, or is not a number. How far
training runs lie apart is measured too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import chdtri

from pipeline.posenet.paths import FIRST
from pipeline.statistics.intervals import over_runs_and_images, wilson

EVERY = "all"  # networks together
TRAINING = ["backbone", "variant", "pattern", "run"]


def stability(rows: pd.DataFrame) -> list[dict]:
    """A row for each reading and network, and for all networks together; rows: of `evaluate.scores`, FIRST among them.

    stable: share of the trainings, with Wilson's interval; it is over further trainings of these networks. spearman:
    mean of the patterns, over the runs in which each has one. runs_apart: standard deviation between training runs of
    the correlation on held-out images, root mean square over the patterns; its interval is chi-square's, of runs from
    one normal distribution a pattern.
    """
    error = rows.groupby(["reading", *TRAINING], observed=True, sort=False)["mae"].mean(skipna=False)
    found = []
    for reading in [name for name in dict.fromkeys(rows["reading"]) if name != FIRST]:
        ended = error[reading]
        lower = (ended < error[FIRST].reindex(ended.index)).reset_index(name="stable")
        lower["network"] = lower["backbone"] + "/" + lower["variant"]
        these = rows[rows["reading"] == reading]
        for name in [*dict.fromkeys(lower["network"]), EVERY]:
            stable = lower.loc[(lower["network"] == name) | (name == EVERY), "stable"]
            low, high = wilson(np.array(stable.sum()), np.array(len(stable)))
            of_patterns = correlations(these[(these["backbone"] + "/" + these["variant"] == name) | (name == EVERY)])
            mean = over_runs_and_images(np.mean(of_patterns, axis=0))
            found.append(
                {
                    "optimizer": reading,
                    "network": name,
                    "trainings": len(stable),
                    "stable": float(stable.mean()),
                    "stable_low": float(low),
                    "stable_high": float(high),
                    "spearman": mean["mean"],
                    "spearman_low": mean["low"],
                    "spearman_high": mean["high"],
                    **runs_apart(of_patterns),
                }
            )
    return found


def correlations(rows: pd.DataFrame) -> list[np.ndarray]:
    """Spearman's correlations [runs, images] of each network and pattern."""
    return [
        these.sort_values("run", kind="stable")["spearman"].to_numpy(float).reshape(these["run"].nunique(), -1)
        for _, these in rows.groupby(["backbone", "variant", "pattern"], observed=True, sort=False)
    ]


def runs_apart(values: list[np.ndarray]) -> dict[str, float]:
    """Root of the mean variance between runs of the mean over images; NaN of one run, or where one is undefined."""
    means = np.array([of_runs.mean(axis=1) for of_runs in values])
    freedom = len(means) * (means.shape[1] - 1)
    apart = np.sqrt(means.var(axis=1, ddof=1).mean()) if freedom else np.nan
    low, high = (apart * np.sqrt(freedom / chdtri(freedom, p)) if freedom else np.nan for p in (0.025, 0.975))
    return {"runs_apart": float(apart), "runs_apart_low": float(low), "runs_apart_high": float(high)}
