"""Does training on small margins only lessen the bias (implicit-counting, Discussion and Further Investigations)?

    dvc exp run --name small -S shapes.max_train_margin=8 evaluate_shapes
    python -m pipeline.shapes.small_margins --every HEAD --small small
    python -m pipeline.claims.record --name shapes-small-margins --files report/small-margins.json:small-margins.json

Two revisions that differ in `shapes.max_train_margin` only, compared as pipeline/shapes/revisions.py says. Both have as
many training images; which they are differs.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.shapes.revisions import answers, compare, only, settings
from pipeline.stage import UserError, run, write_json

COMPARISON = Path("report/small-margins.json")


def main(every: str = "HEAD", small: str = "workspace") -> str:
    """Compare two revisions and write report/small-margins.json.

    Raises:
        UserError: no such revision, nothing run there, or they differ in more than shapes.max_train_margin.
    """
    (before, after), others = settings((every, small), "max_train_margin")
    if before is not None or after is None:
        raise UserError(
            f"shapes.max_train_margin is {before} and {after}; --every names a revision without it (null), --small one "
            "with it"
        )
    only("max_train_margin", others)
    compared = compare(*answers((every, small)), names=("every", "small"))
    write_json(COMPARISON, {"max_train_margin": after, **compared})
    return f"{compared['all']['less_bias']['networks']} networks, in {COMPARISON},"


if __name__ == "__main__":
    run(main, every=str, small=str)
