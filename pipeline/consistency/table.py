"""Print the summary over a set's experiments (`overall.together`) as a table in Markdown.

python -m pipeline.consistency.table
python -m pipeline.consistency.table --file metrics/consistency/trials.json
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.consistency.overall import EFFECTS, GAP
from pipeline.stage import UserError, run

RECORDED = "results/paper/consistency/metrics.consistency.trials.json"
COLUMNS = {
    EFFECTS[0]: "two people",
    EFFECTS[1]: "network and person",
    EFFECTS[2]: "the first minus the second",
    EFFECTS[3]: "two networks minus two people",
    GAP: "gap closed",
}


def lines(means: dict[str, dict]) -> list[str]:
    """A line an experiment, each effect with its standard error; then mean, interval and heterogeneity.

    means: as `overall.together` has them.
    """
    shown = [effect for effect in COLUMNS if effect in means]
    experiments = list(dict.fromkeys(name for effect in shown for name in means[effect]["of"]))
    rows = [["experiment", *(COLUMNS[effect] for effect in shown)], ["---"] * (len(shown) + 1)]
    for name in experiments:
        cells = [means[effect]["of"].get(name) for effect in shown]
        texts = [f"{cell['value']:.2f} ± {cell['standard_error']:.2f}" if cell else "" for cell in cells]
        rows.append([name.partition("_")[2] or name, *texts])
    summaries = {
        "mean": "{mean:.2f}",
        "95% interval": "{low:.2f} to {high:.2f}",
        "experiments": "{experiments}",
        "tau²": "{tau2:.4f}",
        "I²": "{i2:.0%}",
        "Q": "{q:.1f}",
    }
    rows += [[title, *(form.format(**means[effect]) for effect in shown)] for title, form in summaries.items()]
    return [f"| {' | '.join(row)} |" for row in rows]


def main(file: str = RECORDED) -> str:
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--file {file}: not there; 'dvc repro' makes metrics/consistency/<set>.json")
    means = json.loads(path.read_text()).get("together")
    if not means:
        raise UserError(f"{file}: has no 'together'; only a set with people in two or more experiments has it")
    print("\n".join(lines(means)))
    return f"{len(means)} effects of {file}"


if __name__ == "__main__":
    run(main, file=str)
