"""How much of the bias comes of ties being coded as squares (implicit-counting, Results and Discussion)?

    dvc exp run --name soft -S shapes.target=soft evaluate_shapes
    python -m pipeline.shapes.ties --hard HEAD --soft soft
    python -m pipeline.claims.record --name shapes-ties --files report/ties.json:ties.json

Two revisions that differ in `shapes.target` only, compared as pipeline/shapes/revisions.py says.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.shapes.revisions import answers, compare, only, settings
from pipeline.stage import UserError, run, write_json

COMPARISON = Path("report/ties.json")


def main(hard: str = "HEAD", soft: str = "workspace") -> str:
    """Compare two revisions and write report/ties.json.

    Raises:
        UserError: no such revision, nothing run there, or they differ in more than shapes.target.
    """
    found, others = settings((hard, soft), "target")
    if found != ["hard", "soft"]:
        raise UserError(f"shapes.target is '{found[0]}' and '{found[1]}'; --hard and --soft name revisions with each")
    only("target", others)
    compared = compare(*answers((hard, soft)))
    write_json(COMPARISON, compared)
    return f"{compared['all']['less_bias']['networks']} networks, in {COMPARISON},"


if __name__ == "__main__":
    run(main, hard=str, soft=str)
