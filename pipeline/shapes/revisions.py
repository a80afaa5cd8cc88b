"""The bias of the same networks at two revisions that differ in one setting of their training.

The same test images, order and initial weights. Each network is compared with itself.
Its bias is how far its share of 'circle' answers lies from one half, over margin sets with as many to either side of 0;
nobody's image there is a tie. Intervals are Student's over networks, each with the mean of its training runs.
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
from pipeline.shapes.statements import circle_bias
from pipeline.stage import UserError
from pipeline.statistics.intervals import over_networks


def compare(before: pd.DataFrame, after: pd.DataFrame, names: tuple[str, str] = ("hard", "soft")) -> dict[str, Any]:
    """What a setting changes, from two tables of answers by network, density and margin ('circle', 'images').

    Returns, for all densities together (a network's mean) and for each: 'bias' at either setting, by `names`,
    'less_bias' (before minus after) and 'more_circle' (share of 'circle' answers, after minus before), each a mean over
    networks in 0..1 with its interval.

    Raises:
        UserError: not the same networks and densities.
    """
    keys = ["network", "density"]
    sides = [circle_bias(table).set_index(keys).sort_index() for table in (before, after)]
    if not sides[0].index.equals(sides[1].index):
        raise UserError("the two revisions have not the same networks and densities; run both with the same parameters")
    ours = pd.DataFrame(
        {
            names[0]: sides[0]["size"],
            names[1]: sides[1]["size"],
            "less_bias": sides[0]["size"] - sides[1]["size"],
            "more_circle": sides[1]["circle"] - sides[0]["circle"],
        }
    )
    parts = {"all": ours.groupby("network").mean()}
    parts |= {f"density_{density}": rows for density, rows in ours.groupby("density")}
    return {
        part: {
            "bias": {name: over_networks(rows[name].to_numpy()) for name in names},
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


def settings(revisions: tuple[str, str], key: str) -> tuple[list[Any], list[str]]:
    """What shapes.<key> is at two revisions, and which other keys of params.yaml differ."""
    both = [parse_yaml(read("params.yaml", revision), f"params.yaml at '{revision}'") for revision in revisions]
    found = [params["shapes"].pop(key) for params in both]
    return found, sorted(name for name in both[0].keys() | both[1].keys() if both[0].get(name) != both[1].get(name))


def only(key: str, others: list[str]) -> None:
    """Raises UserError where other settings differ, too."""
    if others:
        raise UserError(f"the two revisions differ in {', '.join(others)} too; only shapes.{key} should differ")


def answers(revisions: tuple[str, str]) -> list[pd.DataFrame]:
    """What each revision's networks answered on the margin sets."""
    return [pd.DataFrame(json.loads(read(f"{PLOTS}/margins.json", revision))) for revision in revisions]
