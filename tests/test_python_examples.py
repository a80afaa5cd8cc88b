"""The documentation's Python examples give what they say; each page by itself, from top to bottom."""

from __future__ import annotations

import doctest
import re

import pytest
from conftest import REPOSITORY

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EIGHT = (
    "error_consistency",
    "read_trials",
    "fit",
    "caption_count",
    "count_loss",
    "balanced_lambda",
    "score",
    "render",
)


def session(text: str) -> str:
    """A page with all but its Python sessions left blank, so that line numbers stay."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if ">>>" in block[1]:
            first = text[: block.start(1)].count("\n")
            for place, line in enumerate(block[1].splitlines()):
                lines[first + place] = line
    return "\n".join(lines)


PAGES = [page for page in sorted((REPOSITORY / "docs").rglob("*.md")) if ">>>" in session(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_examples_give_what_they_say(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    test = doctest.DocTestParser().get_doctest(session(page.read_text()), {}, page.name, str(page), 0)
    said: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert results.attempted > 0
    assert results.failed == 0, "".join(said)


def test_each_of_the_eight_functions_has_an_example_that_calls_it():
    page = (REPOSITORY / "docs/reference/python.md").read_text()
    called = {name for name in EIGHT if re.search(rf"\b{name}\(", session(page))}
    assert called == set(EIGHT)
    assert re.findall(r"^## (\w+):", page, re.MULTILINE) == list(EIGHT)


def test_a_wrong_example_would_be_found():
    page = "# Page\n\n```python\n>>> 1 + 1\n3\n\n```\n\n```\n>>> not Python\n```\n"
    assert session(page).splitlines()[3:5] == [">>> 1 + 1", "3"]
    test = doctest.DocTestParser().get_doctest(session(page), {}, "page", "page", 0)
    assert doctest.DocTestRunner().run(test, out=lambda _: None) == doctest.TestResults(failed=1, attempted=1)
