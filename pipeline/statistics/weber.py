"""Weber's law in choices between two numbers: what do answers follow, and how finely are numbers told apart?

An observer says which of two kinds is in the majority, of n1 circles and n2 squares. Weber's law: the answers follow
the ratio of the numbers, whatever their size. Three predictors, each with a psychometric function of its own:

    difference    n1 - n2
    ratio         (n1 - n2) / (n1 + n2)       the relative margin
    log_ratio     log(n1 / n2)

They are compared by the log-likelihood of answers that were held out of the fit.

The Weber fraction w is that of the linear model with scalar variability: an observer perceives n as a normal number
with mean n and standard deviation w n. Without a bias

    p(right) = 1 - erfc(|n1 - n2| / (sqrt(2) w sqrt(n1^2 + n2^2))) / 2 = Phi(|n1 - n2| / (w sqrt(n1^2 + n2^2)))

Pica, Lemer, Izard & Dehaene (2004), Science 306, 499-503; Halberda & Feigenson (2008), Developmental Psychology 44,
1457-1465. People are asked for the majority, as these networks are, so that w is the same quantity in both. Here

    p(circle) = lapse + (1 - 2 lapse) Phi(bias + (n1 - n2) / (w sqrt(n1^2 + n2^2))),    0 <= lapse <= 0.1

A bias is a criterion away from even: a network has one, a person in such an experiment hardly. Without it, w would
take a bias for noise. It may differ between groups of images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.statistics.psychometric import logit, maximise_design, probit

PREDICTORS = ("difference", "ratio", "log_ratio")
Z = 1.959964  # of 95%
FINE = 0.005  # steps of the relative margin that count as one
RESOLUTION = 0.02  # values of a predictor that are closer, in its standard deviations, count as one
PRIOR_SD = 20.0  # of criteria, and of slopes in logits a standard deviation: weak, for answers that separate perfectly
SHARPEST = 100.0  # prior standard deviation of 1 / w: weak, w is seldom below 0.05
FLAT = 1e-3  # a 1 / w of so little is none


def predictors(circles: np.ndarray, squares: np.ndarray) -> dict[str, np.ndarray]:
    """The three predictors of images [N], each divided by its standard deviation, float [N].

    Raises ValueError where a number is 0, which has no log ratio.
    """
    circles, squares = np.asarray(circles, float), np.asarray(squares, float)
    if (circles < 1).any() or (squares < 1).any():
        raise ValueError("an image without circles, or without squares, has no log ratio; leave it out")
    difference = circles - squares
    found = {
        "difference": difference,
        "ratio": difference / (circles + squares),
        "log_ratio": np.log(circles / squares),
    }
    return {name: values / (values.std() or 1.0) for name, values in found.items()}


def folds_of(sets: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold 0..folds-1 for each image, int [N]; every set of images is spread over all as evenly as can be."""
    found = np.empty(len(sets), dtype=int)
    for name in np.unique(sets):
        places = np.flatnonzero(sets == name)
        found[rng.permutation(places)] = (np.arange(len(places)) + rng.integers(folds)) % folds
    return found


def design_of(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """A column of ones for each group, and x: float [N, groups + 1]."""
    return np.column_stack([*(groups == name for name in np.unique(groups)), x]).astype(float)


def held_out(x: np.ndarray, groups: np.ndarray, folds: np.ndarray, circle: np.ndarray) -> np.ndarray:
    """Log-likelihood (nats) of each answer, by a logistic function with lapse that was fitted to the other folds.

    x: float [N], a predictor in standard deviations. groups: [N], images of a group have a criterion of their own.
    folds: int [N]. circle: bool [observers, N], the answers. Returns float [observers, N].
    """
    rounded = np.round(x / RESOLUTION).astype(int)
    _, names = np.unique(groups, return_inverse=True)
    cells, of_image = np.unique(np.stack([names, rounded]), axis=1, return_inverse=True)
    design = design_of(cells[1] * RESOLUTION, cells[0])
    prior_sd, start = np.full(design.shape[1], PRIOR_SD), np.zeros(design.shape[1])
    found = np.empty(circle.shape)
    for fold in np.unique(folds):
        kept = folds != fold
        total = np.bincount(of_image[kept], minlength=len(design))
        count = np.stack([np.bincount(of_image[kept], row[kept], len(design)) for row in circle])
        there = total > 0
        beta, lapse = maximise_design(design[there], count[:, there], total[there], prior_sd, start)
        share, _ = logit(beta @ design.T)
        p = np.clip(lapse[:, None] + (1 - 2 * lapse[:, None]) * share, 1e-12, 1 - 1e-12)[:, of_image[~kept]]
        found[:, ~kept] = np.log(np.where(circle[:, ~kept], p, 1 - p))
    return found


def weber_fraction(
    circles: np.ndarray,
    squares: np.ndarray,
    groups: np.ndarray,
    circle: np.ndarray,
) -> dict[str, Any]:
    """w of one observer, with its 95% interval over images (of 1 / w, from the curvature of the likelihood).

    circles, squares: int [N], how many there were. groups: [N], images of a group have a bias of their own. circle:
    bool [N], the answers.

    weber_fraction, low, high: None with a `reason` where undefined. sensitivity, sensitivity_low, sensitivity_high:
    1 / w, which is defined wherever the answers do not separate perfectly. bias: by group, in standard deviations of
    the perceived difference, above 0 for circles. lapse: 0..0.1.
    """
    nothing = dict.fromkeys(("weber_fraction", "low", "high", "sensitivity", "sensitivity_low", "sensitivity_high"))
    circles, squares = np.asarray(circles, float), np.asarray(squares, float)
    x = (circles - squares) / np.hypot(circles, squares)
    names, of_group = np.unique(groups, return_inverse=True)
    if reason := why_undefined(x, of_group, circle):
        return {**nothing, "bias": None, "lapse": None, "reason": reason}
    rounded = np.round(x / FINE).astype(int)
    cells, of_image = np.unique(np.stack([of_group, rounded]), axis=1, return_inverse=True)
    design = design_of(cells[1] * FINE, cells[0])
    total, count = np.bincount(of_image), np.bincount(of_image, circle)
    prior_sd, start = np.r_[np.full(len(names), PRIOR_SD), SHARPEST], np.r_[np.zeros(len(names)), 1.0]
    beta, lapse = maximise_design(design, count, total, prior_sd, start, probit)
    share, density = probit(design @ beta)
    p = np.clip(lapse + (1 - 2 * lapse) * share, 1e-12, 1 - 1e-12)
    # the lapse is estimated too: what is known of 1 / w is what is left of it
    gradient = np.column_stack([design * ((1 - 2 * lapse) * density)[:, None], 1 - 2 * share])
    information = (gradient * (total / (p * (1 - p)))[:, None]).T @ gradient + np.diag(np.r_[prior_sd**-2.0, 1e-9])
    sensitivity, reach = float(beta[-1]), Z * float(np.linalg.inv(information)[-2, -2] ** 0.5)
    low, high = sensitivity - reach, sensitivity + reach
    found = {
        **nothing,
        "sensitivity": sensitivity,
        "sensitivity_low": low,
        "sensitivity_high": high,
        "bias": {str(name): float(value) for name, value in zip(names, beta, strict=False)},
        "lapse": float(lapse),
        "reason": None,
    }
    if low <= FLAT:
        return {**found, "reason": "the answers do not clearly rise with the relative margin"}
    return {**found, "weber_fraction": 1 / sensitivity, "low": 1 / high, "high": 1 / low}


def why_undefined(x: np.ndarray, groups: np.ndarray, circle: np.ndarray) -> str | None:
    """Why no finite w fits best, if none does. x: float [N], groups: int [N], circle: bool [N]."""
    if circle.all() or not circle.any():
        return "always the same answer"
    parts = [(x[groups == name], circle[groups == name]) for name in np.unique(groups)]
    mixed = [(values, answers) for values, answers in parts if answers.any() and not answers.all()]
    if not mixed:
        return "always the same answer to images of one density"
    if all(np.ptp(values) == 0 for values, _ in mixed):
        return "the same relative margin in all images of a density with both answers"
    if all(values[~answers].max() <= values[answers].min() for values, answers in mixed):
        return "the answers separate perfectly: w is below what these images can show"
    return None
