"""What the document published: Table 1, class frequencies (Fig. 2) and confusion matrices (Figs. 3 to 5).

The figures' numbers were read from their vectors in the ReScience edition of the document (resc/ReScience.pdf in
github.com/SforAiDl/CountCLIP, commit a15672d), so they are exact. published_answers.csv has the matrices: a row for
each true number, its images counted by the number answered.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.countclip.captions import NUMBERS
from pipeline.stage import UserError

ANSWERS = Path(__file__).with_name("published_answers.csv")
IMAGES = 509  # that the published accuracies are shares of; 31 of CountBench's 540 were missing
SHOWN = (56, 57, 57, 49, 58, 58, 57, 60, 57)  # images of each of the numbers 2..10
UNTRAINED = "untrained"  # the reading of the network before any training, whose configuration is 'pretrained'
PRETRAINED = "pretrained"
RICH = (2, 3)  # the numbers with the most pairs, 85% of Fig. 2's
ALPHA = 0.05
BASELINE = 27.5  # per cent, of the network before training (section 4)

# pairs of the counting set by number, 2,102 in all (Fig. 2 a; b and c agree)
FREQUENCIES = {2: 1353, 3: 428, 4: 182, 5: 64, 6: 35, 7: 15, 8: 11, 9: 8, 10: 6}


@dataclass(frozen=True)
class Recipe:
    """How much was trained on (section 4). A batch holds one counting pair in `one_in` pairs."""

    batch_size: int
    one_in: int
    counting_images: int
    epochs: int = 10

    @property
    def images(self) -> int:
        """Images of all kinds in one epoch, n_count / p."""
        return self.counting_images * self.one_in

    @property
    def steps(self) -> int:
        return self.epochs * self.images // self.batch_size


PAISS = Recipe(batch_size=32_768, one_in=32, counting_images=200_000)
COUNTCLIP = Recipe(batch_size=5, one_in=5, counting_images=2000)


@dataclass(frozen=True)
class Configuration:
    """A row of Table 1; published: per cent, by column, nothing where the table does not have it."""

    scheme: str
    scheduler: bool
    plus: bool
    published: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "-".join([self.scheme, *["scheduler"] * self.scheduler, *["plus"] * self.plus])

    @property
    def settings(self) -> list[str]:
        return [
            f"lambda={self.scheme}",
            f"countclip.training.scheduler={str(self.scheduler).lower()}",
            f"countclip.training.counterfactuals={'all' if self.plus else 'one'}",
        ]


TABLE = [
    Configuration(scheme, scheduler, plus, {"last": last, "best": best})
    for scheme, scheduler, plus, last, best in [
        ("one", False, False, 21.81, 25.15),
        ("one", True, False, 22.59, 25.93),
        ("norm", False, False, 21.61, 25.74),
        ("norm", True, False, 25.54, 25.54),
        ("norm", True, True, 26.92, 26.92),
        ("modal", False, False, 20.83, 26.13),
        ("modal", True, False, 19.84, 26.33),
        ("modal", True, True, 26.33, 28.88),
        ("log", False, False, 19.25, 24.56),
        ("log", True, False, 21.81, 27.90),
        ("log", True, True, 22.59, 27.50),
    ]
]
# 'We have tested the model by taking the logarithm once, however, it yielded poorer results' (section 2.3)
ONE_LOGARITHM = Configuration("log_once", True, False)
CONFIGURATIONS = [*TABLE, ONE_LOGARITHM]
BALANCED = "a balanced lambda helps"
# What section 5 concludes from the table, as pairs (this is better, than that); 'pretrained' is the baseline
STATEMENTS = {
    "the scheduler helps": [(f"{s}-scheduler", s) for s in ("one", "norm", "modal", "log")],
    "CountPlus helps": [(f"{s}-scheduler-plus", f"{s}-scheduler") for s in ("norm", "modal", "log")],
    BALANCED: [(f"{s}-scheduler", "one-scheduler") for s in ("norm", "modal", "log")],
    "fine-tuning exceeds the baseline": [("modal-scheduler-plus", "pretrained"), ("log-scheduler", "pretrained")],
}
FIGURE_3 = ("one-scheduler", "modal-scheduler-plus", "norm-scheduler-plus", "log-scheduler-plus")  # beside the baseline
UNPUBLISHED = {"the second logarithm helps": [("log-scheduler", ONE_LOGARITHM.name)]}


def published(name: str, column: str) -> float:
    """Accuracy in per cent of a configuration (Table 1) or of the network before training (section 4)."""
    return BASELINE if name == PRETRAINED else next(c.published[column] for c in TABLE if c.name == name)


def read_answers(path: Path = ANSWERS) -> dict[tuple[str, str], np.ndarray]:
    """{(configuration, reading): counts [9, 9], rows true, columns answered, both 2..10}, 23 in all.

    The reading is 'last' (10th epoch), 'best' (early stopping) or UNTRAINED. Raises UserError where a configuration is
    lacking, or a matrix does not have the images that were shown.
    """
    matrices: dict[tuple[str, str], dict[int, list[int]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            counts = [int(row[f"answered_{number}"]) for number in NUMBERS]
            matrices.setdefault((row["configuration"], row["reading"]), {})[int(row["number"])] = counts
    wanted = {(PRETRAINED, UNTRAINED), *((row.name, reading) for row in TABLE for reading in row.published)}
    if matrices.keys() != wanted:
        differing = ", ".join(map(" ".join, sorted(matrices.keys() ^ wanted)))
        raise UserError(f"{path}: should have Table 1's configurations, each at both epochs; differing: {differing}")
    for (configuration, reading), rows in matrices.items():
        shown = tuple(sum(counts) for counts in rows.values())
        if tuple(rows) != NUMBERS or shown != SHOWN:
            raise UserError(
                f"{path}: {configuration}, {reading}: should have {SHOWN} images of the numbers {NUMBERS}; "
                f"found {shown} of {tuple(rows)}"
            )
    return {key: np.array(list(rows.values())) for key, rows in matrices.items()}


def matrix_of(answers: dict[tuple[str, str], np.ndarray], configuration: str, reading: str) -> np.ndarray:
    """The matrix of a configuration; that of the network before training has one reading for both columns."""
    return answers[configuration, UNTRAINED if configuration == PRETRAINED else reading]


def mcnemar_bounds(better: np.ndarray, worse: np.ndarray, numbers: Sequence[int] = NUMBERS) -> dict:
    """What McNemar's exact test could give for two confusion matrices [9, 9] of the same images.

    Of the n images of a number, one model is right on a and the other on b. Both are right on max(0, a + b - n) of
    them at least and on min(a, b) at most. So the images that only one gets right are bounded, number by number.

    images: how many more the first gets right. least_p, most_p: the smallest and the largest p of all answers that
    the matrices allow. verdict: 'stands' where all are below 0.05 ('the opposite stands' where the first is worse),
    'cannot stand' where none is, else 'open'. Only images of `numbers` count.
    """
    from scipy.stats import binomtest  # a second of every stage that asks for the frequencies only

    places = [NUMBERS.index(number) for number in numbers]
    shown, others = better.sum(axis=1)[places], worse.sum(axis=1)[places]
    if (shown != others).any():
        raise ValueError(f"the same images are needed; found {shown.tolist()} and {others.tolist()} of {list(numbers)}")
    a, b = better.diagonal()[places], worse.diagonal()[places]
    more = int((a - b).sum())
    least_lost, most_lost = int((b - np.minimum(a, b)).sum()), int((b - np.maximum(0, a + b - shown)).sum())
    ps = [
        binomtest(lost, 2 * lost + more).pvalue if 2 * lost + more else 1.0 for lost in range(least_lost, most_lost + 1)
    ]
    if max(ps) < ALPHA:
        verdict = "stands" if more > 0 else "the opposite stands"
    else:
        verdict = "cannot stand" if min(ps) >= ALPHA else "open"
    return {"images": more, "least_p": float(min(ps)), "most_p": float(max(ps)), "verdict": verdict}


def published_test(better: str, worse: str, column: str) -> dict:
    """What the published matrices of two configurations say of their difference, see `mcnemar_bounds`."""
    answers = read_answers()
    return mcnemar_bounds(*(matrix_of(answers, name, column) for name in (better, worse)))
