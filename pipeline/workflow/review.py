"""What changed between two revisions: review/index.html, one page that opens offline, and review/summary.md."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dvc.api
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.stage import UserError, run, write_bytes
from pipeline.statistics.bounds import bounds_of
from pipeline.workflow.offline_plots import differing_plots
from pipeline.workflow.review_page import PICTURES, comment, page, picture_name

WORKSPACE = "workspace"  # DVC's word for what lies in the folder, committed or not
ABSENT = "-"
OUT = Path("review")
CLAIMS = "metrics/claims.json"


class Revision(NamedTuple):
    name: str
    commit: str  # empty: the workspace
    what: str  # date and subject


class Measure(NamedTuple):
    value: Any
    low: float | None = None
    high: float | None = None


class Change(NamedTuple):
    """A metric before and after; None where that revision does not have it."""

    name: str
    old: Measure | None
    new: Measure | None

    @property
    def apart(self) -> bool:
        """Both have an interval, and the two do not overlap; intervals that touch do."""
        bounds = [bound for side in (self.old, self.new) if side for bound in side[1:]]
        if len(bounds) < 4 or None in bounds:
            return False
        return self.old.high < self.new.low or self.new.high < self.old.low

    @property
    def cells(self) -> list[str]:
        """Old, its interval, new, its interval, difference: as text, with the same decimals."""
        numbers = [side.value for side in (self.old, self.new) if side and _is_number(side.value)]
        digits = decimals(numbers)
        cells = []
        for side in (self.old, self.new):
            known = side is not None and side.low is not None and side.high is not None
            interval = f"[{rounded(side.low, digits)}, {rounded(side.high, digits)}]" if known else ""
            cells += [ABSENT if side is None else rounded(side.value, digits), interval]
        return [*cells, f"{numbers[1] - numbers[0]:+,.{digits}f}" if len(numbers) == 2 else ""]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def decimals(numbers: Sequence[float]) -> int:
    """How many decimals show three digits of the largest, and more where a difference would look like none."""
    if all(isinstance(number, int) for number in numbers):
        return 0
    largest = max(map(abs, numbers))
    digits = min(max(2 - math.floor(math.log10(largest)), 0), 6) if largest else 3
    apart = max(numbers) - min(numbers)
    while apart and not round(apart, digits) and digits < 9:
        digits += 1
    return digits


def rounded(value: Any, digits: int) -> str:
    """A metric's value as text."""
    if value is None:
        return "undefined"
    if not _is_number(value):
        text = value if isinstance(value, str) else json.dumps(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0: no '-0.000'


def measures(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Measure]:
    """Every value of a metrics file by its dotted name, with its interval where it has one.

    Bounds are found as `bounds_of` says.
    """
    found: dict[str, Measure] = {}
    numbers = [name for name, value in tree.items() if value is None or _is_number(value)]
    bounds = {name: keys for name in numbers if (keys := bounds_of(name, tree))}
    taken = {bound for pair in bounds.values() for bound in pair}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= measures(value, f"{prefix}{name}.")
        elif name not in taken:
            found[f"{prefix}{name}"] = Measure(value, *(tree[bound] for bound in bounds.get(name, ())))
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The metrics of one file that differ, those whose intervals do not overlap first."""
    before, after = measures(old), measures(new)
    rows = [Change(name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])]
    return sorted((row for row in rows if row.old != row.new), key=lambda row: not row.apart)


def verdicts(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Claims whose verdict changed: name, before, after. None of them where one side has not been judged."""
    if old is None or new is None:
        return []
    before, after = old.get("claims", {}), new.get("claims", {})
    rows = [(name, *(side.get(name, {}).get("verdict", ABSENT) for side in (before, after))) for name in before | after]
    return [row for row in rows if row[1] != row[2]]


def other_outputs(old: str, new: str) -> list[tuple[str, str]]:
    """Stages whose outputs differ between two dvc.lock, and how; of a matrix, one line a stage."""
    before, after = (_locked(text) for text in (old, new))
    found: dict[tuple[str, str], list[str]] = {}
    for name in before | after:
        if before.get(name) != after.get(name):
            how = "other outputs" if name in before and name in after else "new" if name in after else "gone"
            family, _, member = name.partition("@")
            found.setdefault((family, how), []).append(member)
    return [
        (f"{family}: {', '.join(members)}" if any(members) else family, how) for (family, how), members in found.items()
    ]


def _locked(text: str) -> dict[str, dict[str, str]]:
    stages = (YAML(typ="safe").load(text) or {}).get("stages", {}) if text else {}
    return {
        name: {out["path"]: out.get(out.get("hash", "md5")) for out in stage.get("outs", [])}
        for name, stage in stages.items()
    }


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def revision(name: str) -> Revision:
    """A branch, commit, tag or experiment by name; UserError if there is none, or several."""
    if name == WORKSPACE:
        edited = len((_git("status", "--porcelain", "--untracked-files=no") or "").splitlines())
        head = _git("rev-parse", "--short", "HEAD")
        return Revision(name, "", f"files as they are here, {edited or 'none'} edited since {head}")
    commit = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if not commit:
        refs = (_git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or "").splitlines()
        commits = [line.split()[0] for line in refs if line.endswith(f"/{name}")]
        if len(commits) != 1:
            kind = "experiments have" if commits else "branch, commit or experiment has"
            listed = "'git branch' and 'dvc exp list --all-commits' list them"
            raise UserError(f"{len(commits) or 'no'} {kind} the name '{name}'; {listed}")
        commit = commits[0]
    what = _git("log", "-1", "--format=%h, %ci, %s", commit) or ""
    if ", dvc: commit experiment" in what:  # DVC's subject of an experiment is a hash; its parent says more
        what = f"{what.split(', dvc: ')[0]}, an experiment on {_git('log', '-1', '--format=%h, %s', f'{commit}^')}"
    return Revision(name, commit, what)


def _file(path: str, of: Revision) -> str:
    """A file that git tracks; empty if that revision does not have it."""
    if of.commit:
        return _git("show", f"{of.commit}:{path}") or ""
    return Path(path).read_text() if Path(path).exists() else ""


def _claims(of: Revision) -> dict[str, Any] | None:
    try:
        return json.loads(dvc.api.read(CLAIMS, rev=of.commit or None))
    except (DvcException, OSError, ValueError):
        return None


def gather(base: Revision, new: Revision) -> dict[str, Any]:
    """Everything that the page shows; UserError if DVC cannot read a revision."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as repo:
            shown = repo.metrics.show(revs=[base.name, new.name], hide_workspace=False)
            turned = repo.params.diff(base.name, new.name).get("diff", {})
    except DvcException as error:
        raise UserError(f"dvc metrics diff {base.name} {new.name}: {error}") from error
    sides = {side.name: shown.get(side.name, {}).get("data", {}) for side in (base, new)}
    missing = {side: [file for file, read in files.items() if "error" in read] for side, files in sides.items()}
    tables = {}
    for file in dict.fromkeys([*sides[base.name], *sides[new.name]]):
        if file != CLAIMS and not any(file in files for files in missing.values()):
            tables[file] = changes(*(files.get(file, {}).get("data") or {} for files in sides.values()))
    drawings, same, undrawn = differing_plots(base.name, new.name)
    for title, side in undrawn:
        missing[side] = [*dict.fromkeys([*missing.get(side, []), title])]
    claims = [_claims(side) for side in (base, new)]
    return {
        "base": base,
        "new": new,
        "params": [
            (file, name, *(_value(pair[side]) for side in ("old", "new")))
            for file, found in turned.items()
            for name, pair in sorted(found.items())
        ],
        "stages": other_outputs(*(_file("dvc.lock", side) for side in (base, new))),
        "claims": verdicts(*claims),
        "judged": [side.name for side, found in zip((base, new), claims, strict=True) if found is not None],
        "metrics": {name: rows for name, rows in tables.items() if rows},
        "plots": drawings,
        "same": same,
        "missing": {side: names for side, names in missing.items() if names},
    }


def _value(value: Any) -> str:
    return ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)


def main(base: str = "HEAD", new: str = WORKSPACE, pictures: str = "pictures/{name}") -> str:
    before, after = revision(base), revision(new)
    if before == after or before.commit == after.commit != "":
        raise UserError(f"'{base}' and '{new}' are the same state: name two with --base and --new")
    found = gather(before, after)
    shutil.rmtree(OUT, ignore_errors=True)
    write_bytes(OUT / "index.html", page(found).encode())
    write_bytes(OUT / "summary.md", comment(found, pictures).encode())
    for plot in found["plots"][:PICTURES]:
        for picture in plot.pictures.values():
            write_bytes(OUT / "pictures" / picture_name(picture), picture)
    number = sum(len(changed) for changed in found["metrics"].values())
    return f"{number:,} metrics and {len(found['plots']):,} plots changed: {OUT / 'index.html'}"


if __name__ == "__main__":
    run(main, base=str, new=str, pictures=str)
