"""What the paper's own numbers say of its schemes and statements; no training (countclip, sections 2.1 to 2.3, 5).

    python -m pipeline.countclip.definitions

Exact: taken from the published class frequencies (Fig. 2) and accuracies (Table 1).
"""

from __future__ import annotations

import numpy as np

from pipeline.countclip.authors import FREQUENCIES
from pipeline.countclip.losses import balanced_lambda
from pipeline.countclip.table1 import BASELINE, IMAGES, STATEMENTS, TABLE, published, published_test
from pipeline.stage import run, write_json

COUNTBENCH = 540


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
        "steps_of_10_epochs": 10 * sum(counts),
    }


def schemes() -> dict[str, float]:
    """Least and greatest weight of each scheme at lambda_0 = 1, and the class that weighs least."""
    found = {}
    for scheme in ("norm", "modal", "log"):
        weights = balanced_lambda(FREQUENCIES, scheme)
        found[scheme] = {
            "least": min(weights.values()),
            "most": max(weights.values()),
            "lightest_class": min(weights, key=lambda number: weights[number]),
        }
    return found


def accuracies() -> dict:
    """Of Table 1 as printed: gain over the baseline, how often a statement's sign holds, what 509 images can tell."""
    best = max(row.published["best"] for row in TABLE)
    whole = [
        abs(percent - round(100 * round(percent * IMAGES / 100) / IMAGES, 2)) <= 0.011
        for row in TABLE
        for percent in row.published.values()
    ]
    signs = {}
    for statement, pairs in STATEMENTS.items():
        tests = [
            published_test(published(better, column), published(worse, column))
            for better, worse in pairs
            for column in ("last", "best")
        ]
        signs[statement] = {
            "pairs": len(tests),
            "share_in_favour": float(np.mean([test["images"] > 0 for test in tests])),
            "stand": sum(test["verdict"] == "stands" for test in tests),
        }
    gain = published_test(best, BASELINE)
    return {
        "best_over_baseline": best - BASELINE,
        "best_over_baseline_in_images": gain["images"],
        "best_over_baseline_verdict": gain["verdict"],
        "all_are_whole_images_of_509": float(np.mean(whole)),
        "images_missing": COUNTBENCH - IMAGES,
        "count_plus_below_baseline": {
            column: sum(row.published[column] < BASELINE for row in TABLE if row.plus) for column in ("last", "best")
        },
        "statements": signs,
    }


def main() -> str:
    found = {"frequencies": frequencies(), "schemes": schemes(), "table_1": accuracies()}
    write_json("metrics/countclip/definitions.json", found)
    return "definitions checked on published numbers"


if __name__ == "__main__":
    run(main)
