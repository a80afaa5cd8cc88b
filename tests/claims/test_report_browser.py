"""The report in a real browser: filter, search, links, a phone's width, dark mode, print, and what axe-core finds."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooch
import pytest
import requests
from browser import PATIENCE, chromium  # noqa: F401 (a fixture)
from recorded import report_of

pytestmark = pytest.mark.slow

AXE = "https://registry.npmjs.org/axe-core/-/axe-core-4.10.3.tgz"
AXE_SHA256 = "0f2b4d7dcdf7d1219df8d1959ad68e565f51d14c3f0d88bb71cd59abeb956292"
SHOWN = "[...document.querySelectorAll('details.claim')].filter(claim => claim.offsetParent !== null)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_of(tmp_path_factory.mktemp("report"), pictures="accuracy_table.png").as_uri()


@pytest.fixture
def opened(chromium: Any, report: str) -> Iterator[Any]:  # noqa: F811
    """opened(place, **options of a context) is the report's page at a place; it may have no error in its console."""
    contexts, errors = [], []

    def open_(place: str = "", width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report + place)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors


def test_claims_are_filtered_by_document_verdict_and_evidence(opened):
    page = opened()
    assert page.is_visible("#filters")
    page.select_option("select[name=document]", "posenet")
    page.select_option("select[name=verdict]", "reproduced")
    found = page.evaluate(f"{SHOWN}.map(claim => [claim.dataset.document, claim.dataset.verdict])")
    assert len(found) > 5
    assert {tuple(each) for each in found} == {("posenet", "reproduced")}
    assert f"{len(found)} of " in page.text_content("#filters output")
    page.select_option("select[name=verdict]", "")
    page.select_option("select[name=evidence]", "definitions")
    assert set(page.evaluate(f"{SHOWN}.map(claim => claim.dataset.evidence)")) == {"definitions"}
    page.click("#filters button[type=reset]")
    page.wait_for_function("!document.body.classList.contains('filtered')")
    assert set(page.evaluate(f"{SHOWN}.map(claim => claim.dataset.document)")) >= {"posenet", "countclip"}


def test_search_finds_words_in_any_order_and_cells_of_tables(opened):
    page = opened()
    page.fill("input[name=text]", "remarkable ACCURACY")
    assert "implicit-counting/own-test-sets" in page.evaluate(f"{SHOWN}.map(claim => claim.id)")
    page.fill("input[name=text]", "table-2/H/")
    assert page.evaluate(f"{SHOWN}.length") > 10  # the fold that has them is open
    page.fill("input[name=text]", "no claim has these words")
    assert page.evaluate(f"{SHOWN}.length") == 0
    assert "0 of " in page.text_content("#filters output")


def test_a_count_of_the_first_screen_shows_its_claims(opened):
    page = opened()
    page.click(".totals a[data-set-verdict='not reproduced']")
    assert set(page.evaluate(f"{SHOWN}.map(claim => claim.dataset.verdict)")) == {"not reproduced"}


@pytest.mark.parametrize("name", ["countclip/gain", "posenet/table-2/H/VGG/bear-SPC"])
def test_a_link_opens_its_claim(opened, name):
    page = opened()
    known = page.evaluate("[...document.querySelectorAll('details.claim')].map(claim => claim.id)")
    name = name if name in known else next(each for each in known if each.startswith(name[:16]))
    other = opened(f"#{name}")
    assert other.evaluate("name => document.getElementById(name).open", name)
    box = other.locator(f"[id='{name}']").bounding_box()
    assert 0 <= box["y"] < 900
    assert other.is_visible(f"[id='{name}'] dl")


def test_a_link_opens_a_claim_that_the_filter_had_hidden(opened):
    page = opened()
    page.select_option("select[name=document]", "posenet")
    page.evaluate("location.hash = '#countclip/gain'")
    page.wait_for_selector("[id='countclip/gain'] dl", state="visible")


def test_the_figure_behind_a_claim_is_one_click_away(opened):
    page = opened("#implicit-counting/own-test-sets")
    page.click("[id='implicit-counting/own-test-sets'] a[href^='#figure/']")
    figure = page.locator("[id='figure/plots/shapes/accuracy_table']")
    figure.locator("img").wait_for(state="visible")
    assert 0 <= figure.bounding_box()["y"] < 900


def test_claims_open_by_the_keyboard(opened):
    page = opened()
    page.focus("[id='implicit-counting/own-test-sets'] > summary")
    page.keyboard.press("Enter")
    assert page.is_visible("[id='implicit-counting/own-test-sets'] dl")


@pytest.mark.parametrize("place", ["", "#implicit-counting/own-test-sets", "#posenet"])
def test_a_phone_needs_no_sideways_scroll(opened, place):
    page = opened(place, width=360, height=780)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_dark_mode_has_other_colours(opened):
    colours = {}
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        style = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        colours[scheme] = [sum(map(int, each[4:-1].split(","))) for each in style]
    assert colours["light"][0] > 600 > 200 > colours["light"][1]  # sums of red, green and blue: dark on light
    assert colours["dark"][0] < 200 < 600 < colours["dark"][1]


@pytest.mark.parametrize("scripts", [True, False])
def test_print_shows_what_is_folded(opened, scripts):
    page = opened(java_script_enabled=scripts)
    page.emulate_media(media="print")
    if scripts:
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("[...document.querySelectorAll('details')].every(each => each.open)")
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert not page.evaluate("document.querySelector('details.claim').open")
    body = page.locator("[id='implicit-counting/own-test-sets'] dl")
    assert body.bounding_box()["height"] > 20
    assert not page.is_visible("#filters")


def test_without_scripts_everything_can_be_read(opened):
    page = opened(java_script_enabled=False)
    assert not page.is_visible("#filters")
    page.click("[id='implicit-counting/own-test-sets'] > summary")
    assert page.is_visible("[id='implicit-counting/own-test-sets'] dl")


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script, from npm's registry; the tarball is kept where pooch keeps what it fetches."""
    try:
        archive = pooch.retrieve(AXE, AXE_SHA256, path=pooch.os_cache("axe-core"), progressbar=False)
    except requests.RequestException as error:
        pytest.skip(f"axe-core is not there, and cannot be fetched: {type(error).__name__}")
    with tarfile.open(Path(archive)) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, axe, scheme):
    page = opened("#implicit-counting/own-test-sets", color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details.cells').forEach(each => each.remove())")  # hundreds alike
    page.evaluate(axe)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    serious = [(each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in SERIOUS]
    assert not serious


SERIOUS = ("serious", "critical")
