"""Table 1: the paper's eleven configurations and one that it only speaks of, several training runs of each.

    python -m pipeline.countclip.table1              # 3 runs of each
    python -m pipeline.countclip.table1 --runs 5     # two more; those that are done are not done again
    python -m pipeline.countclip.table1 --minutes 60 # starts none after an hour, and reports what there is
    python -m pipeline.countclip.table1 --ray auto   # on a Ray cluster, all at once

Each run is a DVC experiment of its own (`table1-modal-scheduler-plus-run1`), beside the workspace, so that
`dvc exp show`, `dvc exp apply` and `dvc plots diff` know it. As many run at a time as there are cores for. An
experiment belongs to a commit: after the next one all are run again.

The published accuracies have one run each. All 22, and the baseline, are whole numbers of 509 images, and of no other
number of images between 300 and 540: 31 of CountBench's 540 were missing. The published confusion matrices (Figs. 3 to
5) say which differences can be more than chance; the same figures of the answers here are drawn beside the tables.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import bootstrap

from pipeline.countclip.captions import NUMBERS, WORDS
from pipeline.countclip.published import (
    BALANCED,
    BASELINE,
    CONFIGURATIONS,
    PRETRAINED,
    RICH,
    STATEMENTS,
    TABLE,
    UNPUBLISHED,
    UNTRAINED,
    Configuration,
    published_test,
)
from pipeline.params import load_params
from pipeline.stage import UserError, run, write_bytes, write_json
from pipeline.statistics.intervals import reach_over_runs
from pipeline.statistics.tests import RESAMPLES, paired_test
from pipeline.workflow import experiments
from pipeline.workflow.experiments import Experiment

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"last": "end of the 10th epoch", "best": "maximum over epochs"}


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
        "published": configuration.published.get(column),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "low_runs": None if reach is None else accuracy - reach,
        "high_runs": None if reach is None else accuracy + reach,
        "runs": runs,
    }


def experiment(configuration: Configuration, number: int) -> str:
    return f"table1-{configuration.name}-run{number}"


def run_missing(wanted: list[tuple[Configuration, int]], minutes: float = math.inf, ray: str = "") -> None:
    """Run the experiments that this commit does not have yet; start none after so many minutes."""
    experiments.run_missing(
        [
            Experiment(
                experiment(configuration, number),
                (*configuration.settings, f"countclip.runs=[{number}]"),
                "evaluate_countclip",
            )
            for configuration, number in wanted
        ],
        ray=ray,
        minutes=minutes,
    )


def read_run(revision: str, weights: str) -> pd.DataFrame:
    """The trials of an experiment, images in order."""
    import dvc.api  # here: what else is in this module is used where there is no DVC

    from pipeline.predictions import read_predictions

    with dvc.api.open(f"data/countclip/predictions/{weights}.parquet", rev=revision, mode="rb") as file:
        path = Path(".checkpoints/table1.parquet")
        write_bytes(path, file.read())
    return read_predictions([path]).sort_values("image", ignore_index=True)


def summary(trials: dict[str, list[pd.DataFrame]], seed: int) -> dict:
    """Accuracy of every configuration, by column; the statements' tests, those of a balanced lambda on images of two
    and three too; recall of each number by scheme; answers, summed over runs.

    trials: '<configuration>/<column>' -> a table a run, images in the same order; 'pretrained' has one.
    """
    correct = {key: np.stack([t["correct"].to_numpy(float) for t in runs]) for key, runs in trials.items()}
    rows = [
        row(configuration, column, correct[f"{configuration.name}/{column}"], seed)
        for configuration, column in product(CONFIGURATIONS, COLUMNS)
    ]
    rich = trials[PRETRAINED][0]["category"].isin([WORDS[number] for number in RICH]).to_numpy()

    def difference(better: str, worse: str, column: str, images: np.ndarray | slice) -> dict:
        ours = [correct[name if name == PRETRAINED else f"{name}/{column}"][:, images] for name in (better, worse)]
        return with_runs(paired_test(*ours, seed), *(runs.mean(axis=1).tolist() for runs in ours))

    tests, on_rich = [], []
    for (statement, pairs), column in product((STATEMENTS | UNPUBLISHED).items(), COLUMNS):
        for better, worse in pairs:
            named = {"statement": statement, "better": better, "worse": worse, "column": column}
            theirs = published_test(better, worse, column) if statement in STATEMENTS else None
            tests.append({**named, "published": theirs, "ours": difference(better, worse, column, slice(None))})
            if statement == BALANCED:
                on_rich.append({**named, "ours": difference(better, worse, column, rich)})
    recall = [
        {
            "configuration": key.partition("/")[0],
            "number": number,
            "recall": np.mean([t.loc[t["category"] == word, "correct"].mean() for t in runs]),
        }
        for key, runs in trials.items()
        if key == PRETRAINED or key.endswith("/last")
        for number, word in WORDS.items()
    ]
    confusion = [
        {
            "configuration": key.partition("/")[0],
            "column": key.partition("/")[2] or None,
            "runs": len(runs),
            "answers": sum(matrix(table) for table in runs),
        }
        for key, runs in trials.items()
    ]
    baseline = 100 * correct[PRETRAINED].mean()
    return {
        "images": correct[PRETRAINED].shape[1],
        "pretrained": baseline,
        "table": rows,
        "tests": tests,
        "tests_on_two_and_three": on_rich,
        "recall": recall,
        "confusion": confusion,
    }


def matrix(trials: pd.DataFrame) -> np.ndarray:
    """Counts [9, 9] of a run's answers, rows true, columns answered."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(trials["category"], trials["response"], labels=[WORDS[number] for number in NUMBERS])


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
    for configuration in CONFIGURATIONS:
        parts = []
        for column in COLUMNS:
            row = by_cell[configuration.name, column]
            spread = ", ".join(f"{value:.1f}" for value in row["runs"])
            parts += [
                "none" if row["published"] is None else f"{row['published']:.2f}",
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
            "none"
            if theirs is None
            else f"{theirs['images']:+d}, {theirs['verdict']} (p {theirs['least_p']:.2g} to {theirs['most_p']:.2g})",
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


def draw_figures(results: dict, folder: Path) -> None:
    """Figs. 3 to 5 of the answers here, all runs of a configuration together."""
    from pipeline.countclip.drawing import draw_published_layout

    ours = {
        (entry["configuration"], entry["column"] or UNTRAINED): np.asarray(entry["answers"])
        for entry in results["confusion"]
    }
    draw_published_layout(ours, folder, "here")


def main(runs: int = 3, minutes: float = math.inf, ray: str = "") -> str:
    if runs < 1:
        raise UserError(f"--runs {runs}: should be 1 or more")
    params = load_params()
    one_of_each_first = [(configuration, n) for n, configuration in product(range(runs), CONFIGURATIONS)]
    run_missing(one_of_each_first, minutes, ray)
    there = experiments.existing()
    names = {c.name: [name for n in range(runs) if (name := experiment(c, n)) in there] for c in CONFIGURATIONS}
    if lacking := [name for name, found in names.items() if not found]:
        raise UserError(f"no run yet of {', '.join(lacking)}; run again with more --minutes")
    trials = {
        f"{configuration}/{column}": [read_run(name, column) for name in found]
        for (configuration, found), column in product(names.items(), COLUMNS)
    }
    trials[PRETRAINED] = [read_run(names[TABLE[0].name][0], "pretrained")]
    results = summary(trials, params.seed)
    folder = Path("results") / params.scale / "countclip"
    write_json(folder / "table1.json", results)
    write_bytes(folder / "table1.md", as_markdown(results, params.scale, params.source).encode())
    draw_recall(results, folder / "recall_by_lambda.png")
    draw_figures(results, folder)
    return f"{len(CONFIGURATIONS)} configurations, {sum(map(len, names.values()))} runs, in {folder}"


if __name__ == "__main__":
    run(main, runs=int, minutes=float, ray=str)
