"""README, CONTRIBUTING and docs are easy to read, and every link in them leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean
from urllib.parse import unquote

import pytest
from conftest import REPOSITORY

from pipeline.pages.numbers import pages
from pipeline.params import read_yaml

LONGEST = 30  # words of a sentence
MEAN = 15
PAGES = [*pages(REPOSITORY), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]
LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def prose(text: str) -> list[str]:
    """Paragraphs, list items and headings of a page, without code, tables, comments, pictures and addresses."""
    text = re.sub(r"^(```|~~~).*?^\1[ \t]*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = LINK.sub(lambda link: link["text"], text)
    text = re.sub(r"`[^`]+`", "code", text)
    blocks, block = [], []
    for line in [*text.splitlines(), ""]:
        begins = re.match(r"\s*([-*+]|\d+\.)\s+|#+ |>\s*", line)
        if begins or not line.strip() or line.startswith(("|", "    ")):
            blocks.append(" ".join(block))
            block = []
        if line.strip() and not line.startswith(("|", "    ")):
            block.append(line[begins.end() :] if begins else line)
    return [" ".join(block.split()) for block in blocks if block.strip()]


def sentences(text: str) -> list[str]:
    found = [
        part for block in prose(text) for part in re.split(r"(?<=[.!?])[\"')*]*\s+(?=[\"'(*\[]*[A-Z0-9a-z])", block)
    ]
    return [sentence for sentence in found if words(sentence)]


def words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def test_words_and_sentences_are_counted_as_a_reader_does():
    text = """\
# A heading

One two three. Four [five](six.md)
`seven eight`! <!--= a; b; c; d -->9.1<!--/-->

| a | table |
|---|---|
- an item: with four
- another

```sh
no words
```
"""
    assert sentences(text) == [
        "A heading",
        "One two three.",
        "Four five code!",
        "9.1",
        "an item: with four",
        "another",
    ]
    assert [words(sentence) for sentence in sentences(text)] == [2, 3, 3, 1, 4, 1]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page):
    found = sentences(page.read_text())
    assert [sentence for sentence in found if words(sentence) > LONGEST] == []
    assert mean(map(words, found)) < MEAN


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page, in addresses."""
    headings = re.findall(
        r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.finditer(page.read_text()):
        target, _, anchor = unquote(link["target"]).partition("#")
        if re.match(r"https?:|mailto:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text())):
            broken.append(link["target"])
    assert broken == []


def test_every_page_is_on_the_list_of_pages():
    index = REPOSITORY / "docs/index.md"
    listed = {(index.parent / link["target"]).resolve() for link in LINK.finditer(index.read_text())}
    there = {page for page in pages(REPOSITORY) if page != index and page.name != "README.md"}
    assert there <= listed


def test_the_site_has_the_pages_of_the_list_in_its_order():
    index = REPOSITORY / "docs/index.md"
    listed = [
        link["target"] for link in LINK.finditer(index.read_text()) if re.match(r"[\w-]+/[\w-]+\.md$", link["target"])
    ]
    shown = [page for part in read_yaml(REPOSITORY / "mkdocs.yml")["nav"] for pages in part.values() for page in pages]
    assert [page for page in shown if isinstance(page, str) and page.endswith(".md")] == listed


def test_readme_is_short():
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text) <= 12_000
