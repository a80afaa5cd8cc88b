"""The report on what is recorded here: small enough, its links lead somewhere, and it can do without scripts."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from recorded import report_of

from pipeline.claims import pictures
from pipeline.claims.pictures import behind, caption, fitting, read_words
from pipeline.claims.schema import Claim, read_claims
from pipeline.claims.stability import OtherRun, comparisons, differences, other_runs
from pipeline.stage import UserError

pytestmark = pytest.mark.slow
LIMIT = 6_000_000  # bytes


class Page(HTMLParser):
    """Ids, links, attributes of claims, and the text that stands outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.claims: dict[str, dict[str, str | None]] = {}
        self.text = ""
        self.images = 0
        self.within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.within.append(tag)
        self.images += tag == "img"
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a":
            self.links.append(str(found["href"]))
        if found.get("class") == "claim":
            self.claims[str(found["id"])] = found
        assert tag != "img" or found.get("alt"), found.get("src", "")[:40]

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.within[-1:]):
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        while self.within and self.within.pop() != tag:
            pass


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text())


@pytest.fixture(scope="module")
def documents() -> dict:
    return read_claims(REPOSITORY / "claims.yaml")


def test_it_is_smaller_than_six_million_bytes_with_all_figures(path, page):
    assert path.stat().st_size < LIMIT
    assert page.images > 20


def test_every_link_leads_somewhere_in_the_page(page):
    twice = [name for name, count in Counter(page.ids).items() if count > 1]
    assert not twice
    assert all(link.startswith("#") for link in page.links)
    assert not {link[1:] for link in page.links} - set(page.ids)


def test_every_claim_is_there_without_scripts(page, documents):
    wanted = sum(len(claims) for _, claims in documents.values())
    assert len(page.claims) == wanted > 400
    assert all("hidden" not in attributes for attributes in page.claims.values())
    assert "countclip/gain" in page.claims
    for document, claims in documents.values():
        assert document.title in page.text
        assert all(claim.says in page.text for claim in claims.values())


def test_a_claim_has_its_value_command_figure_and_other_runs(path):
    text = path.read_text()
    start = text.index('id="implicit-counting/own-test-sets"')
    claim = text[start : text.index("</details>", start)]
    assert "up to 92%" in claim
    assert "<code>dvc repro evaluate_shapes</code>" in claim
    assert 'href="#figure/plots/shapes/accuracy_table"' in claim
    assert re.search(r'<circle class="ours" cx="[\d.]+"', claim)
    recorded = list((path.parent.parent / "results").glob("*/*/claims.json"))
    assert ("Other seeds and machines" in claim) == bool(recorded)


def test_figures_stand_beside_the_published_caption(page):
    assert "Test accuracies of 9 different models on the 9 different test sets." in page.text
    assert "The number in the image by the number answered" in page.text


def test_the_page_s_words_are_of_claims_and_documents_that_there_are(documents):
    words = read_words()
    assert list(words.documents) == list(documents)
    for name, (_, claims) in documents.items():
        of = words.documents[name]
        files = {claim.measure.file for claim in claims.values() if claim.measure}
        assert set(of.leads) <= claims.keys(), name
        for title, figure in of.figures.items():
            for pattern in figure.of:
                only = SimpleNamespace(caption=SimpleNamespace(of=[pattern]))
                assert pattern in files or any(behind(key, claim, [only]) for key, claim in claims.items()), (
                    f"{name}, {title}: no claim is '{pattern}'"
                )


def test_a_figure_without_a_caption_has_its_file_s_name():
    found = caption("implicit-counting", Path("plots/shapes/not_known.png"))
    assert (found.title, found.shows, found.of) == ("Not known", "", [])
    assert caption("implicit-counting", Path("plots/shapes/bias.png")).published


def test_figures_are_made_smaller_until_they_fit(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = sorted((path.parent.parent / "plots/shapes").glob("*.png"))
    large, small = fitting(found), fitting(found, limit=1)
    assert all(small[each][0][0] < large[each][0][0] for each in found if large[each][0][0] > 900)
    assert sum(len(uri) for _, uri in small.values()) < sum(len(uri) for _, uri in large.values())


def test_a_size_that_turns_out_too_large_gives_way_to_the_next(tmp_path, monkeypatch):
    """The last numbers promise that each size is hardly longer than the smallest; of noise it is several times."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "SIZES", ((200, 200, 70, 1.1), (100, 100, 70, 1.1), (50, 50, 70, 1)))
    path = Path("noise.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 200, 3), np.uint8)).save(path)
    limit, widths = pictures.ALL_FIGURES, []
    for _ in range(3):
        (width, _), uri = fitting([path], limit)[path]
        assert len(uri) <= limit
        widths.append(width)
        limit = len(uri) - 1
    assert widths == [200, 100, 50]


def test_only_figures_that_changed_are_encoded_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path("a.png"), Path("b.png")]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (40, 20), colour).save(path)

    def files() -> dict[Path, int]:
        return {kept: kept.stat().st_mtime_ns for kept in Path("report/.figures").iterdir()}

    first, before = fitting(paths), files()
    assert fitting(paths) == first
    assert files() == before
    Image.new("RGB", (40, 20), "green").save(paths[1])
    second, after = fitting(paths), files()
    assert second[paths[0]] == first[paths[0]]
    assert second[paths[1]] != first[paths[1]]
    assert len(after) == len(before)  # what no figure is made of any more goes
    assert len(before.items() & after.items()) == len(before) / 2


def test_verdicts_of_two_runs_are_compared():
    yes, no, cannot = "reproduced", "not reproduced", "cannot be judged here"
    one, other = {"a": yes, "b": yes, "c": cannot, "d": no}, {"a": yes, "b": no, "c": no, "e": yes}
    found = differences(one, other)
    assert found == {"both": 3, "differ": [("b", yes, no), ("c", cannot, no)], "flips": 1}
    pair = [OtherRun("x", Path("x"), one), OtherRun("y", Path("y"), dict.fromkeys(one, yes))]
    assert [(each["one"].name, len(each["differ"])) for each in comparisons({}, pair)["pairs"]] == [("x", 2)]
    assert comparisons({}, [*pair[:1], OtherRun("z", Path("z"), other)])["pairs"] == []  # of other claims


def test_recorded_verdicts_that_are_none_are_an_error(tmp_path):
    folder = tmp_path / "laptop/odd"
    folder.mkdir(parents=True)
    (folder / "claims.json").write_text('{"claims": ["a"]}')
    with pytest.raises(UserError, match=r"laptop/odd/claims.json: not a metrics/claims.json"):
        other_runs(tmp_path)
    (folder / "claims.json").write_text('{"claims": {"a/b": {"verdict": "reproduced"}}}')
    assert [(each.name, each.verdicts) for each in other_runs(tmp_path)] == [("odd", {"a/b": "reproduced"})]


def test_a_claim_without_a_measure_has_no_figure_by_its_file():
    never = Claim.model_validate({"says": "x", "where": "y", "cannot": "z"})
    assert behind("never", never, []) == []
