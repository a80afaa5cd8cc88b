"""Which number a caption spells, and its counterfactuals: rules by example, and on the real captions."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from conftest import published_inputs

from pipeline.countclip.captions import NUMBER_OF, NUMBERS, caption_count, nine_captions, number_words, with_number


@pytest.mark.parametrize(
    ("caption", "count"),
    [
        ("two parrots on a branch", 2),
        ("Ten green bottles", 10),
        ("FIVE APPLES", 5),
        ("a set of (three) chairs", 3),
        ("mugs, four, white", 4),
        ("three", 3),
        ("five\u00a0children", 5),
        ("Three - three generations", 3),
        ("nine's company", 9),
        # not as part of a word, and no numerals
        ("often, height, tense, weight, freight, tennis, network, someone", None),
        ("2 dogs and 10 cats", None),
        ("one dog, eleven cats", None),
        ("file_two_three.jpg", None),
        ("", None),
        (None, None),
        # compounds and larger numbers count nothing
        ("Two-Tone Coffee Mug", None),
        ("an eight-year-old boy", None),
        ("Brooklyn Nine-Nine: Season One", None),
        ("teams celebrate one-two-three-four", None),
        ("two\u2013tone mug", None),
        ("Twenty-two", None),
        ("Fifty Three Stations of Tokaido", None),
        ("one hundred and two dalmatians", None),
        ("two hundred people", None),
        ("three million men", None),
        ("two dozen eggs", None),
        ("Nine-month-old Jasmine and her two dads", 2),
        ("Twenty-three people and four dogs", 4),
        # several: the largest
        ("two of the three brothers", 3),
        ("A family of five with three boys", 5),
        ("Two Bedroom Two Bathroom Apartment", 2),
    ],
)
def test_rules_by_example(caption, count):
    assert caption_count(caption) == count


def test_a_long_caption_is_read_to_its_end():
    assert caption_count("word " * 2000 + "seven") == 7


@pytest.mark.parametrize(
    ("caption", "number", "expected"),
    [
        ("three dogs", 7, "seven dogs"),
        ("Three dogs", 7, "Seven dogs"),
        ("THREE DOGS", 7, "SEVEN DOGS"),
        ("two of the three", 4, "two of the four"),
        ("Three cats. Some three cats, a three-legged dog", 5, "Five cats. Some five cats, a three-legged dog"),
        ("often three", 10, "often ten"),
    ],
)
def test_only_the_number_in_question_is_replaced(caption, number, expected):
    assert with_number(caption, number) == expected


def test_nine_captions_are_in_order_and_in_the_same_case():
    assert nine_captions("Four parrots") == [
        f"{word} parrots" for word in ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    ]


@pytest.mark.parametrize(("caption", "number"), [("dogs", 3), ("three dogs", 1), ("three dogs", 11)])
def test_what_cannot_be_replaced_is_refused(caption, number):
    with pytest.raises(ValueError, match=r"spells no number|should be 2\.\.10"):
        with_number(caption, number)


@pytest.fixture(scope="module")
def countbench() -> pd.DataFrame:
    path = published_inputs() / "countbench/CountBench.json"
    return pd.DataFrame(json.loads(path.read_text()))


def test_countbench_captions_spell_their_number(countbench):
    spelled = countbench["text"].map(caption_count)
    differ = countbench[spelled != countbench["number"]]
    # the benchmark counts the children, not the ages; and the 'older men' of four people
    assert differ["text"].str[:14].tolist() == ["Doting parents", "Four business "]


def test_the_rule_for_several_numbers_beats_the_first_word(countbench):
    words = countbench["text"].map(lambda text: [number for _, _, number in number_words(text)])
    several = countbench[words.map(lambda found: len(set(found)) > 1)]
    assert len(several) == 20
    assert (several["text"].map(caption_count) == several["number"]).sum() == 18
    assert (words[several.index].str[0] == several["number"]).sum() == 16


def test_counterfactuals_of_countbench_go_there_and_back(countbench):
    """Except where another number of the caption becomes the one in question."""
    returned = 0
    for caption in countbench["text"]:
        count = caption_count(caption)
        others = {number for _, _, number in number_words(caption)} - {count}
        for number, changed in zip(NUMBERS, nine_captions(caption), strict=True):
            if number == count:
                continue
            assert changed != caption
            assert len(changed.split()) == len(caption.split())
            if not others:
                assert caption_count(changed) == number
                assert with_number(changed, count) == caption
                returned += 1
    assert returned == 8 * (540 - 20)


def test_the_authors_labels_are_found_or_explained():
    laion = published_inputs() / "laion"
    rows = pd.read_parquet(laion / "laion400m-sample.parquet").drop_duplicates("URL")
    labels = pd.read_parquet(laion / "countclip-labels.parquet").merge(rows, on="URL", validate="many_to_one")
    assert len(labels) == 1573
    spelled = labels["TEXT"].map(caption_count)
    assert (spelled == labels["count"]).sum() == 1447
    assert spelled.isna().sum() == 124
    # each exception has its number only in a compound or in a larger number
    word = "|".join(NUMBER_OF)
    part = re.compile(
        rf"\b(?:{word})[-\u2010-\u2013]\w|\w[-\u2010-\u2013](?:{word})\b|ty (?:{word})\b|\b(?:{word})[ -]\w+ion", re.I
    )
    exceptions = labels.loc[spelled != labels["count"], "TEXT"]
    assert exceptions.map(lambda text: bool(part.search(text))).all()


def test_the_authors_labels_are_the_largest_of_several():
    laion = published_inputs() / "laion"
    rows = pd.read_parquet(laion / "laion400m-sample.parquet").drop_duplicates("URL")
    labels = pd.read_parquet(laion / "countclip-labels.parquet").merge(rows, on="URL")
    plain = re.compile(rf"\b(?:{'|'.join(NUMBER_OF)})\b", re.I)
    words = labels["TEXT"].map(lambda text: [NUMBER_OF[word.lower()] for word in plain.findall(text)])
    several = words.str.len() > 1
    assert several.sum() == 64
    assert (words[several].map(max) == labels.loc[several, "count"]).all()
