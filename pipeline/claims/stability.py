"""How stable verdicts are: today's beside those recorded on other kinds of machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pipeline.claims.evidence import RECORDED
from pipeline.claims.pictures import read_words
from pipeline.claims.verdicts import CANNOT
from pipeline.stage import UserError

Verdicts = dict[str, str]  # of each claim, by '<document>/<claim>'


@dataclass(frozen=True)
class Machine:
    """Verdicts recorded on a kind of machine. name: in words; path: the file."""

    name: str
    path: Path
    verdicts: Verdicts


def machines(folder: Path = RECORDED) -> list[Machine]:
    """Those recorded as results/<scale>/<kind of machine>/claims.json. Raises UserError where one is none."""
    found, names = [], read_words().machines
    for path in sorted(folder.glob("*/*/claims.json")):
        try:
            verdicts = {name: row["verdict"] for name, row in json.loads(path.read_text())["claims"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}: no verdicts ('claims': name -> 'verdict'); 'dvc repro claims' writes them"
            ) from None
        found.append(Machine(names.get(path.parent.name, path.parent.name), path, verdicts))
    return found


def differences(one: Verdicts, other: Verdicts) -> dict[str, Any]:
    """Two machines' verdicts on the claims that both have.

    both: how many; differ: those with other verdicts, (claim, one's, other's); flips: how many of these are reproduced
    on one and not reproduced on the other.
    """
    both = [name for name in one if name in other]
    differ = [(name, one[name], other[name]) for name in both if one[name] != other[name]]
    return {
        "both": len(both),
        "differ": differ,
        "flips": sum(CANNOT not in (first, second) for _, first, second in differ),
    }


def elsewhere(name: str, found: list[Machine]) -> list[tuple[str, str]]:
    """A claim's verdict on each machine that has one, with the machine's name."""
    return [(machine.name, machine.verdicts[name]) for machine in found if name in machine.verdicts]


def comparisons(today: Mapping[str, str], found: list[Machine]) -> dict[str, list[dict[str, Any]]]:
    """today: each machine beside today's verdicts. pairs: two machines that judged the very same claims."""
    return {
        "today": [{"machine": machine, **differences(dict(today), machine.verdicts)} for machine in found],
        "pairs": [
            {"one": one, "other": other, **differences(one.verdicts, other.verdicts)}
            for one, other in combinations(found, 2)
            if one.verdicts.keys() == other.verdicts.keys()
        ],
    }
