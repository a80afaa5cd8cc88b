"""What of the five documents holds? Every statement of claims.yaml against this run's numbers and the recorded ones.

    python -m pipeline.claims.judge

A verdict by the rules of pipeline/claims/verdicts.py: reproduced, not reproduced, or cannot be judged here, and why.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.claims.evidence import Run, recorded_runs
from pipeline.claims.schema import Claim, Document, read_claims
from pipeline.claims.verdicts import CANNOT, NOT, REPRODUCED, VERDICTS, Verdict, in_words, judge
from pipeline.figures import figure
from pipeline.params import load_params
from pipeline.stage import run, write_json

THIS_RUN = "this run"
METRICS, TABLE, FIGURE = Path("metrics/claims.json"), Path("plots/claims.json"), Path("plots/claims.png")
COLOURS = {REPRODUCED: "#009E73", NOT: "#D55E00", CANNOT: "#bdbdbd"}


def evidence(claim: Claim) -> str:
    """What a statement is judged on, by the file that its number is in.

    'definitions': formulas, arithmetic on the document's own numbers, and simulated observers, whose kappa is known: no
    experiment. 'published answers': those of the documents' own observers, analysed anew: trials, and confusion
    matrices. 'experiments': what was drawn, trained and measured here. 'nothing', where nothing here can judge it.
    """
    if claim.measure is None:
        return "nothing"
    file = Path(claim.measure.file)
    if file.name == "definitions.json":
        return "definitions"
    if file.name == "published_answers.json":
        return "published answers"
    if "consistency/trials" in file.with_suffix("").as_posix():
        return "published answers" if "published" in claim.judged_at.source else "definitions"
    return "experiments"


def row(document: str, name: str, claim: Claim, verdict: Verdict, first: bool) -> dict:
    """A verdict as a row of plots/claims.json. first: whether it is the claim's headline."""
    number, other, at = verdict.number, verdict.other, verdict.run
    return {
        "document": document,
        "claim": name,
        "kind": claim.kind,
        "evidence": evidence(claim),
        "stand_in": claim.stand_in is not None,
        "headline": first,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "published": None if claim.published is None else str(claim.published),
        "value": number.value if number else None,
        "low": number.low if number else None,
        "high": number.high if number else None,
        "compared_with": other.value if other else None,
        "compared_low": other.low if other else None,
        "compared_high": other.high if other else None,
        "rule": in_words(claim.rule) if claim.rule else None,
        "run": at.name if at else None,
        "scale": at.scale if at else None,
        "source": at.source if at else None,
    }


def verdicts(claims: dict[str, tuple[Document, dict[str, Claim]]], runs: list[Run]) -> list[dict]:
    """A row for each claim and run that can judge it, the headline first; one for a claim that none can."""
    return [
        row(document, name, claim, verdict, first=place == 0)
        for document, (_, of_document) in claims.items()
        for name, claim in of_document.items()
        for place, verdict in enumerate(judge(claim, runs))
    ]


def summary(rows: list[dict]) -> dict:
    """Counts of verdicts: on statements, in all, by document and by `evidence`; on checks; and each claim's."""
    headlines = [row for row in rows if row["headline"]]
    statements = [row for row in headlines if row["kind"] == "statement"]

    def counts(of: list[dict]) -> dict[str, int]:
        found = Counter(row["verdict"] for row in of)
        return {verdict.replace(" ", "_"): found[verdict] for verdict in VERDICTS}

    documents = dict.fromkeys(row["document"] for row in headlines)
    return {
        "counts": counts(statements),
        "by_document": {name: counts([row for row in statements if row["document"] == name]) for name in documents},
        "by_evidence": {
            of: counts([row for row in statements if row["evidence"] == of])
            for of in sorted({row["evidence"] for row in statements})
        },
        "checks": counts([row for row in headlines if row["kind"] == "check"]),
        "claims": {f"{row['document']}/{row['claim']}": {"verdict": row["verdict"]} for row in headlines},
    }


def draw(rows: list[dict]) -> None:
    """How many statements of each document have which verdict."""
    headlines = [row for row in rows if row["headline"] and row["kind"] == "statement"]
    documents = list(dict.fromkeys(row["document"] for row in headlines))[::-1]
    with figure(FIGURE, figsize=(8, 0.5 * len(documents) + 1.5)) as (drawing, ax):
        left = [0] * len(documents)
        for verdict in VERDICTS:
            counts = [sum(r["document"] == d and r["verdict"] == verdict for r in headlines) for d in documents]
            ax.barh(documents, counts, left=left, color=COLOURS[verdict], label=verdict)
            for place, (count, start) in enumerate(zip(counts, left, strict=True)):
                if count:
                    ax.text(start + count / 2, place, str(count), ha="center", va="center", fontsize=9)
            left = [a + b for a, b in zip(left, counts, strict=True)]
        ax.set(xlabel="statements, cells of tables among them")
        ax.grid(axis="y", visible=False)
        ax.set_title("What holds of the five documents' statements")
        drawing.legend(loc="outside lower center", ncols=3)


def main() -> str:
    params = load_params()
    runs = [Run(THIS_RUN, params.scale, params.source), *recorded_runs()]
    rows = verdicts(read_claims(), runs)
    found = summary(rows)
    write_json(METRICS, found)
    write_json(TABLE, rows)
    draw(rows)
    counts = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in found["counts"].items())
    return f"{sum(found['counts'].values())} statements: {counts};"


if __name__ == "__main__":
    run(main)
