"""Trials for the error-consistency study: simulated observers, or the published ones, in one format.

python -m pipeline.consistency.collect
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from pipeline.consistency.simulate import EXPERIMENTS, planted_means, write_experiment
from pipeline.consistency.trials import read_trials
from pipeline.params import load_params
from pipeline.predictions import write_predictions
from pipeline.stage import run, write_json

FOLDER = Path("data/consistency/trials")
NO_RESPONSE = "none"  # the predictions format has a response in every row


def main() -> str:
    params = load_params()
    counts: Counter = Counter()
    planted = {}
    if params.inputs.trials == "published":
        from pipeline.inputs import sources

        trials = read_trials(sources.fetch("error_consistency"), counts)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for experiment in EXPERIMENTS:
                write_experiment(
                    Path(folder) / experiment.name, experiment, params.at_scale.consistency.trials, params.seed
                )
                planted[experiment.name] = {"planted_kappa": planted_means(experiment)}
            trials = read_trials(folder, counts)
    trials["response"] = trials["response"].fillna(NO_RESPONSE)
    numbers = {}
    for experiment, rows in trials.groupby(trials["condition"].str.split("/").str[0]):
        write_predictions(FOLDER / f"{experiment}.parquet", rows)
        kinds = rows.drop_duplicates("observer")["kind"].value_counts().sort_index()
        numbers[experiment] = {
            "observers": kinds.to_dict(),
            "trials": len(rows),
            "images": int(rows[["condition", "image"]].drop_duplicates().shape[0]),
            **{rule: number for (name, rule), number in counts.items() if name == experiment},
            **planted.get(experiment, {}),
        }
    write_json("metrics/consistency/collected.json", numbers)
    return f"{len(trials):,} trials in {len(numbers)} experiments ({params.inputs.trials})"


if __name__ == "__main__":
    run(main)
