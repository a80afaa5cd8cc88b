"""How stable verdicts are: today's beside those recorded with other seeds and on other kinds of machine."""

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
class OtherRun:
    """Verdicts recorded with another seed, or on another kind of machine. name: in words; path: the file."""

    name: str
    path: Path
    verdicts: Verdicts


def verdicts_in(text: str, where: str) -> Verdicts:
    """The verdict of each claim in a metrics/claims.json. Raises UserError, by the file's name, where it is none."""
    try:
        return {claim: found["verdict"] for claim, found in json.loads(text)["claims"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not a metrics/claims.json ({error!r}); 'dvc repro claims' writes one") from None


def other_runs(folder: Path = RECORDED) -> list[OtherRun]:
    """Those recorded as results/<scale>/<seed or kind of machine>/claims.json. Raises UserError where one is none."""
    found, names = [], read_words().runs
    for path in sorted(folder.glob("*/*/claims.json")):
        verdicts = verdicts_in(path.read_text(), str(path))
        found.append(OtherRun(names.get(path.parent.name, path.parent.name), path, verdicts))
    return found


def differences(one: Verdicts, other: Verdicts) -> dict[str, Any]:
    """Two runs' verdicts on the claims that both have.

    both: how many; differ: those with other verdicts, (claim, one's, other's); flips: how many of these are reproduced
    in one and not reproduced in the other.
    """
    both = [name for name in one if name in other]
    differ = [(name, one[name], other[name]) for name in both if one[name] != other[name]]
    return {
        "both": len(both),
        "differ": differ,
        "flips": sum(CANNOT not in (first, second) for _, first, second in differ),
    }


def elsewhere(name: str, found: list[OtherRun]) -> list[tuple[str, str]]:
    """A claim's verdict in each run that has one, with the run's name."""
    return [(run.name, run.verdicts[name]) for run in found if name in run.verdicts]


def comparisons(today: Mapping[str, str], found: list[OtherRun]) -> dict[str, list[dict[str, Any]]]:
    """today: each run beside today's verdicts, the most claims in both first. pairs: two of the same claims."""
    beside = [{"run": run, **differences(dict(today), run.verdicts)} for run in found]
    return {
        "today": sorted(beside, key=lambda row: -row["both"]),
        "pairs": [
            {"one": one, "other": other, **differences(one.verdicts, other.verdicts)}
            for one, other in combinations(found, 2)
            if one.verdicts.keys() == other.verdicts.keys()
        ],
    }
