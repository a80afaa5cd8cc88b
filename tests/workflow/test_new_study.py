"""CONTRIBUTING.md's way to add a study, with one of some 60 lines: what it takes, and that it runs and is judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import edit_params
from ruamel.yaml import YAML
from workflow_helpers import clone, ran, run

pytestmark = pytest.mark.slow

PARAMS = '''
from typing import Annotated
from pydantic import Field
from pipeline.section import Section

class Coins(Section):
    """How many coins are tossed, and how often one shows heads."""
    tosses: Annotated[int, Field(ge=1)]
    heads: Annotated[float, Field(ge=0, le=1)]
'''
TOSS = '''
"""Toss coins."""
from pipeline.params import load_params
from pipeline.shards import item_rng
from pipeline.stage import run, write_json

def main() -> str:
    params = load_params()
    coins = params.coins
    heads = item_rng(params.seed, "coins/toss").random(coins.tosses) < coins.heads
    write_json("data/coins/tosses.json", heads.astype(int).tolist())
    return f"{coins.tosses} tosses"

if __name__ == "__main__":
    run(main)
'''
COUNT = '''
"""How often is it heads?"""
import json
from pathlib import Path
import numpy as np
from pipeline.stage import run, write_json
from pipeline.statistics.intervals import wilson

def main() -> str:
    tosses = np.array(json.loads(Path("data/coins/tosses.json").read_text()))
    low, high = wilson(tosses.sum(), np.array(len(tosses)))
    write_json("metrics/coins.json", {"heads": tosses.mean(), "low": float(low), "high": float(high)})
    return "heads counted"

if __name__ == "__main__":
    run(main)
'''
STAGES = """
  toss_coins:
    desc: Toss coins, and keep what they show
    cmd: python -m pipeline.coins.toss
    deps:
      - pipeline/coins/toss.py
    params: [seed, coins]
    outs:
      - data/coins/tosses.json

  count_heads:
    desc: How often it is heads, with an interval
    cmd: python -m pipeline.coins.count
    deps:
      - data/coins/tosses.json
    metrics:
      - metrics/coins.json

"""
CLAIMS = """
coins:
  title: On coins
  authors: nobody
  study: coins
  figures: []
  claims:
    unfair:
      says: This coin shows heads more often than not
      where: nowhere
      published: more often
      measure: {file: metrics/coins.json, value: heads}
      rule: {above: 0.5}
      judged_at: {scale: [smoke, laptop, paper]}
"""


def add(folder: Path) -> None:
    """What CONTRIBUTING.md says."""
    for name, content in {"params": PARAMS, "toss": TOSS, "count": COUNT, "__init__": ""}.items():
        path = folder / f"pipeline/coins/{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.lstrip())
    params = folder / "pipeline/params.py"
    text = params.read_text().replace("    scales: Scales\n", "    coins: Coins\n    scales: Scales\n", 1)
    params.write_text(
        text.replace("from pipeline.stage", "from pipeline.coins.params import Coins\nfrom pipeline.stage", 1)
    )
    edit_params(folder / "params.yaml", {"coins": {"tosses": 400, "heads": 0.7}})
    dvc_yaml = folder / "dvc.yaml"
    dvc_yaml.write_text(dvc_yaml.read_text().replace("\nstages:\n", "\nstages:" + STAGES, 1))
    with (folder / "claims.yaml").open("a") as file:
        file.write(CLAIMS)


def test_a_study_of_sixty_lines(tmp_path):
    assert sum(len(part.strip().splitlines()) for part in (PARAMS, TOSS, COUNT, STAGES, CLAIMS)) < 80
    folder = clone(tmp_path / "clone")
    add(folder)
    said = run(sys.executable, "-m", "pipeline.workflow.dependencies", cwd=folder).stdout
    assert "count_heads: +pipeline/coins/count.py +pipeline/statistics/intervals.py" in said
    stages = YAML(typ="safe").load(folder / "dvc.yaml")["stages"]
    assert stages["toss_coins"]["deps"] == ["pipeline/coins/toss.py", "pipeline/shards.py"]
    assert "metrics/coins.json" in stages["claims"]["deps"]
    command = (sys.executable, "-m", "pipeline.workflow.reproduce", "--target", "count_heads")
    assert ran(run(*command, cwd=folder)) == {"toss_coins", "count_heads"}
    found = json.loads((folder / "metrics/coins.json").read_text())
    assert found["low"] < 0.7 < found["high"]
    judged = run(sys.executable, "-m", "pipeline.claims.judge", cwd=folder)  # of all others, there are no numbers
    assert "statements" in judged.stdout
    verdicts = json.loads((folder / "metrics/claims.json").read_text())["claims"]
    assert verdicts["coins/unfair"]["verdict"] == "reproduced"
    misspelt = run("dvc", "exp", "run", "-S", "coins.tosess=3", "count_heads", cwd=folder, check=False)
    assert misspelt.returncode != 0
