"""What removes the bias? One network, trained several times by every recipe of pipeline/shapes/remedies.py.

    python -m pipeline.shapes.remove_bias --runs 3 --jobs 2
    python -m pipeline.claims.record --name shapes-remedies --files report/remedies.json:remedies.json

    python -m pipeline.shapes.remove_bias --runs 3 --only half_the_batch --onto report/remedies.json

It reads the images that `dvc repro` has drawn. A training that is done is not done again: a later `--runs 5` adds two
of each recipe, and a killed command continues. With `--onto`, recipes in that table are not trained again either: their
measures, run by run, stand there; use it with the same settings and on the same kind of machine.

Of each recipe and measure: the mean over runs with Student's interval, and the difference to the paper's training run
by run, with the paired t-test's p, adjusted for all recipes (Holm), and an interval that holds for all recipes at
once (Bonferroni).

bias            how far the share of 'circle' lies from one half, over margin sets with as many to either side of 0
pse             distance of the point of subjective equality from 0, in shapes; undefined where answers do not rise
small_margins   accuracy on the margin sets -4, -2, 2 and 4
own             accuracy on the test set of the network's own density
others          mean accuracy on the test sets of all other densities
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from pipeline.figures import COLOURS, figure
from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shapes.answers import rates_over_runs
from pipeline.shapes.paths import margin_name, split_name
from pipeline.shapes.remedies import BASELINE, RECIPES, differing, kept
from pipeline.shapes.statements import circle_bias
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.intervals import over_networks, over_runs
from pipeline.statistics.psychometric import FLAT, maximise
from pipeline.statistics.tests import holm

TABLE, FIGURE = Path("report/remedies.json"), Path("report/remedies.png")
SMALL = (-4, -2, 2, 4)
MEASURES = {
    "bias": "share of 'circle', distance from 1/2",
    "pse": "|PSE| (shapes)",
    "small_margins": "accuracy, margins 2 and 4",
    "own": "accuracy, own density",
    "others": "accuracy, other densities",
}


def measure(answers: pd.DataFrame, density: int, params: Params) -> pd.DataFrame:
    """MEASURES of one recipe, a row a run. answers: its decisions, as `decisions` keeps them."""
    cells = rates_over_runs(answers).loc[density]
    margins = sorted(params.shapes.margins)
    rows = cells.loc[[margin_name(density, m) for m in margins]].reset_index(drop=True)
    rows = rows.assign(margin=margins, network=0, density=density)
    by_run = np.array(rows["circle_by_run"].tolist()).T  # [runs, margins]
    images = rows["images"].to_numpy().astype(int)
    fitted, _ = maximise(np.array(margins), (by_run * images).round(), images)
    intercepts, slopes = fitted[:, 0], fitted[:, 1]
    rising = slopes > FLAT

    def accuracy(conditions: list[str]) -> np.ndarray:
        return np.mean(cells.loc[conditions, "accuracy_by_run"].tolist(), axis=0)

    return pd.DataFrame(
        {
            "bias": np.abs(np.array(circle_bias(rows)["circle_by_run"][0]) - 0.5),
            "pse": np.where(rising, np.abs(intercepts / np.where(rising, slopes, 1)), np.nan),
            "small_margins": accuracy([margin_name(density, m) for m in SMALL if m in margins]),
            "own": accuracy([split_name(density, "test")]),
            "others": accuracy([split_name(of, "test") for of in params.densities if of != density]),
        }
    )


def compare(measured: dict[str, pd.DataFrame]) -> dict[str, dict]:
    """Of each recipe and measure: mean over runs with interval, each run, and the difference to the baseline.

    measured: `measure` of each recipe, as many runs of each. difference: recipe minus baseline, run by run; p: adjusted
    for all recipes, as are low_all and high_all. None where a run is undefined.
    """
    found: dict[str, dict] = {name: {} for name in measured}
    others = [name for name in measured if name != BASELINE]
    for of in MEASURES:
        p = {}
        for name, table in measured.items():
            values = table[of].to_numpy()
            defined = not np.isnan(values).any()
            found[name][of] = {**over_networks(values if defined else np.array([])), "by_run": values.tolist()}
            if name in others:
                apart = values - measured[BASELINE][of].to_numpy()
                if np.isnan(apart).any():
                    found[name][of]["difference"] = None
                    continue
                _, low, high = over_runs(apart, apart, apart, alpha=0.05 / len(others))
                found[name][of]["difference"] = over_networks(apart) | {"low_all": low, "high_all": high}
                p[name] = float(ttest_1samp(apart, 0).pvalue) if apart.any() else 1.0
        for name, adjusted in zip(p, holm(np.array(list(p.values()))) if p else [], strict=True):
            found[name][of]["difference"]["p"] = float(adjusted)
    return found


def draw(found: dict[str, dict]) -> None:
    """A row a recipe: runs as points, their mean and interval; the paper's training as a line."""
    names = list(found)[::-1]
    options = {"ncols": len(MEASURES), "sharey": True, "figsize": (3 * len(MEASURES), 0.34 * len(names) + 1.2)}
    with figure(FIGURE, **options) as (_, axes):
        for ax, (of, label) in zip(axes, MEASURES.items(), strict=True):
            for place, name in enumerate(names):
                cell = found[name][of]
                colour = COLOURS[1 if name == BASELINE else 0]
                ax.plot(cell["by_run"], [place] * len(cell["by_run"]), "o", color=colour, ms=4, alpha=0.35, lw=0)
                if cell["mean"] is not None:
                    bar = [[cell["mean"] - cell["low"]], [cell["high"] - cell["mean"]]]
                    ax.errorbar(cell["mean"], place, xerr=bar, fmt="|", color=colour, ms=9, capsize=2)
            if (mean := found[BASELINE][of]["mean"]) is not None:
                ax.axvline(mean, color=COLOURS[1], lw=1, ls=":")
            ax.set(xlabel=label)
            cells = [found[name][of] for name in names]
            runs = [value for cell in cells if cell["mean"] is not None for value in cell["by_run"]]
            if runs:  # intervals of few runs may be wider than the panel
                room = 0.15 * (max(runs) - min(runs)) or 0.1
                ax.set_xlim(min(runs) - room, max(runs) + room)
        axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])


def on_record(path: str, density: int, runs: int) -> dict[str, pd.DataFrame]:
    """`measure` of every recipe of a table that was written before; none where no path is given.

    Raises UserError where the table is not there, is none of this command, has a recipe that there is no more, or is
    of another density or another number of runs.
    """
    if not path:
        return {}
    if not Path(path).exists():
        raise UserError(f"--onto {path}: not there; name a table that this command wrote, or leave --onto out")
    try:
        found = json.loads(Path(path).read_text())
        its_density, its_runs = found["density"], found["runs"]
        measured = {
            name: pd.DataFrame({of: cells[of]["by_run"] for of in MEASURES}, dtype=float)
            for name, cells in found["recipes"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--onto {path}: not a table that this command wrote; name one, or leave --onto out") from None
    if (its_density, its_runs) != (density, runs):
        raise UserError(
            f"--onto {path}: of density {its_density} and {its_runs} runs, but --density {density} and --runs {runs} "
            f"are asked for; ask for the same"
        )
    if unknown := [name for name in measured if name not in RECIPES]:
        raise UserError(
            f"--onto {path}: has {', '.join(unknown)}; allowed are {', '.join(RECIPES)}; take the others out of a copy"
        )
    return measured


def main(runs: int = 3, jobs: int = 2, density: int = 50, only: str = "", onto: str = "") -> str:
    """Train what is missing, and write report/remedies.json and .png.

    only: recipes, with commas between; all where it is empty. The paper's training is always among them.
    onto: a table of such a command; its recipes join those that are trained here.

    Raises:
        UserError: fewer than two runs; a density that has no network; no such recipe; images that are not drawn; or as
            `on_record` does.
    """
    params = load_params()
    if runs < 2:
        raise UserError(f"--runs {runs}: at least 2 are needed, for an interval over runs")
    if density not in params.densities:
        raise UserError(f"--density {density}: not one of densities in params.yaml, {params.densities}")
    names = differing(params)
    if unknown := set(filter(None, only.split(","))) - set(names):
        raise UserError(f"--only {', '.join(sorted(unknown))}: not among {', '.join(names)}")
    before = on_record(onto, density, runs)
    names = [name for name in names if not only or name in (BASELINE, *only.split(","))]
    names = [name for name in names if name not in before]
    wanted = [(name, number) for number, name in product(range(runs), names)]  # a whole run of each first

    def trained(name: str, number: int) -> bool:
        options = {"recipe": name, "density": density, "run": number}
        arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        return subprocess.run([sys.executable, "-m", "pipeline.shapes.remedies", *arguments]).returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda of: trained(*of), wanted))
    if not all(done):
        left = ", ".join(
            f"{name} in run {number}" for (name, number), well in zip(wanted, done, strict=True) if not well
        )
        raise UserError(f"{left}: failed, as said above; once that is mended, run it again")
    files = {name: [kept(name, density, number, params) for number in range(runs)] for name in names}
    measured = before | {name: measure(read_predictions(of), density, params) for name, of in files.items()}
    found = compare({name: measured[name] for name in RECIPES if name in measured})
    write_json(TABLE, {"density": density, "runs": runs, "recipes": found})
    draw(found)
    return f"{len(found)} recipes in {runs} runs each, in {TABLE},"


if __name__ == "__main__":
    run(main, runs=int, jobs=int, density=int, only=str, onto=str)
