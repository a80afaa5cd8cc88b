"""What the published confusion matrices say of the document's own statements; no training (countclip, sections 4, 5).

    python -m pipeline.countclip.published_answers

Draws Figs. 3 to 5 from the same matrices. Which images were answered rightly is not published, only how many of each
number: what a paired test could give is bounded by that (`published.mcnemar_bounds`).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pipeline.countclip.captions import NUMBERS
from pipeline.countclip.drawing import draw_published_layout
from pipeline.countclip.paths import METRICS, PLOTS
from pipeline.countclip.published import (
    BALANCED,
    FIGURE_3,
    IMAGES,
    PRETRAINED,
    RICH,
    SHOWN,
    STATEMENTS,
    TABLE,
    UNTRAINED,
    matrix_of,
    mcnemar_bounds,
    published,
    read_answers,
)
from pipeline.countclip.shares import FEW_PAIRS, share, youden
from pipeline.stage import run, write_json

Answers = dict[tuple[str, str], np.ndarray]
READINGS = ("last", "best")


def accuracies(answers: Answers) -> list[dict]:
    """Right answers of every matrix, and per cent; also how far that is from what Table 1 and section 4 print."""
    rows = []
    for (configuration, reading), counts in answers.items():
        accuracy = 100 * np.trace(counts) / counts.sum()
        rows.append(
            {
                "configuration": configuration,
                "column": reading,
                "right": int(np.trace(counts)),
                "accuracy": accuracy,
                "off": abs(accuracy - published(configuration, reading)),
            }
        )
    return rows


def differences(answers: Answers) -> list[dict]:
    """The 24 differences that section 5 draws conclusions from, with the bounds of McNemar's p."""
    return [
        {
            "statement": statement,
            "better": better,
            "worse": worse,
            "column": reading,
            **mcnemar_bounds(matrix_of(answers, better, reading), matrix_of(answers, worse, reading)),
        }
        for statement, pairs in STATEMENTS.items()
        for reading in READINGS
        for better, worse in pairs
    ]


def told(counts: np.ndarray, number: int) -> dict[str, float | None]:
    """How well a number is told from the others: Youden's J of a matrix, with its interval."""
    true, answered = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), len(NUMBERS))
    place = NUMBERS.index(number)
    return youden(true == place, answered == place)


def learned(answers: Answers) -> dict:
    """Each number in the matrices of Fig. 3: right answers and Youden's J, beside those before training.

    models_above: of the four models, those whose J lies above the one before training.
    """
    before = answers[PRETRAINED, UNTRAINED]
    rows = []
    for place, number in enumerate(NUMBERS):
        base = told(before, number)
        models = []
        for configuration in FIGURE_3:
            counts = answers[configuration, "best"]
            models.append({"configuration": configuration, "right": counts[place, place], **told(counts, number)})
        changes = [model["youden"] - base["youden"] for model in models]
        rows.append(
            {
                "number": number,
                "images": before[place].sum(),
                "right_before": before[place, place],
                "youden_before": base["youden"],
                "models_above": sum(change > 0 for change in changes),
                "least_change": min(changes),
                "greatest_change": max(changes),
                "models": models,
            }
        )
    return {"by_number": rows, "models": len(FIGURE_3)}


def rarely(answers: Answers) -> list[dict]:
    """Share of images answered with seven to ten, of every matrix."""
    places = [place for place, number in enumerate(NUMBERS) if number >= FEW_PAIRS]
    rows = []
    for (configuration, reading), counts in answers.items():
        value, low, high = share(int(counts[:, places].sum()), int(counts.sum()))
        rows.append(
            {
                "configuration": configuration,
                "column": reading,
                "answered_7_to_10": value,
                "answered_7_to_10_low": low,
                "answered_7_to_10_high": high,
            }
        )
    return rows


def rich(answers: Answers) -> dict:
    """Right answers to images of two and three, a balanced lambda against lambda = 1, both with scheduler."""
    rows = [
        {
            "better": better,
            "worse": worse,
            "column": reading,
            "overall": int(np.trace(answers[better, reading]) - np.trace(answers[worse, reading])),
            **mcnemar_bounds(answers[better, reading], answers[worse, reading], RICH),
        }
        for reading in READINGS
        for better, worse in STATEMENTS[BALANCED]
    ]
    return {
        "numbers": list(RICH),
        "pairs": rows,
        "share_weaker": float(np.mean([row["images"] < 0 for row in rows])),
        "weaker_beyond_chance": sum(row["verdict"] == "the opposite stands" for row in rows),
    }


def balance() -> dict:
    """Of the images behind the matrices: of how many each number is shown, and whether that is even but for chance."""
    from scipy.stats import chisquare

    return {"least": min(SHOWN), "most": max(SHOWN), "even_p": float(chisquare(SHOWN).pvalue)}


def main() -> str:
    answers = read_answers()
    found = differences(answers)
    draw_published_layout(answers, PLOTS, "published")
    cells = accuracies(answers)
    write_json(
        METRICS / "published_answers.json",
        {
            "images": IMAGES,
            "matrices": len(answers),
            "cells_as_printed": sum(cell["off"] <= 0.005 for cell in cells if cell["column"] != UNTRAINED),
            "accuracy": cells,
            "differences": found,
            "verdicts": dict(sorted(Counter(row["verdict"] for row in found).items())),
            "learned": learned(answers),
            "answered_7_to_10": rarely(answers),
            "two_and_three": rich(answers),
            "images_of_a_number": balance(),
        },
    )
    counts = Counter(row["verdict"] for row in found)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return f"{len(TABLE)} configurations; of {len(found)} differences {verdicts};"


if __name__ == "__main__":
    run(main)
