"""Where measured numbers come from: this run, or a run that was recorded under results/ with its provenance."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import stdev
from typing import Any

from pydantic import Field, ValidationError
from scipy.special import stdtrit

from pipeline.claims.schema import Measure, first_error
from pipeline.section import Section
from pipeline.stage import UserError
from pipeline.statistics.bounds import bounds_of
from pipeline.statistics.intervals import wilson

RECORDED = Path("results")
PROVENANCE = "provenance.json"
SCALES = ("smoke", "laptop", "paper")


class Provenance(Section):
    """What a recorded run was, in results/<scale>/<name>/provenance.json.

    files: what a stage writes -> the copy's name in the folder. inputs: which, where they are not the source's own.
    seconds: that the commands took, null where not measured. by: how its numbers came here ('dvc repro', stage by
    stage on a GPU machine). hashes: of what the stages read that wrote the files, code and data, as dvc.lock has them.
    check: the command that derives the numbers again from what is recorded, null where only numbers are.
    """

    scale: str
    source: str
    commit: str
    commands: list[str]
    machine: str
    versions: dict[str, str]
    seconds: float | None
    by: str
    inputs: str | None = None
    files: dict[str, str]
    hashes: dict[str, str] = Field(default_factory=dict)
    check: str | None = None


@dataclass(frozen=True)
class Run:
    """Numbers of one run. name: how a reader finds it; files: what stages write -> where it lies here."""

    name: str
    scale: str
    source: str
    files: dict[str, Path] | None = None  # None: everything lies where stages write it
    provenance: Provenance | None = field(default=None, compare=False)

    @property
    def rank(self) -> tuple[int, int]:
        """Full scale and published inputs weigh more; of equals, this run."""
        return SCALES.index(self.scale), int(self.source == "published")

    def path(self, file: str) -> Path | None:
        """Where that file of this run is; None where it is not."""
        path = Path(file) if self.files is None else self.files.get(file)
        return path if path is not None and path.exists() else None


@dataclass(frozen=True)
class Number:
    """A measured value with its 95% interval; exact numbers have none, undefined ones are None."""

    value: float | str | bool | None
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, of an exact number the number itself."""
        assert isinstance(self.value, int | float)
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)


class UnmeasuredError(Exception):
    """That a run does not have a number, and why."""


def read_provenance(path: Path) -> Provenance:
    """A provenance.json. Raises UserError where it, or a file that it names, is not whole."""
    try:
        provenance = Provenance.model_validate_json(path.read_text())
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}") from None
    copies = [path.parent / copy for copy in provenance.files.values()]
    if absent := [str(copy) for copy in copies if not copy.exists()]:
        raise UserError(f"{path}: names files that are not there: {', '.join(absent)}; record the run again")
    return provenance


def recorded_runs(folder: Path = RECORDED) -> list[Run]:
    """The runs that have a provenance, by name. Raises UserError where one is not whole."""
    runs = []
    for path in sorted(folder.glob(f"*/*/{PROVENANCE}")):
        provenance = read_provenance(path)
        files = {file: path.parent / copy for file, copy in provenance.files.items()}
        runs.append(Run(path.parent.as_posix(), provenance.scale, provenance.source, files, provenance))
    return runs


@lru_cache
def _read(path: Path, _modified: int) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}); a claim's `file` should be metrics or rows of a plot") from None


def measure(asked: Measure, run: Run) -> Number:
    """The number that is asked for, of a run.

    Raises UnmeasuredError where the run has no such file, row or key; UserError where there are several such rows, or
    where the number has no interval beside it and is not said to be exact.
    """
    path = run.path(asked.file)
    if path is None:
        raise UnmeasuredError(f"{run.name} has no {asked.file}")
    content = _read(path, path.stat().st_mtime_ns)
    if asked.rows is not None:
        content = _at(content, asked.rows, asked.file)
    if isinstance(content, list):
        rows = [row for row in content if all(row.get(key) == wanted for key, wanted in asked.where.items())]
        described = ", ".join(f"{key} = {wanted}" for key, wanted in asked.where.items())
        if not rows:
            raise UnmeasuredError(f"{run.name}: {asked.file} has no row with {described}")
        if len(rows) > 1:
            raise UserError(f"claims.yaml: {asked.file}: {len(rows)} rows with {described}; say more in `where`")
        content = rows[0]
    elif asked.where:
        raise UserError(f"claims.yaml: {asked.file} is no list of rows: `where` does not apply")

    value = _at(content, asked.value, asked.file)
    if value is None or asked.exact or not isinstance(value, int | float) or isinstance(value, bool):
        return Number(value)
    if asked.of is not None:
        trials = _count(asked.of, content, asked.file)
        if not 0 <= value <= 1:
            raise UnmeasuredError(f"{run.name}: {asked.file}: {asked.value} = {value} is no share")
        low, high = (float(bound) for bound in wilson(value * trials, trials))
    else:
        low, high = _interval(content, asked)
    if low is None or high is None:
        raise UnmeasuredError(f"{run.name}: {asked.file}: {asked.value} has no interval (one run, or too few images)")
    if asked.runs is not None:
        runs = asked.runs if isinstance(asked.runs, int) else _at(content, asked.runs, asked.file)
        reach = _further_run((high - low) / 2, runs, f"{asked.file}: {asked.runs}")
        low, high = value - reach, value + reach
    return Number(value, low, high)


def _further_run(reach: float, runs: Any, where: str) -> float:
    """Half the interval of one further training run, from that of the mean of several.

    runs: their number, where `reach` covers them already; or what each of them gave, where it covers images only.
    """
    number = len(runs) if isinstance(runs, list) else _whole(runs, where)
    if number < 2:
        raise UnmeasuredError(f"{where}: one training run, so what another would give is not known")
    if not isinstance(runs, list):
        return reach * (number + 1) ** 0.5
    return math.hypot(reach, stdtrit(len(runs) - 1, 0.975) * stdev(runs) * (1 + 1 / len(runs)) ** 0.5)


def _interval(content: Any, asked: Measure) -> tuple[float | None, float | None]:
    if asked.low is not None and asked.high is not None:
        return _at(content, asked.low, asked.file), _at(content, asked.high, asked.file)
    above, _, last = asked.value.rpartition(".")
    beside = _at(content, above, asked.file) if above else content
    if keys := bounds_of(last, beside):
        return beside[keys[0]], beside[keys[1]]
    raise UserError(
        f"claims.yaml: {asked.file}: no interval beside {asked.value}; give low and high, of, or exact: true"
    )


def _count(asked: str | int, content: Any, file: str) -> int:
    """A number of trials, or the one at a key."""
    return _whole(asked if isinstance(asked, int) else _at(content, asked, file), f"{file}: {asked}")


def _whole(number: Any, where: str) -> int:
    if not isinstance(number, int) or number < 1:
        raise UnmeasuredError(f"{where} = {number!r} is no number of trials or runs")
    return number


def _at(content: Any, dotted: str, file: str) -> Any:
    """The value at a key with dots; a key may itself have dots."""
    if not isinstance(content, dict):
        raise UnmeasuredError(f"{file} has nothing at '{dotted}'")
    if dotted in content:
        return content[dotted]
    for end in range(len(dotted) - 1, 0, -1):
        if dotted[end] == "." and isinstance(content.get(dotted[:end]), dict):
            return _at(content[dotted[:end]], dotted[end + 1 :], file)
    if "needs" in content:
        raise UnmeasuredError(f"{file}: '{dotted}' needs {content['needs']}")
    raise UnmeasuredError(f"{file} has no '{dotted}'; it has {', '.join(map(str, list(content)[:12]))}")
