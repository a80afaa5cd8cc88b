"""A person takes the networks' test: what the page (../sit.py) and the analysis (../person.py) have in common."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from pipeline.stage import one_line_errors

ANSWERS = ("circle", "square")
TIE = "tie"
NO_ANSWER = "na"  # as in the published trials
MARGINS = "margins/"  # begins the names of margin sets, as in the networks' tables
COLUMNS = ["subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename"]  # modelvshuman's


def condition_name(density: int, margin: int) -> str:
    """A margin set as networks' tables and a sitting's trials name it: 'margins/density-50/margin+4'."""
    return f"{MARGINS}density-{density}/margin{margin:+d}"


def counts_of(condition: str) -> tuple[int, int] | None:
    """Circles and squares of every image of 'margins/density-50/margin+4' (27, 23); None where it is no such name."""
    match = re.fullmatch(MARGINS + r"density-([1-9]\d*)/margin([+-]\d+)", condition)
    if not match:
        return None
    density, margin = int(match[1]), int(match[2])
    if abs(margin) > density or (density + margin) % 2:
        return None
    return (density + margin) // 2, (density - margin) // 2


def answer(main: Callable[..., str], parser: argparse.ArgumentParser) -> None:
    """Run a command that people give and print what it says; a mistake is one line, with exit status 1.

    It is no stage, so the report's costs do not have it.
    """
    options = vars(parser.parse_args())
    with one_line_errors(parser.prog.rpartition("pipeline.")[2]):
        print(main(**options))
