"""Numbers in README and docs are those of their files; and the command that writes them does what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

from pipeline.pages import numbers
from pipeline.stage import UserError

FILE = {
    "accuracy": {"mean": 0.81234, "low": 0.7749, "high": 0.849},
    "gain": {"value": -0.135, "low": -0.208, "high": -0.061},
    "images": 12345,
    "pse": None,
    "pair": "vgg11, vgg16",
    "learning_rate 0.5": {"x": 1.5},
    "rows": [
        {"network": "vgg16", "pattern": "H", "spearman": 0.98, "low": 0.972, "high": 0.99},
        {"network": "vgg16", "pattern": "V", "spearman": 0.5, "low": 0.25, "high": 0.75},
        {"network": "pixels", "pattern": "H", "spearman": -0.04, "low": -0.1, "high": 0.03},
    ],
    "verdicts": {"held": 3, "failed": 4},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "docs/studies").mkdir(parents=True)
    (tmp_path / "results/a.json").write_text(json.dumps(FILE))
    (tmp_path / "README.md").write_text("no numbers\n")
    monkeypatch.chdir(tmp_path)
    numbers._read.cache_clear()
    return tmp_path


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("accuracy.mean; ; .2f", "0.81"),
        ("accuracy.mean; ; percent", "81.2%"),
        ("accuracy; mean; .0%", "81%"),
        ("accuracy; mean, low, high; percent", "81.2% [77.5, 84.9]"),
        ("accuracy; low, high; .2f", "0.77 to 0.85"),
        ("gain; value, low, high; points", "-13.5 [-20.8, -6.1]"),
        ("gain; low; +points", "-20.8"),
        ("images; ; ", "12,345"),
        ("verdicts.sum(); ; ", "7"),
        ("rows.length(); ; ", "3"),
        ("rows.*.spearman.sum(); ; .2f", "1.44"),
        ("images; ; minutes", "206"),
        ("pse; ; .2f", "undefined"),
        ("pair; ; ", "vgg11, vgg16"),
        ("learning_rate 0.5.x; ; ", "1.5"),
        ("rows.1.spearman; ; .1f", "0.5"),
        ("rows.-1.pattern; ; ", "H"),
        ("rows.network=vgg16&pattern=H; spearman, low, high; .3f", "0.980 [0.972, 0.990]"),
        ("rows.spearman=0.5.pattern; ; ", "V"),
        ("; images; ", "12,345"),
    ],
)
def test_a_marker_becomes_its_number(project, says, shown):
    text = f"It is <!--= results/a.json; {says} -->..<!--/--> of all."
    assert numbers.filled(text) == text.replace("..", shown)


def test_a_marker_that_ends_its_line_becomes_a_table(project):
    says = "rows.network=vgg16; pattern, spearman+low+high as rank correlation; .0f, .2f"
    marker = f"<!--= results/a.json; {says} -->\n<!--/-->"
    assert numbers.filled(f"Text.\n\n{marker}\n").splitlines()[3:] == [
        "",
        "| pattern | rank correlation |",
        "| --- | --- |",
        "| H | 0.98 [0.97, 0.99] |",
        "| V | 0.50 [0.25, 0.75] |",
        "",
        "<!--/-->",
    ]


def test_the_keys_of_a_mapping_can_be_a_column(project):
    (project / "results/b.json").write_text(json.dumps({"M10": {"accuracy": 0.5}, "M20": {"accuracy": 0.625}}))
    text = numbers.filled("<!--= results/b.json; ; * as network, accuracy; percent -->\n<!--/-->")
    assert "| network | accuracy |\n| --- | --- |\n| M10 | 50.0% |\n| M20 | 62.5% |" in text


def test_pages_are_written_and_then_the_same(project):
    page = project / "docs/studies/one.md"
    page.write_text("Of <!--= results/a.json; images; ; -->1<!--/--> images.\n")
    with pytest.raises(UserError, match=r"docs/studies/one.md: other numbers than their files; 'python -m"):
        numbers.main(check="yes")
    assert numbers.main() == "1 of 2 pages written"
    assert page.read_text() == "Of <!--= results/a.json; images; ; -->12,345<!--/--> images.\n"
    assert numbers.main(check="yes") == "0 of 2 pages differ"


def test_markers_in_code_are_left_alone(project):
    text = "`<!--= a; b -->..<!--/-->`\n\n```\nx <!--= a; b; c; d -->..<!--/-->\n```\n"
    assert numbers.filled(text) == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("A\nb <!--= results/a.json; c -->..<!--/-->", r"^line 2: .* 2 fields; should be four"),
        (
            "a <!--= results/a.json; accuracy.men; ; -->..<!--/-->",
            r"nothing is called 'men'; there are mean, low, high",
        ),
        ("a <!--= results/b.json; x; ; -->..<!--/-->", r"'results/b.json' is not there"),
        ("a <!--= ../a.json; x; ; -->..<!--/-->", r"'../a.json' should lie below results or metrics/"),
        ("a <!--= results/a.json; rows.7; ; -->..<!--/-->", r"'7' is looked for in a list of 3"),
        ("a <!--= results/a.json; rows.network=alexnet; ; -->..<!--/-->", r"no member has 'network=alexnet'"),
        ("a <!--= results/a.json; rows; ; -->..<!--/-->", r"is a list of 3, not a value"),
        ("a <!--= results/a.json; accuracy.mean; ; .2q -->..<!--/-->", r"'.2q' is no format"),
        ("<!--= results/a.json; images; ; -->..<!--/--> images", r"begins with a marker"),
        ("- <!--= results/a.json; images; ; -->..<!--/--> images", r"begins with a marker"),
        ("a <!--= results/a.json; images; ; -->..", r"a marker has no end"),
    ],
)
def test_what_is_wrong_with_a_marker_is_said(project, text, error):
    with pytest.raises(UserError, match=error):
        numbers.filled(text)


@pytest.mark.parametrize("page", numbers.pages(REPOSITORY), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_numbers_of_a_page_are_those_of_its_files(page):
    text = page.read_text()
    assert text == numbers.filled(text, REPOSITORY), "'python -m pipeline.pages.numbers' writes them"
