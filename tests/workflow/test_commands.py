"""docs/reference/commands.md has every command that there is, beside those of the stages, and every target of make."""

from __future__ import annotations

import re

from conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/reference/commands.md").read_text()
SHARED = "pipeline.stage"  # what all of them end with


def commands() -> set[str]:
    """Modules that can be run."""
    files = [*REPOSITORY.glob("pipeline/**/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    run = [file for file in files if re.search(r"^if __name__ == .__main__.", file.read_text(), re.MULTILINE)]
    return {".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in run} - {SHARED}


def test_every_command_is_on_the_page():
    stages = set(re.findall(r"python -m ([\w.]+)", (REPOSITORY / "dvc.yaml").read_text()))
    assert sorted(name for name in commands() - stages if name not in PAGE) == []


def test_the_page_has_no_command_that_is_none():
    assert set(re.findall(r"python -m ((?:pipeline|benchmarks)[\w.]+)", PAGE)) - commands() == set()


def test_every_target_of_make_is_on_the_page():
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in targets.split() if f"| `make {target}" not in PAGE] == []
