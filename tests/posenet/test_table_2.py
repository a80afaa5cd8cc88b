"""Table 2 as the document has it, and as claims.yaml does: two transcriptions that share no code."""

from __future__ import annotations

import re

import pytest
from conftest import REPOSITORY, published_inputs
from ruamel.yaml import YAML


@pytest.fixture(scope="module")
def document() -> str:
    path = published_inputs().parent / "papers" / "posenet.md"
    if not path.exists():
        pytest.skip("no papers/posenet.md beside the folder that STUDIES_MIRROR names: the document is not at hand")
    return path.read_text()


def cells(line: str) -> list[str]:
    return [cell for cell in re.split(r"[\s|]+", line.strip()) if cell]


def published(document: str) -> dict[tuple[str, str], list[str]]:
    """{(pattern, network): the eight cells} of the lines between the table's head and its caption."""
    table = document[: document.index("Table 2: Quantitative comparison")]
    rows, pattern = {}, None
    for line in table[table.rindex("Model\t") :].splitlines():
        if len(words := cells(line)) == 10:
            pattern, *words = words
        if len(words) == 9 and words[0] in ("PosENet", "VGG", "ResNet"):
            rows[pattern, words[0]] = words[1:]
    return rows


def test_the_document_and_claims_have_the_same_cells(document):
    theirs = published(document)
    assert len(theirs) == 15
    claims = YAML(typ="safe").load(REPOSITORY / "claims.yaml")["posenet"]["tables"]["table-2"]
    assert claims["columns"] == [
        f"{image}-{score}" for image in ("bear", "black", "white", "noise") for score in ("SPC", "MAE")
    ]
    ours = {(line.split()[0], line.split()[1]): line.split()[2:] for line in claims["cells"].strip().splitlines()}
    assert ours == theirs


def test_the_documents_columns_are_in_that_order(document):
    head = document[document.rindex("Model\t", 0, document.index("Table 2: Quantitative")) :].splitlines()[:2]
    assert cells(head[0].replace("UoS Bear", "Bear")) == ["Model", "Bear", "Black", "White", "Noise"]
    assert cells(head[1]) == ["SPC", "MAE"] * 4
