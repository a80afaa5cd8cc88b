"""What the report shows of a claim, a table and a document: numbers as text, axes, commands and links."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.claims.axis import Axis, axis_over, drawing, numbers
from pipeline.claims.evidence import Run
from pipeline.claims.pictures import Picture, behind, hero, thumbnail, words_of
from pipeline.claims.record import writer
from pipeline.claims.schema import Claim, Document, Table, cell_name, rows
from pipeline.claims.stability import OtherRun, elsewhere
from pipeline.claims.verdicts import CANNOT, VERDICTS


@dataclass(frozen=True)
class Sources:
    """Where what stands behind a claim is found. stages: as in dvc.lock; other_runs: their verdicts."""

    recorded: Mapping[str, Run] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    other_runs: list[OtherRun] = field(default_factory=list)


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


def anchor(document: str, claim: str) -> str:
    """The id of a claim in the page: '<document>/<claim>', without what a link may not hold."""
    return re.sub(r"[^\w./+-]", "-", f"{document}/{claim}")


def commands(row: Mapping[str, Any], claim: Claim, sources: Sources) -> list[str]:
    """What makes a claim's number: a recorded run's commands, or the stage that writes its file."""
    run = sources.recorded.get(row["run"])
    if run is not None and run.provenance is not None:
        return run.provenance.commands
    if claim.measure is None:
        return []
    if claim.command and row["verdict"] == CANNOT:
        return [claim.command]
    stage = writer(claim.measure.file, sources.stages)
    return [f"dvc repro {shlex.quote(stage[0])}"] if stage else []


def statement(
    document: str,
    name: str,
    claim: Claim,
    judged: list[dict],
    sources: Sources,
    figures: list[Picture],
    axis: Axis | None = None,
) -> dict[str, Any]:
    """What the page shows of a claim: its headline, and the verdicts of other runs. axis: where it is not its own."""
    first, *others = sorted(judged, key=lambda row: not row["headline"])
    texts = {
        "ours": ours(first, claim),
        "compared": ours(first, claim, "compared_"),
        "published": "" if claim.published is None else str(claim.published),
    }
    repeated = elsewhere(f"{document}/{name}", sources.other_runs)
    return {
        **first,
        **texts,
        "name": name,
        "id": anchor(document, name),
        "claim": claim,
        "axis": drawing(claim, first, axis or axis_over(numbers(claim, first), claim.percent), texts),
        "commands": commands(first, claim, sources),
        "figures": behind(name, claim, figures),
        "others": [{**row, "ours": ours(row, claim)} for row in others],
        "repeated": repeated,
        "same_in": sum(verdict == first["verdict"] for _, verdict in repeated),
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
    cells = [cell for _, row in lines for cell in row]
    stand_ins = dict.fromkeys(cell["claim"].stand_in for cell in cells if cell["claim"].stand_in)
    reasons = Counter(cell["reason"] for cell in cells if cell["verdict"] == CANNOT)
    return {
        "name": name,
        "id": f"table/{cells[0]['document']}/{name}" if cells else name,
        "table": table,
        "lines": lines,
        "cells": cells,
        "notes": notes,
        "stand_ins": list(stand_ins),
        "counts": Counter(cell["verdict"] for cell in cells),
        "reasons": reasons.most_common(4),
    }


def column_axes(
    document: Document, claims: Mapping[str, Claim], judged: Mapping[str, list[dict]]
) -> dict[str, Axis | None]:
    """The axis of each cell of a table: the cells of a column share one."""
    found: dict[str, Axis | None] = {}
    for name, table in document.tables.items():
        for column in table.columns:
            cells = [cell_name(name, words, column) for _, words, _ in rows(table)]
            drawn = [number for cell in cells for number in numbers(claims[cell], headline(judged[cell]))]
            axis = axis_over(drawn, all(claims[cell].percent for cell in cells))
            found |= dict.fromkeys(cells, axis)
    return found


def headline(judged: list[dict]) -> dict:
    return next(row for row in judged if row["headline"])


def section(
    name: str,
    document: Document,
    claims: dict[str, Claim],
    judged: list[dict],
    figures: list[Picture],
    sources: Sources,
) -> dict[str, Any]:
    """All that the page has on one document."""
    by_claim: dict[str, list[dict]] = {}
    for row in judged:
        if row["document"] == name:
            by_claim.setdefault(row["claim"], []).append(row)
    axes = column_axes(document, claims, by_claim)
    statements = {
        key: statement(name, key, claim, by_claim[key], sources, figures, axes.get(key))
        for key, claim in claims.items()
    }
    words, first = words_of(name), hero(name, figures)
    leads = [statements[key] for key in words.leads if key in statements]
    return {
        "name": name,
        "document": document,
        "words": words,
        "leads": leads or [item for item in statements.values() if item["verdict"] != CANNOT][:3],
        "hero": first,
        "thumbnail": thumbnail(first.path) if first else "",
        "counts": Counter(item["verdict"] for item in statements.values() if item["kind"] == "statement"),
        "statements": [item for key, item in statements.items() if key in document.claims],
        "tables": [grid(table, key, statements) for key, table in document.tables.items()],
        "figures": figures,
    }


def totals(judged: list[dict]) -> dict[str, Any]:
    """Counts over all documents: of statements, by what they were judged on, of checks, of verdicts reached."""
    headlines = [row for row in judged if row["headline"]]
    statements = [row for row in headlines if row["kind"] == "statement"]
    return {
        "verdicts": VERDICTS,
        "counts": Counter(row["verdict"] for row in statements),
        "evidence": Counter((row["evidence"], row["verdict"]) for row in statements),
        "checks": Counter(row["verdict"] for row in headlines if row["kind"] == "check"),
        "kinds_of_evidence": sorted({row["evidence"] for row in headlines}),
        "decided": sum(row["verdict"] != CANNOT for row in headlines),
        "on_stand_ins": sum(row["stand_in"] and row["verdict"] != CANNOT for row in headlines),
        "today": {f"{row['document']}/{row['claim']}": row["verdict"] for row in headlines},
    }
