"""Table 1: the paper's eleven configurations, several training runs of each, published beside ours.

    python -m pipeline.countclip.table1              # 3 runs of each
    python -m pipeline.countclip.table1 --runs 5     # two more; those that are done are not done again
    python -m pipeline.countclip.table1 --minutes 60 # starts none after an hour, and reports what there is

Each run is a DVC experiment of its own (`table1-modal-scheduler-plus-run1`), beside the workspace, so that
`dvc exp show`, `dvc exp apply` and `dvc plots diff` know it. An experiment belongs to a commit: after the next
one all are run again.

The published accuracies have one run each, and no answers image by image. All 22, and the baseline, are whole
numbers of 509 images, and of no other number of images between 300 and 540: 31 of CountBench's 540 were missing.
"""

from __future__ import annotations

import math
import subprocess
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest, bootstrap, fisher_exact, permutation_test, t
from tqdm import tqdm

from pipeline.countclip.captions import WORDS
from pipeline.params import load_params
from pipeline.stage import UserError, run, write_bytes, write_json

if TYPE_CHECKING:
    import pandas as pd

IMAGES = 509  # that the published accuracies are shares of
BASELINE = 27.5  # per cent, published (section 4)
COLUMNS = {"last": "end of the 10th epoch", "best": "maximum over epochs"}
RESAMPLES = 9999
ALPHA = 0.05


@dataclass(frozen=True)
class Configuration:
    """A row of Table 1; published: per cent, by column."""

    scheme: str
    scheduler: bool
    plus: bool
    published: dict[str, float]

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
# What section 5 concludes from the table, as pairs (this is better, than that); 'pretrained' is the baseline
STATEMENTS = {
    "the scheduler helps": [(f"{s}-scheduler", s) for s in ("one", "norm", "modal", "log")],
    "CountPlus helps": [(f"{s}-scheduler-plus", f"{s}-scheduler") for s in ("norm", "modal", "log")],
    "a balanced lambda helps": [(f"{s}-scheduler", "one-scheduler") for s in ("norm", "modal", "log")],
    "fine-tuning exceeds the baseline": [("modal-scheduler-plus", "pretrained"), ("log-scheduler", "pretrained")],
}


def published(name: str, column: str) -> float:
    return BASELINE if name == "pretrained" else next(c.published[column] for c in TABLE if c.name == name)


def published_test(better: float, worse: float) -> dict:
    """What two published accuracies (per cent) of the same 509 images can say, since no answers are published.

    independent_p: Fisher's exact test, as if on different images. least_p: the smallest that any answers could
    give McNemar's test, every image that differs being a gain. Where the first is below 0.05, the difference
    (or its opposite) stands; where the second is not, it cannot; between, it cannot be told.
    """
    right = [round(percent * IMAGES / 100) for percent in (better, worse)]
    independent = fisher_exact([[count, IMAGES - count] for count in right]).pvalue
    differing = abs(right[0] - right[1])
    least = binomtest(0, differing).pvalue if differing else 1.0
    if independent < ALPHA:
        verdict = "stands" if right[0] > right[1] else "the opposite stands"
    else:
        verdict = "cannot stand" if least >= ALPHA else "cannot be told"
    return {"images": right[0] - right[1], "independent_p": independent, "least_p": least, "verdict": verdict}


def paired_test(better: np.ndarray, worse: np.ndarray, seed: int) -> dict:
    """Difference of mean accuracy, with 95% interval over images and p, of correct answers [runs, images].

    Images are paired, and runs are averaged: the interval and the sign-flip permutation test take other images
    into account, and the runs that were made as they are.
    """
    difference = better.mean(axis=0) - worse.mean(axis=0)
    if not difference.any():
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    rng = np.random.default_rng(seed)
    test = permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, rng=rng
    )
    interval = bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng)
    low, high = interval.confidence_interval
    return {"difference": difference.mean(), "low": low, "high": high, "p": test.pvalue}


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
    return math.hypot((high - low) / 2, t.ppf(0.975, free) * squared**0.5)


def with_runs(test: dict, better: list[float], worse: list[float]) -> dict:
    """The test with 'low_runs' and 'high_runs', see `reach_over_runs`; None where `better` was run once."""
    reach = reach_over_runs(test["low"], test["high"], better, worse) if len(better) > 1 else None
    if reach is None:
        return {**test, "low_runs": None, "high_runs": None}
    return {**test, "low_runs": test["difference"] - reach, "high_runs": test["difference"] + reach}


def row(configuration: Configuration, column: str, correct: np.ndarray, seed: int) -> dict:
    """A cell of Table 1, in per cent, of correct answers [runs, images].

    'low' and 'high' are over images, with the runs that were made; 'low_runs' and 'high_runs' over both, None where
    there is one run.
    """
    mean = correct.mean(axis=0)
    rng = np.random.default_rng(seed)
    interval = bootstrap((mean,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    runs = (100 * correct.mean(axis=1)).tolist()
    accuracy, low, high = 100 * mean.mean(), 100 * interval.low, 100 * interval.high
    reach = reach_over_runs(low, high, runs)
    return {
        "configuration": configuration.name,
        "column": column,
        "published": configuration.published[column],
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "low_runs": None if reach is None else accuracy - reach,
        "high_runs": None if reach is None else accuracy + reach,
        "runs": runs,
    }


def experiment(configuration: Configuration, number: int) -> str:
    return f"table1-{configuration.name}-run{number}"


def existing() -> set[str]:
    """Names of the experiments of this commit."""
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], capture_output=True, text=True)
    if listed.returncode:
        raise UserError(f"dvc exp list: {listed.stderr.strip().splitlines()[-1]}")
    return set(listed.stdout.split())


def run_missing(wanted: list[tuple[Configuration, int]], minutes: float = math.inf) -> None:
    """Run the experiments that this commit does not have yet; start none after so many minutes."""
    start, there = time.monotonic(), existing()
    missing = [(configuration, n) for configuration, n in wanted if experiment(configuration, n) not in there]
    for configuration, number in tqdm(missing, "Table 1", unit="run", disable=None):
        if time.monotonic() - start > 60 * minutes:
            print(f"{minutes} minutes are over; run again to go on", flush=True)
            return
        settings = [*configuration.settings, f"countclip.training.run={number}"]
        options = [option for setting in settings for option in ("-S", setting)]
        name = experiment(configuration, number)
        command = ["dvc", "exp", "run", "--temp", "--name", name, *options, "evaluate_countclip"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{name}: {' '.join(command)}: {(done.stderr or done.stdout).strip()[-600:]}")
        print(f"{name}: done", flush=True)


def read_run(revision: str, weights: str) -> pd.DataFrame:
    """The trials of an experiment, images in order."""
    import dvc.api  # here: what else is in this module is used where there is no DVC

    from pipeline.predictions import read_predictions

    with dvc.api.open(f"data/countclip/predictions/{weights}.parquet", rev=revision, mode="rb") as file:
        path = Path(".checkpoints/table1.parquet")
        write_bytes(path, file.read())
    return read_predictions([path]).sort_values("image", ignore_index=True)


def summary(trials: dict[str, list[pd.DataFrame]], seed: int) -> dict:
    """Accuracy of every configuration, by column; the statements' tests; recall of each number by scheme.

    trials: '<configuration>/<column>' -> a table a run; 'pretrained' has one.
    """
    correct = {key: np.stack([t["correct"].to_numpy(float) for t in runs]) for key, runs in trials.items()}
    rows = [
        row(configuration, column, correct[f"{configuration.name}/{column}"], seed)
        for configuration, column in product(TABLE, COLUMNS)
    ]
    tests = []
    for (statement, pairs), column in product(STATEMENTS.items(), COLUMNS):
        for better, worse in pairs:
            ours = [correct[name if name == "pretrained" else f"{name}/{column}"] for name in (better, worse)]
            tests.append(
                {
                    "statement": statement,
                    "better": better,
                    "worse": worse,
                    "column": column,
                    "published": published_test(published(better, column), published(worse, column)),
                    "ours": with_runs(paired_test(*ours, seed), *(runs.mean(axis=1).tolist() for runs in ours)),
                }
            )
    recall = [
        {
            "configuration": key.partition("/")[0],
            "number": number,
            "recall": np.mean([t.loc[t["category"] == word, "correct"].mean() for t in runs]),
        }
        for key, runs in trials.items()
        if key == "pretrained" or key.endswith("/last")
        for number, word in WORDS.items()
    ]
    baseline = 100 * correct["pretrained"].mean()
    return {
        "images": correct["pretrained"].shape[1],
        "pretrained": baseline,
        "table": rows,
        "tests": tests,
        "recall": recall,
    }


def as_markdown(results: dict, scale: str, source: str) -> str:
    """The tables to read; the command that made them stands above."""
    lines = [
        f"# Table 1, published and here (`scale: {scale}`, `source: {source}`)",
        "",
        f"`python -m pipeline.countclip.table1`, {results['images']} images; pre-trained {results['pretrained']:.2f}% "
        f"here, {BASELINE}% published. Mean over runs with 95% interval over images [and each run].",
        "",
        "| configuration | " + " | ".join(f"{label}: published | here" for label in COLUMNS.values()) + " |",
        "|---" * (1 + 2 * len(COLUMNS)) + "|",
    ]
    by_cell = {(row["configuration"], row["column"]): row for row in results["table"]}
    for configuration in TABLE:
        parts = []
        for column in COLUMNS:
            row = by_cell[configuration.name, column]
            spread = ", ".join(f"{value:.1f}" for value in row["runs"])
            parts += [
                f"{row['published']:.2f}",
                f"{row['accuracy']:.2f} ({row['low']:.1f}, {row['high']:.1f}) [{spread}]",
            ]
        lines.append(f"| {configuration.name} | " + " | ".join(parts) + " |")
    lines += [
        "",
        "| statement | pair | column | published: images of 509, verdict | here: points (95%), p |",
        "|---|---|---|---|---|",
    ]
    for test in results["tests"]:
        theirs, ours = test["published"], test["ours"]
        low, mid, high = (100 * ours[key] for key in ("low", "difference", "high"))
        cells = [
            test["statement"],
            f"{test['better']} over {test['worse']}",
            test["column"],
            f"{theirs['images']:+d}, {theirs['verdict']} (p {theirs['least_p']:.2g} at least, "
            f"{theirs['independent_p']:.2g} if independent)",
            f"{mid:+.1f} ({low:.1f}, {high:.1f}), p {ours['p']:.2g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_recall(results: dict, path: Path) -> None:
    """Recall of each number by scheme of lambda: what balancing does to rare classes."""
    import pandas as pd

    from pipeline.figures import COLOURS, figure

    rows = pd.DataFrame(results["recall"])
    with figure(path, ncols=2, figsize=(11, 3.6), sharey=True) as (_, axes):
        for ax, plus in zip(axes, (False, True), strict=True):
            for colour, scheme in zip(COLOURS, ("one", "norm", "modal", "log"), strict=False):
                name = f"{scheme}-scheduler" + "-plus" * plus
                if (these := rows[rows["configuration"] == name]).empty:
                    continue
                ax.plot(these["number"], these["recall"], "o-", color=colour, label=f"lambda: {scheme}")
            these = rows[rows["configuration"] == "pretrained"]
            ax.plot(these["number"], these["recall"], "s--", color="0.6", label="pre-trained", lw=1)
            ax.set(xlabel="number", title="all counterfactuals (CountPlus)" if plus else "one counterfactual")
            ax.set(xticks=list(WORDS), ylim=(0, 1.02))
            ax.legend(fontsize=8)
        axes[0].set_ylabel("recall, mean over runs")


def main(runs: int = 3, minutes: float = math.inf) -> str:
    if runs < 1:
        raise UserError(f"--runs {runs}: should be 1 or more")
    params = load_params()
    run_missing([(configuration, n) for n, configuration in product(range(runs), TABLE)], minutes)  # one of each first
    there = existing()
    names = {c.name: [name for n in range(runs) if (name := experiment(c, n)) in there] for c in TABLE}
    if lacking := [name for name, found in names.items() if not found]:
        raise UserError(f"no run yet of {', '.join(lacking)}; run again with more --minutes")
    trials = {
        f"{configuration}/{column}": [read_run(name, column) for name in found]
        for (configuration, found), column in product(names.items(), COLUMNS)
    }
    trials["pretrained"] = [read_run(names[TABLE[0].name][0], "pretrained")]
    results = summary(trials, params.seed)
    folder = Path("results") / params.scale / "countclip"
    write_json(folder / "table1.json", results)
    write_bytes(folder / "table1.md", as_markdown(results, params.scale, params.source).encode())
    draw_recall(results, folder / "recall_by_lambda.png")
    return f"{len(TABLE)} configurations, {sum(map(len, names.values()))} runs, in {folder}"


if __name__ == "__main__":
    run(main, runs=int, minutes=float)
