"""How much of the bias comes of ties being coded as squares (implicit-counting, Results and Discussion)?

    dvc exp run --name soft -S shapes.target=soft evaluate_shapes
    python -m pipeline.shapes.ties --hard HEAD --soft soft
    python -m pipeline.claims.record --name shapes-ties --files report/ties.json:ties.json

Two revisions that differ in `shapes.target` only: the same images, order and initial weights. Each network is compared
with itself. Its bias is how far its share of 'circle' answers lies from one half, over margin sets with as many to
either side of 0; nobody's image there is a tie. Intervals are Student's over networks: they cover what training anew
changes by chance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException

from pipeline.params import parse_yaml
from pipeline.shapes.paths import PLOTS
from pipeline.shapes.statements import circle_bias, over_networks
from pipeline.stage import UserError, run, write_json

COMPARISON = Path("report/ties.json")


def compare(hard: pd.DataFrame, soft: pd.DataFrame) -> dict[str, Any]:
    """What soft targets change, from two tables of answers by network, density and margin ('circle', 'images').

    Returns, for all densities together (a network's mean) and for each: 'bias' under either target, 'less_bias' (hard
    less soft) and 'more_circle' (share of 'circle' answers, soft less hard), each a mean over networks in 0..1 with
    its interval.

    Raises:
        UserError: not the same networks and densities.
    """
    keys = ["network", "density"]
    sides = [circle_bias(table).set_index(keys).sort_index() for table in (hard, soft)]
    if not sides[0].index.equals(sides[1].index):
        raise UserError("the two revisions have not the same networks and densities; run both with the same parameters")
    ours = pd.DataFrame(
        {
            "hard": sides[0]["size"],
            "soft": sides[1]["size"],
            "less_bias": sides[0]["size"] - sides[1]["size"],
            "more_circle": sides[1]["circles"] / sides[1]["images"] - sides[0]["circles"] / sides[0]["images"],
        }
    )
    parts = {"all": ours.groupby("network").mean()}
    parts |= {f"density_{density}": rows for density, rows in ours.groupby("density")}
    return {
        part: {
            "bias": {target: over_networks(rows[target].to_numpy()) for target in ("hard", "soft")},
            "less_bias": over_networks(rows["less_bias"].to_numpy()),
            "more_circle": over_networks(rows["more_circle"].to_numpy()),
        }
        for part, rows in parts.items()
    }


def read(path: str, revision: str) -> str:
    """A file, of Git's or DVC's, at a revision or in the 'workspace'. Raises UserError."""
    if revision == "workspace":
        return Path(path).read_text()
    try:
        return dvc.api.read(path, rev=revision)
    except (DvcException, OSError) as error:
        raise UserError(f"{path} at '{revision}': {error}; 'dvc exp list' and 'git branch' name revisions") from error


def check(hard: dict, soft: dict) -> None:
    """Raises UserError unless two params.yaml differ in shapes.target, hard and soft, and in nothing else."""
    found = [params["shapes"].pop("target") for params in (hard, soft)]
    if found != ["hard", "soft"]:
        raise UserError(f"shapes.target is '{found[0]}' and '{found[1]}'; --hard and --soft name revisions with each")
    if different := sorted(key for key in hard.keys() | soft.keys() if hard.get(key) != soft.get(key)):
        raise UserError(f"the two revisions differ in {', '.join(different)} too; only shapes.target should differ")


def main(hard: str = "HEAD", soft: str = "workspace") -> str:
    """Compare two revisions and write report/ties.json.

    Raises:
        UserError: no such revision, nothing run there, or they differ in more than shapes.target.
    """
    check(*(parse_yaml(read("params.yaml", revision), f"params.yaml at '{revision}'") for revision in (hard, soft)))
    tables = [json.loads(read(f"{PLOTS}/margins.json", revision)) for revision in (hard, soft)]
    found = compare(*map(pd.DataFrame, tables))
    write_json(COMPARISON, found)
    return f"{found['all']['less_bias']['networks']} networks, in {COMPARISON},"


if __name__ == "__main__":
    run(main, hard=str, soft=str)
