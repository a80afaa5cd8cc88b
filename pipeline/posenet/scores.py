"""How well a predicted map tells position: Spearman's correlation and mean absolute error (posenet, section 2.3)."""

from __future__ import annotations

import numpy as np

CONSTANT = 1e-5  # a map that varies by less, of targets in 0..1, varies by rounding errors alone


def score(prediction: np.ndarray, target: np.ndarray) -> tuple[float | None, float]:
    """Spearman's rank correlation, in -1..1, and mean absolute error of a map [H, W] against its target [H, W].

    The correlation of a constant map is undefined: None (in the published table, 'NaN'); constant is what varies
    by less than CONSTANT, or by less than that share of its values where they are larger. Raises ValueError
    where the two are not of one size.
    """
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(f"two maps [H, W] of one size are needed; found {prediction.shape}, {target.shape}")
    spearman, error = score_maps(prediction[None], target)
    return (None if np.isnan(spearman[0]) else float(spearman[0])), float(error[0])


def score_maps(predictions: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `score`, of many maps [..., H, W] against one target [H, W]; NaN where undefined.

    So is the correlation of a map that is not finite, as training leaves it that diverges; its error is not finite.
    """
    from scipy.stats import rankdata  # a second's import, which stages that score nothing need not wait for

    shape = predictions.shape[:-2]
    with np.errstate(invalid="ignore", over="ignore"):
        most, least = predictions.max(axis=(-2, -1)), predictions.min(axis=(-2, -1))
        varies = most - least > CONSTANT * np.maximum(np.maximum(most, -least), 1)
        ranks = rankdata(predictions.reshape(*shape, -1), axis=-1)
        true = rankdata(target)
        ranks = ranks - ranks.mean(axis=-1, keepdims=True)
        true = true - true.mean()
        spread = np.sqrt((ranks**2).sum(axis=-1) * (true**2).sum())
        defined = (spread > 0) & varies & np.isfinite(most) & np.isfinite(least)
        spearman = np.where(defined, (ranks @ true) / spread, np.nan)
        return np.clip(spearman, -1, 1), np.abs(predictions - target).mean(axis=(-2, -1))
