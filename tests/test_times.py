"""Times and speeds that pages give: of the recorded stages, and by arithmetic with the rates that were measured."""

from __future__ import annotations

import json
import re

import pytest
from conftest import REPOSITORY

MACHINES = (REPOSITORY / "docs/reference/machines.md").read_text()
FULL_SCALE = (REPOSITORY / "docs/how-to/full-scale-and-clusters.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    table = re.search(r"^\|.*?(?=\n\n)", text[text.index(f"\n## {heading}\n") :], re.DOTALL | re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def number(text: str) -> float:
    return float(re.search(r"\d[\d,]*(\.\d+)?", text)[0].replace(",", ""))


def test_the_time_of_a_run_is_what_its_stages_took():
    costs = [json.loads(line) for line in (REPOSITORY / "results/laptop/costs.jsonl").read_text().splitlines()]
    minutes = sum(cost["cpu"] for cost in costs) / 60
    for page in (MACHINES, (REPOSITORY / "README.md").read_text()):
        said = int(re.search(r"`make repro` takes some (\d+) minutes", page)[1])
        assert said == pytest.approx(minutes / 2, rel=0.25)  # on two cores, and 'some'; machines.md has the sum


def test_hours_at_full_scale_follow_from_the_rates():
    found = [float(row[-1]) for row in rows(FULL_SCALE, "How long full scale takes on 2 cores")]
    hours = [
        9 * 12 * 8000 / 39.1 / 3600,
        4 * 12 * 8000 / 39.1 / 3600,
        21_020 / 0.97 / 3600,
        12 * 3 * 21_020 / 0.97 / 3600,
        5019 * 3 * 2 / 7.05 / 3600,
        12 * 7800 / 39.1 / 3600,
    ]
    assert found == [pytest.approx(hour, abs=0.5 if hour > 100 else 0.05) for hour in hours]
    assert f"{9 * 12 * 8000 / 13.4 / 3600:.1f} hours" in FULL_SCALE
    for rate in ("39.1 images/s", "0.97 steps/s", "7.05 and 6.05 images/s"):
        assert rate in MACHINES


def test_ratios_are_of_the_speeds_beside_them():
    ours, checked = 0.0, 0
    for what, fast, slow, ratio in rows(MACHINES, "Speed"):
        if not slow or "captions" in what or " and " in fast or ";" in ratio or "resamples" in what:
            continue  # without a reference, or with several numbers in a cell
        ours = number(fast) if fast else ours
        assert ours / number(slow) == pytest.approx(number(ratio), rel=0.03), what
        checked += 1
    assert checked == 10
