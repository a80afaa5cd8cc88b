"""report/index.html: what holds, at a glance, and everything behind it, in one file that opens offline.

    python -m pipeline.claims.report          (after `dvc repro`; `make repro` does both)

For every statement the verdict or the reason why there is none; published tables with ours beside them; the
figures; parameters, versions, commit and cost. Not an output of DVC's: commit and cost differ from run to run where
nothing that was found does.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from pipeline.claims.costs import busy, by_study, critical_path, last_run, stage_costs
from pipeline.claims.evidence import recorded_runs
from pipeline.claims.judge import METRICS, TABLE, THIS_RUN
from pipeline.claims.record import commit, machine, versions
from pipeline.claims.schema import Claim, Document, Table, cell_name, read_claims, rows
from pipeline.claims.verdicts import CANNOT, VERDICTS
from pipeline.params import PATH, load_params, read_yaml
from pipeline.stage import UserError, run, write_bytes

REPORT = Path("report/index.html")


def shown(value: Any, claim: Claim) -> str:
    """A number as the claim wants it: digits, percent; 'undefined' where there is none."""
    if value is None:
        return "undefined"
    if isinstance(value, bool | str):
        return str(value)
    if claim.percent:
        return f"{100 * value:.{max(claim.digits - 1, 0)}f}%"
    text = f"{value:.{claim.digits}f}"
    return text.replace("-0." + "0" * claim.digits, "0." + "0" * claim.digits) if claim.digits else text


def ours(row: dict, claim: Claim, prefix: str = "") -> str:
    """A measured value with its interval; '' where nothing was measured."""
    names = (f"{prefix}with", f"{prefix}low", f"{prefix}high") if prefix else ("value", "low", "high")
    value, low, high = (row[name] for name in names)
    if row["run"] is None or (prefix and value is None):
        return ""
    text = shown(value, claim)
    return text if low is None else f"{text} [{shown(low, claim)}, {shown(high, claim)}]"


def statement(name: str, claim: Claim, judged: list[dict]) -> dict[str, Any]:
    """What the page shows of a claim: its headline, and the verdicts of other runs."""
    first, *others = sorted(judged, key=lambda row: not row["headline"])
    return {
        **first,
        "name": name,
        "claim": claim,
        "published": "" if claim.published is None else str(claim.published),
        "ours": ours(first, claim),
        "compared": ours(first, claim, "compared_"),
        "others": [{**row, "ours": ours(row, claim)} for row in others],
    }


def grid(table: Table, name: str, statements: dict[str, dict]) -> dict[str, Any]:
    """A published table as rows of cells, each with ours and its verdict."""
    lines, notes = [], {}
    for _, words, _ in rows(table):
        row = [statements[cell_name(name, words, column)] for column in table.columns]
        for cell in row:
            text = cell["claim"].note
            cell["mark"] = notes.setdefault(text, len(notes) + 1) if text else None
        lines.append((words, row))
    stand_ins = dict.fromkeys(cell["claim"].stand_in for _, row in lines for cell in row if cell["claim"].stand_in)
    counts = Counter(cell["verdict"] for _, cells in lines for cell in cells)
    reasons = Counter(cell["reason"] for _, cells in lines for cell in cells if cell["verdict"] == CANNOT)
    return {
        "name": name,
        "table": table,
        "lines": lines,
        "notes": notes,
        "stand_ins": list(stand_ins),
        "counts": counts,
        "reasons": reasons.most_common(4),
    }


def pictures(places: list[str]) -> list[dict[str, str]]:
    """PNG files, and those in folders, as data URIs."""
    found = []
    for place in map(Path, places):
        for path in sorted(place.glob("*.png")) if place.is_dir() else [path for path in [place] if path.exists()]:
            content = base64.b64encode(path.read_bytes()).decode()
            found.append({"name": path.as_posix(), "uri": f"data:image/png;base64,{content}"})
    return found


def section(name: str, document: Document, claims: dict[str, Claim], judged: list[dict]) -> dict[str, Any]:
    """All that the page has on one document."""
    by_claim: dict[str, list[dict]] = {}
    for row in judged:
        if row["document"] == name:
            by_claim.setdefault(row["claim"], []).append(row)
    statements = {key: statement(key, claim, by_claim[key]) for key, claim in claims.items()}
    return {
        "name": name,
        "document": document,
        "counts": Counter(item["verdict"] for item in statements.values() if item["kind"] == "statement"),
        "statements": [item for key, item in statements.items() if key in document.claims],
        "tables": [grid(table, key, statements) for key, table in document.tables.items()],
        "pictures": pictures(document.figures),
    }


def settings() -> list[tuple[str, str]]:
    """params.yaml as this run has it: all but the scales and sources that were not chosen."""
    params, content = load_params(), read_yaml(PATH)
    content["scales"] = {params.scale: content["scales"][params.scale]}
    content["sources"] = {params.source: content["sources"][params.source]}

    def flat(value: Any, prefix: str) -> list[tuple[str, str]]:
        if isinstance(value, dict) and value:
            return [pair for key, item in value.items() for pair in flat(item, f"{prefix}.{key}" if prefix else key)]
        return [(prefix, json.dumps(value))]

    return flat(content, "")


def origin() -> str:
    """Where the repository comes from, '' where nothing says it; without user and password: the page is passed on."""
    found = subprocess.run(["git", "config", "--get", "remote.origin.url"], capture_output=True, text=True)
    return re.sub("//[^/?#]*@", "//", found.stdout.strip())


def main() -> str:
    params, claims = load_params(), read_claims()
    if not (TABLE.exists() and METRICS.exists()):
        raise UserError(f"{TABLE}: not there; 'dvc repro claims' makes it")
    judged, spent = json.loads(TABLE.read_text()), stage_costs()
    wanted = {(document, claim) for document, (_, of) in claims.items() for claim in of}
    if wanted != {(row["document"], row["claim"]) for row in judged}:
        raise UserError(f"{TABLE}: is of another claims.yaml; 'dvc repro claims' makes it anew")
    headlines = [row for row in judged if row["headline"]]
    sections = [section(name, document, of, judged) for name, (document, of) in claims.items()]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("pipeline.claims") / "report.html").read_text())
    page = template.render(
        sections=sections,
        verdicts=VERDICTS,
        counts=Counter(row["verdict"] for row in headlines if row["kind"] == "statement"),
        evidence=Counter((row["evidence"], row["verdict"]) for row in headlines if row["kind"] == "statement"),
        checks=Counter(row["verdict"] for row in headlines if row["kind"] == "check"),
        decided=sum(row["verdict"] != CANNOT for row in headlines),
        on_stand_ins=sum(row["stand_in"] and row["verdict"] != CANNOT for row in headlines),
        this_run=THIS_RUN,
        scale=params.scale,
        source=params.source,
        seed=params.seed,
        commit=commit(),
        origin=origin(),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine(),
        versions=versions(),
        settings=settings(),
        costs=by_study(spent),
        slowest=sorted(spent, key=lambda cost: -cost["with_start"])[:15],
        busy=busy(last_run(spent)),
        critical_path=critical_path(last_run(spent)),
        recorded=recorded_runs(),
    )
    write_bytes(REPORT, page.encode())
    return f"{REPORT}, {len(page) / 2**20:.1f} MiB,"


if __name__ == "__main__":
    run(main)
