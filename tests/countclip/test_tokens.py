"""Captions as tokens: the number word survives."""

from __future__ import annotations

import json

import open_clip
import pytest
from conftest import published_inputs

from pipeline.countclip.captions import WORDS, caption_count, nine_captions
from pipeline.countclip.tokens import CONTEXT, length, shorten, tokenize


def test_short_captions_are_open_clips_tokens():
    captions = ["Three cats on a mat", "", "ten, nine & eight"]
    tokens = tokenize(captions)
    assert tokens.cut == 0
    assert tokens.ids.tolist() == open_clip.get_tokenizer("ViT-B-32")(captions).tolist()


@pytest.mark.parametrize("before", [0, 10, 60, 74, 75, 76, 150, 400])
def test_the_number_word_survives_wherever_it_stands(before):
    caption = " ".join(["cat"] * before + ["seven"] + ["dog"] * 200)
    short = shorten(caption)
    assert caption_count(short) == 7
    assert length(short) == CONTEXT - 2  # all the room there is
    assert short in caption
    assert short.startswith("cat") == (before > 0)


def test_at_the_end_too():
    short = shorten(" ".join(["cat"] * 300 + ["seven"]))
    assert short.split() == ["cat"] * 74 + ["seven"]


def test_of_several_numbers_the_one_in_question_survives():
    caption = " ".join(["two cats"] + ["and a dog"] * 60 + ["nine birds"])
    assert caption_count(shorten(caption)) == 9


def test_a_caption_without_number_is_cut_at_its_end():
    words = [f"w{i}" for i in range(200)]
    short = shorten(" ".join(words)).split()
    assert short == words[: len(short)]


def test_too_long_captions_are_counted():
    tokens = tokenize(["three cats", "three " + "cats " * 100])
    assert tokens.cut == 1
    assert tokens.ids.shape == (2, CONTEXT)
    assert tokens.ids[1, -1] == 49407  # the end mark is there


def test_numbers_are_a_token_each():
    assert {length(word) for word in WORDS.values()} == {1}


def test_countbench_captions_keep_their_numbers_and_so_do_their_counterfactuals():
    rows = json.loads((published_inputs() / "countbench/CountBench.json").read_text())
    long = [row["text"] for row in rows if length(row["text"]) > CONTEXT - 2]
    assert long
    for caption in long:
        short = shorten(caption)
        assert caption_count(short) == caption_count(caption)
        assert tokenize(nine_captions(short)).cut == 0  # all nine are the same words but for the number
