"""The page of parameters is what schema and params.yaml give, and says what a person needs of a key."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import pytest
from conftest import REPOSITORY, edit_params
from pydantic import Field, TypeAdapter

from pipeline.pages import parameters
from pipeline.pages.meanings import MEANINGS, meaning
from pipeline.section import Densities, Probability, Section
from pipeline.stage import UserError


def test_the_page_is_current(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert parameters.main(check="yes").startswith("docs/reference/parameters.md")


def test_a_changed_value_is_written(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    edit_params(Path("params.yaml"), {"lambda": "modal", "scales.paper.shapes.resolution": 512})
    with pytest.raises(UserError, match=r"'python -m pipeline.pages.parameters' writes it"):
        parameters.main(check="yes")
    parameters.main()
    text = parameters.PAGE.read_text()
    assert (
        "| `lambda` | one of `one`, `norm`, `modal`, `log`, `log_once` | `modal` | How the weight of CountCLIP's"
        in text
    )
    assert "| `shapes.resolution` | integer, at least 16 and at most 4096 | `32` | `64` | `512` |" in text
    assert parameters.main(check="yes")


def test_every_key_has_a_meaning_in_a_sentence():
    rows = [line for line in (REPOSITORY / parameters.PAGE).read_text().splitlines() if line.startswith("| `")]
    said = [row.replace("\\|", "").rsplit(" | ", 1)[1].removesuffix(" |") for row in rows]
    assert [row for row, words in zip(rows, said, strict=True) if not words.endswith(".") or words[:1].islower()] == []


def test_each_meaning_is_of_a_key():
    """One whose key was renamed or taken away would say nothing, or what is no longer so."""
    keys = [line.split("`")[1] for line in (REPOSITORY / parameters.PAGE).read_text().splitlines() if "| `" in line]
    of = {next((pattern for pattern in MEANINGS if fnmatchcase(key, pattern)), "") for key in keys}
    of |= {
        next((pattern for pattern in MEANINGS if fnmatchcase(f"{side}.{key}", pattern)), "")
        for key in keys
        for side in parameters.SIDES
    }
    assert set(MEANINGS) - of == set()


def test_a_key_without_a_meaning_has_its_comment():
    comments = {"coins.tosses": "tosses of a coin", "scales.laptop.coins.people": "who toss"}
    assert meaning("coins.tosses", comments) == "tosses of a coin"
    assert meaning("scales.coins.people", comments, "scales.laptop.coins.people") == "who toss"
    assert meaning("coins.others", comments) == ""


def test_every_key_has_a_line():
    content = parameters.read_yaml(REPOSITORY / "params.yaml")
    text = (REPOSITORY / parameters.PAGE).read_text()
    for key in ("seed", "shapes.scene.canvas", "posenet.training.sgd.momentum", "consistency.sets.counters.distance"):
        assert f"| `{key}` |" in text
    for scale in content["scales"].values():
        for study, keys in scale.items():
            assert [key for key in keys if f"| `{study}.{key}" not in text] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Probability, "number, at least 0 and at most 1"),
        (Densities, "list, at least 1; each: integer, at least 1 and at most 1000"),
        (str | None, "text, or `null`"),
        (bool, "`true` or `false`"),
        (dict[str, float], "mapping; keys: a name; values: number"),
    ],
)
def test_allowed_values_are_put_in_words(annotation, words):
    assert parameters.allowed(TypeAdapter(annotation).json_schema()) == words


class Guest(Section):
    name: str
    weights: str | None = None


class Study(Section):
    guests: list[Guest]
    named: dict[Annotated[str, Field(pattern="^[a-z]+$")], float]


def test_a_list_of_sections_has_their_keys():
    content = {"guests": [], "named": {}}
    assert list(parameters.leaves(Study, content)) == [
        ("guests", "list; each: mapping with `name` (text), `weights` (text, or `null`)", []),
        ("named", "mapping; keys: text that matches `^[a-z]+$`; values: number", {}),
    ]


def test_comments_are_found_behind_before_and_below_a_key():
    text = """\
# the whole file

scale: laptop         # smoke | laptop        how much: images
                      # and epochs
shapes:               # a study
  # before it
  grey: [0, 255]      # behind it
  runs: [0]
  way: one            # one (Eq. 2) | all (Eq. 7)
  kinds: [a]          # a | b
"""
    assert parameters.comments(text) == {
        "scale": "how much: images and epochs",
        "shapes": "a study",
        "shapes.grey": "before it behind it",
        "shapes.way": "one (Eq. 2) | all (Eq. 7)",
    }
