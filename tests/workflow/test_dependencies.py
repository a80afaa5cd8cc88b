"""dvc.yaml's dependencies are written from imports and from claims.yaml; comments, order and data stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stage import UserError
from pipeline.workflow import dependencies

DVC_YAML = """\
# the whole workflow
stages:
  draw:
    cmd: python -m pipeline.study.draw
    deps:
      - pipeline/study/draw.py
      - pipeline/gone.py        # moved since
      - data/raw
    outs:
      - data/drawn
    metrics:
      - metrics/study.json:
          cache: false

  # judged at last
  claims:
    cmd: python -m pipeline.claims.judge --all yes
    deps:
      - claims.yaml
      - metrics/study.json
      - results/paper
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "study/draw": "from pipeline.study.paths import A\nfrom pipeline import stage, shapes_of\n",
        "study/paths": "def later():\n    import pipeline.shards\n",
        "claims/judge": "",
        "shards": "from pipeline.params import load_params",
        "shapes_of": "import numpy",
        "stage": "",
        "params": "",
    }
    for name, content in files.items():
        path = tmp_path / f"pipeline/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "claims.yaml").write_text("a: {claims: {b: {measure: {file: data/drawn/table.json, value: x}}}}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_code_and_claims_are_written_and_all_else_stays(project):
    with pytest.raises(UserError, match=r"'python -m pipeline.workflow.dependencies' writes it") as error:
        dependencies.main(check="yes")
    assert "draw: +pipeline/shapes_of.py" in str(error.value)
    assert Path("dvc.yaml").read_text() == DVC_YAML
    dependencies.main()
    wanted = DVC_YAML.replace(
        "      - pipeline/gone.py        # moved since\n",
        "      - pipeline/shapes_of.py\n      - pipeline/shards.py\n      - pipeline/study/paths.py\n",
    )
    wanted = wanted.replace(
        "      - claims.yaml\n      - metrics/study.json\n      - results/paper\n",
        "      - pipeline/claims/judge.py\n      - data/drawn\n      - claims.yaml\n      - results/paper\n",
    )
    found = Path("dvc.yaml").read_text()
    assert sorted(found.splitlines()) == sorted(wanted.splitlines())
    assert found.startswith("# the whole workflow\n")
    assert "\n  # judged at last\n  claims:\n" in found
    assert dependencies.main(check="yes") == "2 stages, as they should be,"


def test_a_command_that_is_no_stage_of_ours_is_named(project):
    Path("dvc.yaml").write_text(DVC_YAML.replace("pipeline.study.draw", "pipeline.study.drawn"))
    with pytest.raises(UserError, match=r"python -m pipeline.study.drawn.*of a file that is here"):
        dependencies.main()
