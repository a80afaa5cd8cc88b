"""dvc.yaml: a stage that does not name what it reads would be taken for up to date when it is not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML

HOUSE = {"pipeline/stage.py", "pipeline/params.py"}  # command line and validation: no result depends on them
STAGES = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]


def imported(path: Path) -> set[Path]:
    """The project's modules that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    files = (REPOSITORY / f"{name.replace('.', '/')}.py" for name in names if name.startswith("pipeline"))
    return {file for file in files if file.exists()}


def all_imported(path: Path) -> set[str]:
    found, todo = set(), {path}
    while todo:
        module = todo.pop()
        found.add(module)
        todo |= imported(module) - found
    return {str(module.relative_to(REPOSITORY)) for module in found}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(name):
    stage = STAGES[name]
    module = next(word for word in stage["cmd"].split() if word.startswith("pipeline."))
    declared = {path for path in stage["deps"] if path.endswith(".py")}
    assert declared == all_imported(REPOSITORY / f"{module.replace('.', '/')}.py") - HOUSE


@pytest.mark.parametrize("name", STAGES)
def test_studies_do_not_import_one_another(name):
    module = next(word for word in STAGES[name]["cmd"].split() if word.startswith("pipeline."))
    code = all_imported(REPOSITORY / f"{module.replace('.', '/')}.py")
    assert len({path.split("/")[1] for path in code if path.count("/") == 2}) == 1


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_is_for(name):
    assert len(STAGES[name]["desc"]) > 20
