"""What the document's own Table 2 says of its statements; no training (posenet, section 3.1).

    python -m pipeline.posenet.definitions

Exact: arithmetic on the published cells.
"""

from __future__ import annotations

from pipeline.posenet.paths import TESTS
from pipeline.posenet.published import table_2
from pipeline.stage import run, write_json


def lower_than_natural() -> dict[str, float]:
    """Shares of VGG's and ResNet's cells on black, white and noise that are below the natural image's, by measure."""
    table = table_2()
    natural, *artificial = TESTS
    lower: dict[str, list[bool]] = {"spc": [], "mae": []}
    for (pattern, network, image), cell in table.items():
        if image in artificial and network != "pixels/raw":
            for measure, value, of_natural in zip(lower, cell, table[pattern, network, natural], strict=True):
                assert value is not None and of_natural is not None
                lower[measure].append(value < of_natural)
    shares = {f"{measure}_lower": sum(found) / len(found) for measure, found in lower.items()}
    return {**shares, "cells": len(lower["spc"])}


def main() -> str:
    found = {"table_2": lower_than_natural()}
    write_json("metrics/posenet/definitions.json", found)
    return f"{found['table_2']['cells']} published cells compared"


if __name__ == "__main__":
    run(main)
