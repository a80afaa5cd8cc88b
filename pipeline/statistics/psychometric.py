"""Psychometric functions: how the fraction of 'circle' answers grows with the margin.

    p(m) = lapse + (1 - 2 lapse) * logistic(intercept + slope * m),    0 <= lapse <= 0.1

m is the margin, circles - squares. The point of subjective equality (PSE) is the margin at which
both answers are equally likely, -intercept / slope: 0 without bias, negative where the network favours circles. The
slope is in logits a shape. A lapse is an answer that the margin does not explain, in either
direction alike. Wichmann & Hill (2001), Perception & Psychophysics 63, 1293-1313.

The fit maximises the binomial likelihood times a weak normal prior on the two logistic
coefficients (standard deviations 20 on the intercept, 2.5 a shape on the slope), which keeps the
estimate finite where the answers separate perfectly. The lapse is profiled on a grid of 0.01.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, ndtr, xlog1py, xlogy

from pipeline.statistics.intervals import over_runs, wilson

if TYPE_CHECKING:
    import pandas as pd

LAPSES = np.linspace(0, 0.1, 11)
PRIOR_SD = np.array([20.0, 2.5])  # of intercept and slope
ITERATIONS = 50
Link = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # the share F, and its derivative
FLAT = 1e-3  # a slope of so few logits a shape is none


def logit(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logistic function of z, and its derivative."""
    share = expit(z)
    return share, share * (1 - share)


def probit(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The normal distribution function of z, and its density."""
    return ndtr(z), np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class Fit:
    """pse and slope with 95% bootstrap intervals; None where undefined (see `fit`)."""

    pse: float | None
    pse_interval: tuple[float | None, float | None]
    intercept: float
    slope: float
    slope_interval: tuple[float, float]
    lapse: float


def probability(margins: np.ndarray, intercept: float, slope: float, lapse: float) -> np.ndarray:
    """p(circle) at each margin."""
    return lapse + (1 - 2 * lapse) * expit(intercept + slope * margins)


def maximise(margins: np.ndarray, circle: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit many data sets at once.

    margins, total: [M]. circle: number of 'circle' answers, [..., M]. Returns the coefficients
    (intercept, slope) [..., 2] of the logit, and the lapse [...].
    """
    design = np.stack([np.ones_like(margins, dtype=float), margins], axis=1)
    return maximise_design(design, circle, total, PRIOR_SD, np.array([0.0, 0.1]))


def maximise_design(
    design: np.ndarray,
    circle: np.ndarray,
    total: np.ndarray,
    prior_sd: np.ndarray,
    start: np.ndarray,
    link: Link = logit,
) -> tuple[np.ndarray, np.ndarray]:
    """The same of any linear predictor: p = lapse + (1 - 2 lapse) F(design @ coefficients).

    design: [M, K]. circle: number of 'circle' answers, [..., M], of total [M]. prior_sd, start: [K]. Returns the
    coefficients [..., K] and the lapse [...].
    """
    squares = np.einsum("mi,mj->mij", design, design).reshape(len(design), -1)
    rest = (1 - 2 * LAPSES)[:, None]  # [L, 1]
    precision = np.diag(prior_sd**-2.0)

    def posterior(beta: np.ndarray, circle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        share, density = link(beta @ design.T)  # [N, L, M]
        p = np.clip(LAPSES[:, None] + rest * share, 1e-12, 1 - 1e-12)
        log_likelihood = xlogy(circle[:, None], p) + xlog1py((total - circle)[:, None], -p)
        return log_likelihood.sum(-1) - 0.5 * ((beta / prior_sd) ** 2).sum(-1), p, rest * density

    # who answers the same to nearly every image has few resamples that differ; each is fitted once
    shape = circle.shape[:-1]
    circle, which = np.unique(circle.reshape(-1, len(design)), axis=0, return_inverse=True)
    # Fisher scoring, with each step halved until it no longer makes things worse
    beta = np.broadcast_to(start, (len(circle), len(LAPSES), len(start))).copy()
    height, p, slope = posterior(beta, circle)
    for _ in range(ITERATIONS):
        variance = p * (1 - p)
        score = (slope / variance * (circle[:, None] - total * p)) @ design - beta @ precision
        information = (total * slope**2 / variance) @ squares
        information = information.reshape(*beta.shape, len(start)) + precision
        step = np.linalg.solve(information, score[..., None])[..., 0]
        worse, tried = np.zeros(height.shape, dtype=bool), np.arange(len(circle))
        for _ in range(12):
            proposed, *_ = posterior(beta[tried] + step[tried], circle[tried])
            worse[tried] = proposed < height[tried] - 1e-9  # not for the rounding at the top
            tried = np.flatnonzero(worse.any(axis=1))
            if not len(tried):
                break
            step[worse] /= 2
        step[worse] = 0
        beta += step
        height, p, slope = posterior(beta, circle)
        if np.abs(step).max() < 1e-6:
            break
    best = height.argmax(axis=-1)
    coefficients = np.take_along_axis(beta, best[:, None, None], axis=1)[:, 0]
    return coefficients[which].reshape(*shape, len(start)), LAPSES[best][which].reshape(shape)


def fit(margins: np.ndarray, circle: np.ndarray, total: np.ndarray, rng: np.random.Generator, resamples: int) -> Fit:
    """Fit one psychometric function; intervals are percentiles over resampled trials.

    margins, circle, total: [M], with `circle` of `total` answers 'circle' at each margin.

    The PSE is undefined (None) where the slope's interval reaches 0: where the answers do not rise
    with the margin, there is no boundary. A bound of its interval is None where it is infinite,
    because in the resamples that reach it the slope is not positive.
    """
    (intercept, slope), lapse = maximise(margins, circle, total)
    observed = np.divide(circle, total)
    betas, _ = maximise(margins, rng.binomial(total, observed, size=(resamples, len(margins))), total)
    slope_low, slope_high = np.quantile(betas[:, 1], [0.025, 0.975])
    rising = betas[:, 1] > FLAT
    pses = np.where(rising, -betas[:, 0] / np.where(rising, betas[:, 1], 1), -np.sign(betas[:, 0]) * np.inf)
    defined = slope_low > FLAT
    bounds = np.quantile(pses, [0.025, 0.975], method="nearest")
    return Fit(
        pse=float(-intercept / slope) if defined else None,
        pse_interval=tuple(float(b) if defined and np.isfinite(b) else None for b in bounds),
        intercept=float(intercept),
        slope=float(slope),
        slope_interval=(float(slope_low), float(slope_high)),
        lapse=float(lapse),
    )


def rates(trials: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and fraction of 'circle' answers, with intervals, by observer and condition.

    A trial that no answer gets right (`correct` is null: a tie under soft targets) counts half.
    """
    scored = trials.assign(
        accuracy=trials["correct"].astype("Float64").fillna(0.5).astype(float),
        circle=(trials["response"] == "circle").astype(float),
    )
    groups = scored.groupby(["observer", "condition"], observed=True, sort=False)
    table = groups.agg(images=("circle", "size"), accuracy=("accuracy", "sum"), circle=("circle", "sum"))
    for name in ("accuracy", "circle"):
        table[f"{name}_low"], table[f"{name}_high"] = wilson(table[name], table["images"])
        table[name] /= table["images"]
    return table


def describe(margins: pd.DataFrame, rng: np.random.Generator, resamples: int) -> dict[str, float | None]:
    """The fit to one observer's answers, with intervals. margins: 'margin', 'circle' (a fraction) and 'images'."""
    found = fit(
        margins["margin"].to_numpy(),
        (margins["circle"] * margins["images"]).round().to_numpy().astype(int),
        margins["images"].to_numpy(),
        rng=rng,
        resamples=resamples,
    )
    (pse_low, pse_high), (slope_low, slope_high) = found.pse_interval, found.slope_interval
    return {
        "pse": found.pse,
        "pse_low": pse_low,
        "pse_high": pse_high,
        "intercept": found.intercept,
        "slope": found.slope,
        "slope_low": slope_low,
        "slope_high": slope_high,
        "lapse": found.lapse,
    }


def describe_runs(cells: pd.DataFrame, rng: np.random.Generator, resamples: int) -> dict[str, Any]:
    """A fit to each training run of one observer, and their means with intervals over images and runs.

    cells: a row a margin, with 'margin', 'images' and 'circle_by_run' (each run's fraction). runs: how many.
    pse, slope: undefined where that of a run is, and so is a bound. pse_by_run, slope_by_run, intercept_by_run,
    lapse_by_run: lists.
    """
    import pandas as pd

    by_run = np.array(cells["circle_by_run"].tolist()).T  # [runs, margins]
    of_runs = [describe(cells[["margin", "images"]].assign(circle=circle), rng, resamples) for circle in by_run]
    fits = pd.DataFrame(of_runs).astype(float)
    row: dict[str, Any] = {"runs": len(fits)}
    for name in ("pse", "slope"):
        bounds = over_runs(*(fits[f"{name}{suffix}"].to_numpy() for suffix in ("", "_low", "_high")))
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
    return row | {f"{name}_by_run": fits[name].tolist() for name in ("pse", "slope", "intercept", "lapse")}
