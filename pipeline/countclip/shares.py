"""Shares of images with their intervals, for answers of networks that ran here and for published ones alike."""

from __future__ import annotations

import numpy as np

from pipeline.statistics.intervals import newcombe, wilson

FEW_PAIRS = 7  # from this number on the paper had fewer than 20 pairs of each to learn from (section 5)


def share(count: int, of: int) -> tuple[float, float, float]:
    """count / of, with Wilson's 95% interval."""
    low, high = wilson(np.array(count), np.array(of))
    return count / of, float(low), float(high)


def youden(positive: np.ndarray, called: np.ndarray) -> dict[str, float | None]:
    """Youden's J of bool [N], the share called so of the positive minus that of the others, with Newcombe's interval.

    0 for who calls both alike often, as by guessing; None where either are none.
    """
    if positive.all() or not positive.any():
        return {"youden": None, "youden_low": None, "youden_high": None}
    hits, false_alarms = (share(int(called[of].sum()), int(of.sum())) for of in (positive, ~positive))
    low, high = newcombe(hits, false_alarms)
    return {"youden": hits[0] - false_alarms[0], "youden_low": low, "youden_high": high}
