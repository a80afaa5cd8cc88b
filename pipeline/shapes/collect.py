"""Bring together the decisions of all networks that params.yaml names: what other stages read, a folder a group.

    python -m pipeline.shapes.collect

DVC leaves the files of networks that params.yaml names no longer; these folders have none of them.
"""

from __future__ import annotations

from pipeline.params import Params, load_params
from pipeline.shapes.paths import Network
from pipeline.stage import run, write_bytes


def networks(params: Params) -> list[Network]:
    """Every training run of the paper's networks, one a density; then of other architectures."""
    variants = params.shapes.variants
    return [
        *(Network(density, run=run) for density in params.densities for run in params.shapes.runs),
        *(Network(variants.density, name, run) for name in variants.architectures for run in variants.runs),
    ]


def main() -> str:
    found = networks(load_params())
    for folder in {trained.predictions.parent for trained in found}:
        for stale in folder.glob("*.parquet"):
            stale.unlink()
    for trained in found:
        write_bytes(trained.predictions, trained.decisions.read_bytes())
    return f"decisions of {len(found)} networks"


if __name__ == "__main__":
    run(main)
