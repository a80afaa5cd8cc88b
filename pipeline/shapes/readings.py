"""The readings of a network with other statistics in batch normalisation, and where their answers lie."""

from __future__ import annotations

from pathlib import Path

from pipeline.shapes.paths import DATA, observer

OWN, TESTED = READINGS = ("own density", "tested density")  # what batch normalisation's statistics are of


def renormalised(density: int) -> Path:
    """Where the answers of a density's networks with other statistics lie (pipeline/shapes/renormalise.py)."""
    return DATA / f"renormalised/{observer(density)}.parquet"
