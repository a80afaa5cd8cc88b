"""Means over images with Student's 95% interval, and shares of images with Wilson's.

What is undefined (NaN) is left out; the mean of one image has no interval.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from pipeline.psychometric import wilson


def mean_with_interval(values: np.ndarray, name: str) -> dict[str, float]:
    """{name, name_low, name_high} of values [N], NaN where there is none; {name}_images: how many are defined."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    mean = values.mean() if len(values) else np.nan
    spread = np.nan
    if len(values) > 1:
        spread = student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {name: mean, f"{name}_low": mean - spread, f"{name}_high": mean + spread, f"{name}_images": len(values)}


def share_with_interval(values: np.ndarray, name: str) -> dict[str, float]:
    """The same of values [N] that are 0 or 1."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan, f"{name}_images": 0}
    low, high = wilson(values.sum(), np.array(len(values)))
    return {name: values.mean(), f"{name}_low": float(low), f"{name}_high": float(high), f"{name}_images": len(values)}


def paired(mine: pd.Series, theirs: pd.Series, name: str = "gain") -> dict[str, float]:
    """The mean difference of two measures of the same images (index), with its interval."""
    return mean_with_interval((mine - theirs).to_numpy(), name)
