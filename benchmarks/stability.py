"""Which verdicts differ between seeds, and between kinds of machine?

    python -m benchmarks.stability --seeds 1 2
    python -m benchmarks.stability --seeds 1 2 --beside xeon=FILE    # and the metrics/claims.json of another run
    cp -r report/stability/* results/laptop/                         # to keep them for the report and the docs

Each seed is the whole graph again, as an experiment (`seed-1`), several at a time; other images, other initial weights,
other orders. Those that this commit has already are not run again. A verdict flips where one run has 'reproduced' and
another 'not reproduced'; it differs, too, where one of them cannot judge. The table is also in
report/stability/stability.json, and each seed's verdicts and numbers in report/stability/seed-1/claims.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.claims.judge import METRICS, THIS_RUN
from pipeline.claims.stability import verdicts_in
from pipeline.claims.verdicts import CANNOT, NOT, REPRODUCED
from pipeline.shapes.revisions import read
from pipeline.stage import UserError, write_bytes, write_json
from pipeline.workflow.experiments import Experiment, run_missing

FOLDER = Path("report/stability")
SHORT = {REPRODUCED: "yes", NOT: "NO", CANNOT: "-"}


def compare(runs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What differs between runs, each a verdict by claim ('document/claim').

    Only claims that all runs have are compared. Returns how many these are, how many any run could judge, how many
    differ, how many flip, the share that differs, and the verdicts of each that differs, by run.

    Raises:
        UserError: there is one run, or no claim that all have.
    """
    if len(runs) < 2:
        raise UserError(f"there is one run only, {next(iter(runs), 'none')}; --seeds or --beside names others")
    common = [claim for claim in next(iter(runs.values())) if all(claim in verdicts for verdicts in runs.values())]
    if not common:
        raise UserError(f"{', '.join(runs)}: no claim is judged in all of them; they are of different versions")
    verdicts = {claim: {name: run[claim] for name, run in runs.items()} for claim in common}
    differing = {claim: found for claim, found in verdicts.items() if len(set(found.values())) > 1}
    flips = [claim for claim, found in differing.items() if {REPRODUCED, NOT} <= set(found.values())]
    return {
        "runs": list(runs),
        "claims": len(common),
        "judged": sum(set(found.values()) != {CANNOT} for found in verdicts.values()),
        "differ": len(differing),
        "flip": len(flips),
        "share_that_differs": len(differing) / len(common),
        "left_out": sorted({claim for run in runs.values() for claim in run} - set(common)),
        "flipping": flips,
        "differing": differing,
    }


def show(found: dict[str, Any]) -> str:
    """The claims that differ, a column a run."""
    widest = max([len(claim) for claim in found["differing"]], default=0)
    lines = [f"{'':{widest}}  " + "  ".join(found["runs"])] if found["differing"] else []
    for claim, verdicts in found["differing"].items():
        cells = "  ".join(f"{SHORT[verdicts[run]]:<{len(run)}}" for run in found["runs"])
        lines.append(f"{claim:{widest}}  {cells}{'  flips' if claim in found['flipping'] else ''}")
    of = f"{found['differ']} of {found['claims']} verdicts differ ({found['share_that_differs']:.1%})"
    lines.append(f"{of}, {found['flip']} flip between reproduced and not reproduced")
    return "\n".join([*lines, f"{found['judged']} could be judged in any run"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="other values of params.yaml's `seed`")
    parser.add_argument("--beside", nargs="*", default=[], metavar="NAME=FILE", help="verdicts of another run")
    parser.add_argument("--jobs", type=int, help="experiments at a time")
    options = parser.parse_args()
    try:
        runs = {THIS_RUN: verdicts_in(METRICS.read_text(), str(METRICS))}
        run_missing([Experiment(f"seed-{seed}", (f"seed={seed}",), "claims") for seed in options.seeds], options.jobs)
        for seed in options.seeds:
            name = f"seed-{seed}"
            text = read(str(METRICS), name)
            runs[name] = verdicts_in(text, f"{METRICS} of {name}")
            write_bytes(FOLDER / name / METRICS.name, text.encode())
        for pair in options.beside:
            name, _, file = pair.partition("=")
            runs[name] = verdicts_in(Path(file).read_text(), file)
        found = compare(runs)
    except (UserError, OSError) as error:
        raise SystemExit(f"benchmarks.stability: error: {error}") from None
    write_json(FOLDER / "stability.json", found)
    print(show(found))


if __name__ == "__main__":
    main()
