"""What the paper's own numbers say of its schemes and statements; no training (countclip, sections 1 to 5).

    python -m pipeline.countclip.definitions

Exact: taken from the published class frequencies (Fig. 2), amounts (section 4) and accuracies (Table 1).
"""

from __future__ import annotations

import numpy as np

from pipeline.countclip.losses import balanced_lambda
from pipeline.countclip.published import (
    BALANCED,
    BASELINE,
    COUNTCLIP,
    FREQUENCIES,
    IMAGES,
    PAISS,
    RICH,
    STATEMENTS,
    TABLE,
    published,
)
from pipeline.stage import run, write_json

COUNTBENCH = 540
READINGS = ("last", "best")


def straightness(values: list[float]) -> float:
    """R2 of the straight line through values against their places."""
    places = np.arange(len(values))
    return float(np.corrcoef(places, values)[0, 1] ** 2)


def frequencies() -> dict[str, float]:
    """Of the published counting set; straightness of its frequencies, and of their logarithms as Fig. 2 has them."""
    counts = [FREQUENCIES[number] for number in sorted(FREQUENCIES)]
    logarithm = np.log2(counts)
    return {
        "pairs": sum(counts),
        "most_of_classes_7_to_10": max(FREQUENCIES[number] for number in range(7, 11)),
        "straightness": straightness(counts),
        "straightness_log2": straightness(logarithm),
        "straightness_log2_log2": straightness(np.log2(logarithm)),
        "share_of_two_and_three": sum(FREQUENCIES[number] for number in RICH) / sum(counts),
    }


def sizes() -> dict[str, float]:
    """Steps as the document counts its images and as Fig. 2 does, and how much more the original trained on."""
    return {
        "steps": COUNTCLIP.steps,
        "steps_of_figure_2": COUNTCLIP.epochs * sum(FREQUENCIES.values()),  # a batch has one counting pair
        "images_of_original": PAISS.images,
        "images": COUNTCLIP.images,
        "times_smaller": PAISS.images / COUNTCLIP.images,
    }


def schemes() -> dict[str, float]:
    """Least and greatest weight of each scheme at lambda_0 = 1, and the class that weighs least."""
    found = {}
    for scheme in ("norm", "modal", "log", "log_once"):
        weights = balanced_lambda(FREQUENCIES, scheme)
        found[scheme] = {
            "least": min(weights.values()),
            "most": max(weights.values()),
            "lightest_class": min(weights, key=lambda number: weights[number]),
        }
    return found


def favour(pairs: list[tuple[str, str]]) -> float:
    """Share of the published differences, at both epochs, in which the first is better."""
    return float(np.mean([published(a, column) > published(b, column) for a, b in pairs for column in READINGS]))


def accuracies() -> dict:
    """Of Table 1 as printed: gain over the baseline, how often a statement's sign holds."""
    best = max(row.published["best"] for row in TABLE)
    whole = [
        abs(percent - round(100 * round(percent * IMAGES / 100) / IMAGES, 2)) <= 0.011
        for row in TABLE
        for percent in row.published.values()
    ]
    plus = {column: [row.published[column] >= BASELINE for row in TABLE if row.plus] for column in READINGS}
    return {
        "best_over_baseline": best - BASELINE,
        "best_over_baseline_in_images": round(best * IMAGES / 100) - round(BASELINE * IMAGES / 100),
        "all_are_whole_images_of_509": float(np.mean(whole)),
        "images_missing": COUNTBENCH - IMAGES,
        "share_of_count_plus_at_or_above_baseline": {column: float(np.mean(plus[column])) for column in READINGS},
        "statements": {
            statement: {"pairs": len(pairs) * len(READINGS), "share_in_favour": favour(pairs)}
            for statement, pairs in STATEMENTS.items()
        },
        "balanced_scheme_most_in_favour": max(favour([pair]) for pair in STATEMENTS[BALANCED]),
    }


def main() -> str:
    found = {"frequencies": frequencies(), "sizes": sizes(), "schemes": schemes(), "table_1": accuracies()}
    write_json("metrics/countclip/definitions.json", found)
    return "definitions checked on published numbers"


if __name__ == "__main__":
    run(main)
