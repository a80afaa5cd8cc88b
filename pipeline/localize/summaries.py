"""Means over images with Student's 95% interval. What is undefined (NaN) is left out; one image has no interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student_t


def mean_with_interval(values: np.ndarray, name: str) -> dict[str, float]:
    """{name, name_low, name_high} of values [N]; NaN where there is none."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    mean = values.mean() if len(values) else np.nan
    spread = np.nan
    if len(values) > 1:
        spread = student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {name: mean, f"{name}_low": mean - spread, f"{name}_high": mean + spread}


def paired(mine: pd.Series, theirs: pd.Series, name: str = "gain") -> dict[str, float]:
    """The mean difference of two measures of the same images (index), with its interval."""
    return mean_with_interval((mine - theirs).to_numpy(), name)
