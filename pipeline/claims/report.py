"""report/index.html: what holds, at a glance, and everything behind it, in one file that opens offline.

    python -m pipeline.claims.report          (after `dvc repro`; `make repro` does both)

First what holds, study by study; then every statement, its verdict on an axis and what stands behind it; published
tables with ours beside them; the figures; parameters, versions, commit and cost. Not an output of DVC's: commit and
cost differ from run to run where nothing that was found does.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.claims.costs import busy, by_study, critical_path, last_run, stage_costs
from pipeline.claims.evidence import recorded_runs
from pipeline.claims.guests import guests_html
from pipeline.claims.judge import METRICS, TABLE, THIS_RUN
from pipeline.claims.pictures import pictures
from pipeline.claims.record import commit, machine, read_stages, versions
from pipeline.claims.schema import read_claims
from pipeline.claims.shown import Sources, anchor, section, shown, totals
from pipeline.claims.stability import comparisons, other_runs
from pipeline.params import PATH, load_params, read_yaml
from pipeline.stage import UserError, run, write_bytes

__all__ = ["SECTIONS", "main", "origin", "shown"]

REPORT = Path("report/index.html")
CLASSES = {"reproduced": "reproduced", "not reproduced": "not", "cannot be judged here": "cannot"}
Fill = Callable[[dict[str, Any]], Markup]  # what the page knows -> a section's HTML, '' for no section


def template(name: str, known: dict[str, Any]) -> Markup:
    """A template of page/, filled with what the page knows."""
    return Markup(_environment().get_template(name).render(known))


# What follows the studies, in order: id, title, and what fills it
SECTIONS: list[tuple[str, str, Fill]] = [
    ("guests", "Guests: networks of your own beside the paper's", lambda _: guests_html()),
    ("stability", "How stable the verdicts are", partial(template, "stability.html")),
    ("rules", "How verdicts are given", partial(template, "rules.html")),
    ("runs", "Recorded runs", partial(template, "runs.html")),
    ("cost", "Cost of this run", partial(template, "cost.html")),
    ("settings", "Parameters", partial(template, "settings.html")),
    ("versions", "Versions", partial(template, "versions.html")),
]


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(str(files("pipeline.claims") / "page"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= {"kind": CLASSES, "this_run": THIS_RUN, "anchor": anchor, "whole": _whole}
    return environment


def _whole(name: str) -> Markup:
    """A file of page/ as it is, for the page's style and script."""
    return Markup((files("pipeline.claims") / "page" / name).read_text())


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
    recorded, found = recorded_runs(), totals(judged)
    sources = Sources({run.name: run for run in recorded}, read_stages(), other_runs())
    figures = pictures({name: document for name, (document, _) in claims.items()})
    known: dict[str, Any] = {
        **found,
        "studies": [
            section(name, document, of, judged, figures[name], sources) for name, (document, of) in claims.items()
        ],
        "scale": params.scale,
        "source": params.source,
        "seed": params.seed,
        "commit": commit(),
        "origin": origin(),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(),
        "settings": settings(),
        "costs": by_study(spent),
        "slowest": sorted(spent, key=lambda cost: -cost["with_start"])[:15],
        "busy": busy(last_run(spent)),
        "critical_path": critical_path(last_run(spent)),
        "recorded": recorded,
        "stability": comparisons(found["today"], sources.other_runs),
    }
    filled = [(name, title, fill(known)) for name, title, fill in SECTIONS]
    page = template("page.html", {**known, "sections": [part for part in filled if part[2]]})
    write_bytes(REPORT, page.encode())
    return f"{REPORT}, {len(page) / 2**20:.1f} MiB,"


if __name__ == "__main__":
    run(main)
