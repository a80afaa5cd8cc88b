"""A sitting from end to end in a real browser: a script sees the images, presses keys, and its bias comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from browser import chromium  # noqa: F401 (a fixture)
from sitting_helpers import draw_sets, library  # noqa: F401 (a fixture)

from pipeline.consistency.person import psychometrics, read_sitting
from pipeline.consistency.sit import main, parser
from pipeline.shards import item_rng, read_shard

pytestmark = pytest.mark.slow

BIAS, NOISE = 3, 2.5  # the script answers 'circle' where circles - squares + BIAS + noise > 0; NOISE: its sd
MARGINS = (-8, -4, 0, 4, 8)
# Keeps the pixels of each image that is on the screen, and says on the body how many there were.
WATCH = """
window.seen = [];
let last = null;
function look() {
  const canvas = document.querySelector("canvas[data-part=image]");
  if (canvas && canvas !== last) {
    last = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    window.seen.push(Array.from(data).filter((_, i) => i % 4 === 0));
    document.body.dataset.seen = window.seen.length;
  }
}
new MutationObserver(look).observe(document, { childList: true, subtree: true });
"""


@pytest.fixture
def sit(workspace, chromium, library, tmp_path) -> Iterator[Callable[..., Any]]:  # noqa: F811
    """sit(*arguments) makes a page of 50 shapes an image, and opens it.

    What goes wrong in it, or is asked of elsewhere, is in sit.wrong, and fails the test.
    """
    folder = workspace()
    wrong: list[str] = []

    def open_page(*arguments: str) -> Any:
        draw_sets(folder, density=50, margins=MARGINS, images=14, resolution=64)
        main(**vars(parser().parse_args([*arguments, "--library", str(library)])))
        page = chromium.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("request", lambda asked: asked.url.startswith(("data:", "file:")) or wrong.append(asked.url))
        page.add_init_script(WATCH)
        page.goto((folder / "report/sitting.html").as_uri())
        return page

    open_page.wrong = wrong
    yield open_page
    assert wrong == []


def known_images() -> dict[bytes, tuple[str, int]]:
    """By the pixels of an image: its condition and name, and circles - squares."""
    found = {}
    for margin in MARGINS:
        for sample in read_shard(f"data/shapes/margins/density-50/margin{margin:+d}.tar"):
            pixels = cv2.imdecode(np.frombuffer(sample["png"], np.uint8), cv2.IMREAD_GRAYSCALE)
            found[pixels.tobytes()] = (f"margins/density-50/margin{margin:+d}/{sample['__key__']}", margin)
    return found


def enter(page: Any, code: str) -> None:
    """Through consent, the code, and the page that says how it goes."""
    page.get_by_role("button", name="I have read this and take part").click()
    page.fill("#code", code)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="How it goes").wait_for()
    page.keyboard.press(" ")


def next_image(page: Any, number: int, known: dict[bytes, tuple[str, int]]) -> tuple[str, int]:
    """The image that is on the screen as the number-th, by its pixels; a break before it is ended."""
    page.wait_for_selector(f"h2, body[data-seen='{number}']", state="attached")
    if page.query_selector("h2"):
        page.keyboard.press(" ")
    page.wait_for_selector(f"body[data-seen='{number}']", state="attached")
    pixels = np.array(page.evaluate("() => window.seen.at(-1)"), np.uint8)
    return known[pixels.tobytes()]


def answer(page: Any, key: str) -> None:
    page.wait_for_selector("canvas[data-part=mask]", state="attached")
    page.keyboard.press("x")  # no key of the test: nothing should come of it
    page.keyboard.press(key)
    page.wait_for_selector("canvas[data-part=mask]", state="detached")


def finished(page: Any, tmp_path: Path) -> Path:
    """The file that the browser saved."""
    page.get_by_role("heading", name="Thank you").wait_for()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save it again").click()
    path = tmp_path / saved.value.suggested_filename
    saved.value.save_as(path)
    return path


def test_a_planted_bias_comes_out_within_its_interval(sit, tmp_path):
    """40 trials of a script that sees the images and favours circles by three shapes."""
    page = sit(
        "--margins=-8,-4,0,4,8", "--trials", "8", "--practice", "4", "--rest", "25",
        "--fixation", "50", "--image", "150", "--mask", "50", "--answer", "20000",
    )  # fmt: skip
    known = known_images()
    enter(page, "planted")
    for number in range(1, 5):
        _, margin = next_image(page, number, known)
        answer(page, "f")
        said = page.get_by_text("more circles.").or_(page.get_by_text("more squares.")).inner_text()
        assert said == ("Right: more circles." if margin > 0 else "Wrong: more squares.")

    answered = {}
    for number in range(5, 45):
        name, margin = next_image(page, number, known)
        noise = NOISE * item_rng(0, f"noise/{name}").standard_normal()
        answered[name] = "circle" if margin + BIAS + noise > 0 else "square"
        answer(page, {"circle": "f", "square": "j"}[answered[name]])
    file = finished(page, tmp_path)

    assert file.name == "subject-planted_session-1.csv"
    assert pd.read_csv(file, dtype=str).equals(
        pd.DataFrame(
            [row.strip('"').split('","') for row in page.input_value("#trials").split()[1:]],
            columns=["subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename"],
        )
    )
    assert page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length") == 0
    saved = pd.read_csv(file)
    names = saved["condition"] + "/" + saved["imagename"].str.rpartition("_")[2]
    assert dict(zip(names, saved["object_response"], strict=True)) == answered
    assert names.tolist() == list(answered)
    assert names.tolist() != sorted(answered), "in random order"
    assert saved["trial"].tolist() == list(range(1, 41))

    trials = read_sitting([file])
    assert trials["margin"].value_counts().to_dict() == dict.fromkeys(MARGINS, 8)
    pse, low, high = psychometrics(trials, seed=0)[50]["pse"]
    assert low < -BIAS < high
    assert high < 0, f"the bias is told from none: {pse} [{low}, {high}]"


def test_who_does_not_answer_is_recorded_so_and_the_image_is_there_as_long_as_asked(sit, tmp_path):
    page = sit(
        "--margins=-8,8", "--trials", "3", "--practice", "0", "--image", "300", "--mask", "50", "--answer", "100"
    )
    enter(page, "asleep")
    page.get_by_role("heading", name="Now the test").wait_for()
    page.keyboard.press(" ")
    trials = read_sitting([finished(page, tmp_path)])
    assert trials["response"].tolist() == ["na"] * 6
    assert trials["rt"].isna().all()
    assert not trials["correct"].any()
    words = page.get_by_text("The images were shown for").inner_text()
    median = int(words.split()[5])
    assert 295 <= median < 500, words


def test_a_code_with_other_signs_is_not_taken_and_nothing_can_be_sent(sit):
    page = sit("--margins=-8,8", "--trials", "1")
    page.get_by_role("button", name="I have read this and take part").click()
    page.fill("#code", "Anna, B.")
    page.keyboard.press("Enter")
    assert page.locator("#code:invalid").count() == 1
    sent = page.evaluate("() => fetch('https://example.org').then(() => 'sent', () => 'refused')")
    assert sent == "refused"
    assert sit.wrong
    assert all("Content Security Policy" in said for said in sit.wrong)
    sit.wrong.clear()
