"""Means over images with Student's 95% interval, and shares of images with Wilson's; means over images and networks.

What is undefined (NaN) is left out; the mean of one image, or network, has no interval.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pipeline.psychometric import wilson


def mean_with_interval(values: np.ndarray, name: str) -> dict[str, float]:
    """{name, name_low, name_high} of values [N], NaN where there is none; {name}_images: how many are defined."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    mean = values.mean() if len(values) else np.nan
    spread = np.nan
    if len(values) > 1:
        spread = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
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


def mean_of_draws(values: pd.DataFrame, name: str) -> dict[str, float]:
    """{name, name_low, name_high} of values, a row an image and a column a draw of a network; NaN where there is none.

    An image counts by the mean of its draws. The interval is for other images and other draws: Student's, of the
    variance of the images' means and that of the draws (jackknife) together, with Welch's degrees of freedom.
    {name}_images, {name}_draws: how many have a value; {name}_maps: values.
    """
    known = values.dropna(axis=0, how="all").dropna(axis=1, how="all").to_numpy(dtype=float)
    there, (n, draws) = ~np.isnan(known), known.shape
    of_images = np.nanmean(known, axis=1)
    mean = of_images.mean() if n else np.nan
    spread = np.nan
    if n > 1 and draws > 1:
        # the mean without each draw: one that has few of the images moves it little
        total, number = np.nansum(known, axis=1, keepdims=True), there.sum(axis=1, keepdims=True) - there
        others = np.divide(total - np.nan_to_num(known), number, out=np.full((n, draws), np.nan), where=number > 0)
        without = np.nanmean(others, axis=0)
        variances = np.array([of_images.var(ddof=1) / n, (draws - 1) * without.var()])
        freedom = variances.sum() ** 2 / (variances**2 / [n - 1, draws - 1]).sum() if variances.any() else 1
        spread = stdtrit(freedom, 0.975) * np.sqrt(variances.sum())
    numbers = {f"{name}_images": n, f"{name}_draws": draws, f"{name}_maps": int(there.sum())}
    return {name: mean, f"{name}_low": mean - spread, f"{name}_high": mean + spread, **numbers}


def share_of_draws(values: pd.DataFrame, name: str) -> dict[str, float]:
    """The same of values that are 0 or 1: Wilson's interval, as if each image had one draw, so rather too wide."""
    return mean_of_draws(values, name) | share_with_interval(values.mean(axis=1).to_numpy(), name)
