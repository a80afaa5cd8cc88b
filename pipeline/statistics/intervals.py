"""Intervals, 95% unless said otherwise: of means (Student), shares (Wilson), differences of shares, means of draws.

What is undefined (NaN) is left out; the mean of one image, or network, has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

Interval = dict[str, float | int | None]


def wilson(successes: np.ndarray, total: np.ndarray, alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a proportion, 95% by default. Successes may be fractional (a tie counts half)."""
    z = ndtri(1 - alpha / 2)
    centre = (successes + z**2 / 2) / (total + z**2)
    spread = z / (total + z**2) * np.sqrt(successes * (total - successes) / total + z**2 / 4)
    return np.clip(centre - spread, 0, 1), np.clip(centre + spread, 0, 1)


def newcombe(more: tuple[float, float, float], less: tuple[float, float, float]) -> tuple[float, float]:
    """Interval of the difference of two independent shares, each given with its Wilson bounds (share, low, high).

    Newcombe (1998), Statistics in Medicine 17, 873-890, method 10; of the same level as the bounds.
    """
    (a, a_low, a_high), (b, b_low, b_high) = more, less
    return a - b - float(np.hypot(a - a_low, b_high - b)), a - b + float(np.hypot(a_high - a, b - b_low))


def agresti_min(gained: int, lost: int, total: int) -> tuple[float, float]:
    """95% interval of (gained - lost) / total for paired proportions: Wald's with half a trial more in each cell.

    Agresti and Min (2005), Statistics in Medicine 24, 729-740; cut off at -1 and 1. NaN of no trials.
    """
    if not total:
        return np.nan, np.nan
    b, c, n = gained + 0.5, lost + 0.5, total + 2
    spread = ndtri(0.975) * np.sqrt(b + c - (b - c) ** 2 / n) / n
    return max((b - c) / n - spread, -1.0), min((b - c) / n + spread, 1.0)


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


def over_networks(values: np.ndarray) -> Interval:
    """Mean of one value a network [N], with Student's interval; None for the bounds where there is one network."""
    n = len(values)
    mean = float(values.mean()) if n else None
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "networks": n}
    reach = stdtrit(n - 1, 0.975) * values.std(ddof=1) / n**0.5
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "networks": n}


def jackknifed(statistic: Callable[[np.ndarray], float], n: int) -> Interval:
    """A statistic of networks, given by their places [K], with Student's interval over all n by the jackknife.

    Tukey's: the spread of the statistic without each network in turn. Resampling so few networks would make intervals
    too short. None for the bounds where the statistic is undefined without one of them.
    """
    value = statistic(np.arange(n))
    without = np.array([statistic(np.delete(np.arange(n), i)) for i in range(n)]) if n > 2 else np.array([np.nan])
    if np.isnan(without).any():
        return {"value": value, "low": None, "high": None}
    reach = float(stdtrit(n - 1, 0.975) * ((n - 1) * without.var()) ** 0.5)
    return {"value": value, "low": value - reach, "high": value + reach}


def over_runs_and_images(values: np.ndarray, alpha: float = 0.05) -> dict[str, float]:
    """mean, low and high of values [runs, images], 95% by default; those undefined are left out; NaN of too few.

    For other images and other training runs: a variance component of each, with Student's t for its own number. Of one
    run, the interval covers images alone; of one image, runs alone; of one run and image, there is none.
    Simulated (tests/statistics/test_runs.py), it holds the mean in 93 to 97% of cases with three runs or more.
    """
    values = values[~np.isnan(values).all(axis=1)][:, ~np.isnan(values).all(axis=0)]
    if not values.size:
        return {"mean": np.nan, "low": np.nan, "high": np.nan}
    mean, images = float(np.nanmean(values)), values.shape[1]
    squared = _reach_of_runs(values, alpha) ** 2
    if images > 1:
        squared += (stdtrit(images - 1, 1 - alpha / 2) * np.nanmean(values, axis=0).std(ddof=1)) ** 2 / images
    reach = squared**0.5 if values.size > 1 else np.nan
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def share_over_runs(values: np.ndarray, alpha: float = 0.05) -> tuple[float, float, float]:
    """The mean of values [runs, images] that are 0 or 1 (a tie: 0.5), and the bounds of its interval, 95% by default.

    As `over_runs_and_images`, with Wilson's interval for images: of as many images as would vary as much, if each had
    one answer. So many runs that agree on every image count as one.
    """
    runs, images = values.shape
    share, number = float(values.mean()), float(images)
    if runs > 1 and (of_images := values.mean(axis=0).var(ddof=1)) > 0:
        number = float(np.clip(share * (1 - share) / of_images * images, images, runs * images))
    low, high = wilson(np.array(share * number), np.array(number), alpha)
    reach = _reach_of_runs(values, alpha)
    return share, max(share - math.hypot(share - low, reach), 0.0), min(share + math.hypot(high - share, reach), 1.0)


def _reach_of_runs(values: np.ndarray, alpha: float = 0.05) -> float:
    """Half the interval of the mean of values [runs, images] as far as runs differ, beyond their answers' noise."""
    runs, images = values.shape
    if runs < 2:
        return 0.0
    of_runs, of_images = (np.nanmean(values, axis=axis, keepdims=True) for axis in (1, 0))
    variance = of_runs.var(ddof=1)
    if images > 1:  # what is left of each answer once its run and image are known adds this to the variance
        left = values - of_runs - of_images + np.nanmean(values)
        known = np.count_nonzero(~np.isnan(values))
        noise = np.nansum(left**2) / max(known - runs - images + 1, 1)
        variance = max(variance - noise * runs / known, 0.0)
    return float(stdtrit(runs - 1, 1 - alpha / 2) * (variance / runs) ** 0.5)


def over_runs(
    values: Sequence[float], low: Sequence[float], high: Sequence[float], alpha: float = 0.05
) -> tuple[float, float, float]:
    """The mean of one number a training run, each with its interval over images, and its interval over both.

    For what is not a mean over images. All runs were tested on the same images, so the reach over images is the runs'
    mean; Student's t over runs comes to it. Both hold the noise of single answers, so it is rather too wide.
    """
    known = np.array(values, dtype=float)
    reach = 0.0
    if (runs := len(known)) > 1:
        reach = float(stdtrit(runs - 1, 1 - alpha / 2) * known.std(ddof=1) / runs**0.5)
    mean = float(known.mean())
    below, above = float(np.mean(known - low)), float(np.mean(high - known))
    return mean, mean - math.hypot(below, reach), mean + math.hypot(above, reach)


def reach_over_runs(low: float, high: float, *runs: list[float]) -> float | None:
    """Half a 95% interval that takes other images and other training runs into account.

    low, high: the interval over images. runs: of each mean that takes part, what each run gave; one value has no
    spread, as the pre-trained network, which has no runs. To the squared reach over images comes that over runs,
    Student's t with the runs' own spread; None where nothing was run twice.
    """
    several = [values for values in runs if len(values) > 1]
    if not several:
        return None
    squared = sum(float(np.var(values, ddof=1)) / len(values) for values in several)
    free = sum(len(values) - 1 for values in several)
    return math.hypot((high - low) / 2, stdtrit(free, 0.975) * squared**0.5)
