"""What was published, transcribed: confusion matrices, class frequencies, and what they can say."""

from __future__ import annotations

import json
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, published_inputs
from scipy.stats import binomtest

from pipeline.claims.schema import read_claims
from pipeline.countclip.drawing import draw_matrices
from pipeline.countclip.published import (
    ANSWERS,
    BASELINE,
    FREQUENCIES,
    TABLE,
    mcnemar_bounds,
    published_test,
    read_answers,
)
from pipeline.countclip.published_answers import accuracies, balance, differences, learned, rarely, rich, told
from pipeline.stage import UserError

NUMBERS = range(2, 11)


@pytest.fixture(scope="module")
def answers() -> dict:
    return read_answers()


def test_each_matrix_has_the_images_and_the_accuracy_of_its_cell_of_table_1(answers):
    assert len(answers) == 23
    cells = {(row.name, column): row.published[column] for row in TABLE for column in ("last", "best")}
    for key, counts in answers.items():
        assert counts.sum(axis=1).tolist() == [56, 57, 57, 49, 58, 58, 57, 60, 57], key
        assert counts.sum() == 509, key
        if key != ("pretrained", "untrained"):
            assert round(100 * np.trace(counts) / 509, 2) == pytest.approx(cells.pop(key), abs=1e-9), key
    assert not cells
    assert np.trace(answers["pretrained", "untrained"]) == 140
    assert all(cell["off"] <= 0.005 for cell in accuracies(answers))


def test_matrices_and_frequencies_are_those_of_the_figures_vectors(answers):
    """A second transcription, made apart from ours."""
    folder = published_inputs() / "countclip"
    if not folder.exists():
        pytest.skip(f"{folder}: not at hand")
    theirs = json.loads((folder / "confusion_matrices.json").read_text())
    expected = {("pretrained", "untrained"): theirs["baseline"]}
    expected |= {(name, reading): theirs[reading][name] for reading in ("last", "best") for name in theirs[reading]}
    assert {key: counts.tolist() for key, counts in answers.items()} == expected
    assert {str(n): count for n, count in FREQUENCIES.items()} == json.loads((folder / "class_counts.json").read_text())


def test_table_1_of_the_document_is_that_of_claims_yaml():
    """Two transcriptions: the document's text, and the cells that claims are made of."""
    path = published_inputs().parent / "papers" / "countclip.md"
    if not path.exists():
        pytest.skip(f"{path}: the document is not at hand")
    text = path.read_text(encoding="utf-8")
    printed = {}
    for line in text[text.index("Configuration\t") : text.index("Table 1: Zero-shot")].splitlines()[1:]:
        if "\t" not in line:
            continue
        label, last, best = line.split("\t")
        scheme = re.search(r"norm|modal|log|= 1", label).group().replace("= 1", "one")
        name = scheme + "-scheduler" * label.startswith("scheduler") + "-plus" * ("count+" in label)
        printed |= {f"{name}/last": float(last), f"{name}/best": float(best)}
    assert len(printed) == 22
    claims = read_claims(REPOSITORY / "claims.yaml")["countclip"][1]
    for table in ("table-1", "table-1-answers"):
        cells = {name.split("/", 1)[1]: c.published for name, c in claims.items() if name.startswith(f"{table}/")}
        assert cells == printed
    assert f"is {BASELINE}% with no training" in text


def matrix(right: list[int], images: list[int]) -> np.ndarray:
    """Counts [9, 9] with so many right answers of so many images of the first numbers; the wrong ones say another."""
    counts = np.zeros((9, 9), int)
    for place, (hits, shown) in enumerate(zip(right, images, strict=True)):
        counts[place, place] = hits
        counts[place, (place + 1) % 9] = shown - hits
    return counts


def test_bounds_by_hand():
    """Of 10 images 8 and 4 are right: both on 2 to 4, so (4, 0), (5, 1) or (6, 2) are right in one only."""
    found = mcnemar_bounds(matrix([8], [10]), matrix([4], [10]))
    assert found["images"] == 4
    assert found["least_p"] == pytest.approx(2 * 1 / 2**4)
    assert found["most_p"] == pytest.approx(2 * (1 + 8 + 28) / 2**8)
    assert found["verdict"] == "cannot stand"
    alike = mcnemar_bounds(matrix([3], [3]), matrix([3], [3]))
    assert (alike["images"], alike["least_p"], alike["most_p"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("verdict", "right"), [("stands", (30, 0)), ("the opposite stands", (0, 30)), ("open", (8, 2))]
)
def test_what_the_bounds_decide(verdict, right):
    # 8 and 2 of 40: right in one only are 6 and 0, with p = 0.03, to 8 and 2, with 0.11
    assert mcnemar_bounds(matrix([right[0]], [40]), matrix([right[1]], [40]))["verdict"] == verdict


def test_bounds_are_those_of_all_answers_that_fit():
    """Every way in which the right answers can lie on the images, of two numbers, tried one by one."""
    images, better, worse = [5, 4], [4, 2], [2, 3]
    ways = [[list(combinations(range(n), k)) for n, k in zip(images, right, strict=True)] for right in (better, worse)]
    ps = set()
    for a, b in product(product(*ways[0]), product(*ways[1])):
        gained = sum(len(set(x) - set(y)) for x, y in zip(a, b, strict=True))
        lost = sum(len(set(y) - set(x)) for x, y in zip(a, b, strict=True))
        ps.add(binomtest(gained, gained + lost).pvalue)
    found = mcnemar_bounds(matrix(better, images), matrix(worse, images))
    assert (found["least_p"], found["most_p"]) == pytest.approx((min(ps), max(ps)))


def test_bounds_of_some_numbers_leave_the_others_out():
    better, worse = matrix([8, 0], [10, 10]), matrix([4, 10], [10, 10])
    assert mcnemar_bounds(better, worse, numbers=(2,))["images"] == 4
    assert mcnemar_bounds(better, worse)["images"] == -6
    with pytest.raises(ValueError, match="same images"):
        mcnemar_bounds(matrix([1], [10]), matrix([1], [9]))


def test_what_the_published_differences_can_say(answers):
    gain = published_test("modal-scheduler-plus", "pretrained", "best")
    assert gain["images"] == 147 - 140
    assert 0.53 < gain["least_p"] < gain["most_p"] < 0.71
    found = {(row["better"], row["worse"], row["column"]): row["verdict"] for row in differences(answers)}
    assert len(found) == 24
    stand = {key: verdict for key, verdict in found.items() if "stands" in verdict}
    assert stand == {
        ("modal-scheduler-plus", "modal-scheduler", "last"): "stands",
        ("log-scheduler", "pretrained", "last"): "the opposite stands",
    }
    assert {key for key, verdict in found.items() if verdict == "open"} == {
        ("norm-scheduler", "norm", "last"),
        ("norm-scheduler", "one-scheduler", "last"),
        ("log-scheduler", "log", "last"),
        ("log-scheduler", "log", "best"),
    }
    assert sum(verdict == "cannot stand" for verdict in found.values()) == 18


def test_what_is_learned_number_by_number(answers):
    """Of 58 images of six the baseline is right on 9, and calls 26 of the other 451 so."""
    before = answers["pretrained", "untrained"]
    assert told(before, 6)["youden"] == pytest.approx(9 / 58 - 26 / 451)
    rows = {row["number"]: row for row in learned(answers)["by_number"]}
    assert rows[6]["right_before"] == 9
    assert [model["right"] for model in rows[6]["models"]] == [5, 11, 8, 5]  # in the order of Fig. 3
    assert {number: rows[number]["models_above"] for number in range(2, 7)} == {2: 4, 3: 4, 4: 4, 5: 3, 6: 0}
    assert rows[6]["greatest_change"] < 0


def test_who_rarely_answers_seven_to_ten(answers):
    rows = {(row["configuration"], row["column"]): row for row in rarely(answers)}
    found = rows["modal-scheduler-plus", "best"]  # Fig. 3 (c): seven 4 + 4 + 11 + 21 + 29 + 38 + 35 times, ten thrice
    assert found["answered_7_to_10"] == pytest.approx((142 + 3) / 509)
    assert found["answered_7_to_10_low"] > 0.2222
    above = {key for key, row in rows.items() if row["answered_7_to_10"] > 0.2222}
    assert above == {
        ("pretrained", "untrained"),
        ("norm", "best"),
        ("modal", "best"),
        ("modal-scheduler-plus", "best"),
    }


def test_what_balancing_does_to_two_and_three(answers):
    """Right on two and three, last epoch: lambda = 1 on 44 + 31, norm on 28 + 32, modal on 16 + 8, log on 46 + 42."""
    found = {(row["better"], row["column"]): row for row in rich(answers)["pairs"]}
    change = {scheme: found[f"{scheme}-scheduler", "last"]["images"] for scheme in ("norm", "modal", "log")}
    assert change == {"norm": 60 - 75, "modal": 24 - 75, "log": 88 - 75}
    assert found["modal-scheduler", "last"]["verdict"] == "the opposite stands"
    assert rich(answers)["share_weaker"] == 5 / 6


def test_the_509_images_are_as_good_as_balanced():
    found = balance()
    assert (found["least"], found["most"]) == (49, 60)
    expected = 509 / 9
    statistic = sum((n - expected) ** 2 / expected for n in (56, 57, 57, 49, 58, 58, 57, 60, 57))
    assert statistic < 2.73  # the 5th percentile of chi-square with 8 degrees of freedom: nearer than by chance
    assert found["even_p"] > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("last,one,2,38,", "last,one,2,37,"), "last: should have .* found .55, 57"),
        (("last,one,", "last,two,"), "differing: one last, two last"),
    ],
)
def test_a_matrix_that_is_wrong_is_named(tmp_path, change, message):
    path = tmp_path / "answers.csv"
    path.write_text(ANSWERS.read_text().replace(*change))
    with pytest.raises(UserError, match=message):
        read_answers(path)


def test_matrices_are_drawn_the_same_twice(tmp_path, answers):
    panels = [("before", answers["pretrained", "untrained"]), ("after", answers["one", "best"])]
    for name in ("a.png", "b.png"):
        draw_matrices(tmp_path / name, panels, 3, "Fig. 3")
    assert Path(tmp_path / "a.png").read_bytes() == Path(tmp_path / "b.png").read_bytes()
