"""The counting set in memory, and the batches made of it."""

from __future__ import annotations

import json
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from pipeline.countclip.captions import WORDS, caption_count, with_number
from pipeline.countclip.counting_set import Batches, Pairs, frequencies, hold_out, load_counting, load_others
from pipeline.countclip.tokens import tokenize, tokenize_nine
from pipeline.shards import write_shard
from pipeline.stage import UserError

CONTEXT = 16
TOKENIZER = SimpleTokenizer()


def pairs(n: int, numbers: list[int] | None) -> Pairs:
    """Pairs whose first pixel says which one it is."""
    pixels = torch.zeros(n, 3, 2, 2, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(n)
    if numbers is None:
        return Pairs(pixels, tokenize([f"cats {k}" for k in range(n)], CONTEXT).ids, np.zeros(n, int))
    captions = [f"{WORDS[number]} dogs" for number in numbers]
    return Pairs(pixels, tokenize_nine(captions, numbers, CONTEXT).ids, np.array(numbers))


def batches(counting: int = 10, others: int = 7, **options) -> Batches:
    numbers = [2 + k % 9 for k in range(counting)]
    defaults = {"size": 5, "counting_pairs": 3, "counterfactuals": "one", "seed": 0, "name": "test"}
    return Batches(pairs(counting, numbers), pairs(others, None), **defaults | options)


def text(ids: torch.Tensor) -> str:
    return TOKENIZER.decode(ids[1 : int((ids != 0).sum()) - 1].tolist()).strip()


def test_an_epoch_is_once_through_the_counting_set_in_another_order_each_time():
    them = batches()
    assert them.epoch_steps == 3  # 10 pairs, 3 a batch: one is left out
    epochs = []
    for epoch in range(4):
        seen = [int(p) for k in range(3) for p in them[3 * epoch + k].pixels[:3, 0, 0, 0]]
        assert len(set(seen)) == 9
        epochs.append(tuple(seen))
    assert len(set(epochs)) == 4


def test_the_others_go_round_on_their_own():
    them = batches(counterfactuals="all")
    seen = Counter(int(p) for k in range(30) for p in them[k].pixels[3:, 0, 0, 0])
    # 7 others, 2 a step: of each round of 3 steps one is left out
    assert sum(seen.values()) == 60
    assert set(seen) == set(range(7))
    assert max(seen.values()) <= 10


@pytest.mark.parametrize(("which", "k"), [("one", 1), ("all", 8)])
def test_counterfactuals_are_the_caption_with_other_numbers(which, k):
    them = batches(counterfactuals=which)
    found = Counter()
    for step in range(40):
        batch = them[step]
        assert batch.pixels.shape[0] == 5
        assert batch.ids.shape[0] == 5 + 3 * k
        for place, number in enumerate(batch.counts):
            assert text(batch.ids[place]) == f"{WORDS[number]} dogs"
            others = [text(ids) for ids in batch.ids[5 + place * k :][:k]]
            assert len(set(others)) == k
            assert all(other == with_number(f"{WORDS[number]} dogs", caption_count(other)) for other in others)
            assert f"{WORDS[number]} dogs" not in others
            found.update(others)
        assert [text(ids) for ids in batch.ids[3:5]] == [f"cats {int(p)}" for p in batch.pixels[3:, 0, 0, 0]]
    if which == "one":  # drawn anew, all alike: 120 draws of 9 words
        assert len(found) == 9
        assert min(found.values()) >= 3


def test_a_step_depends_on_seed_name_and_step_alone():
    first, again, other = batches(), batches(), batches(seed=1)
    for step in (7, 3, 11):
        assert torch.equal(first[step].ids, again[step].ids)
        assert torch.equal(first[step].pixels, again[step].pixels)
    assert any(not torch.equal(first[step].pixels, other[step].pixels) for step in range(3))


def test_several_processes_share_each_batch():
    whole = batches(size=8, counting_pairs=4)
    parts = [batches(size=8, counting_pairs=4, part=part, parts=2) for part in range(2)]
    for step in range(5):
        ids = {text(i) for i in whole[step].ids}
        shares = [part[step] for part in parts]
        assert {text(i) for share in shares for i in share.ids} == ids
        assert [len(share.pixels) for share in shares] == [4, 4]
        assert [len(share.counts) for share in shares] == [2, 2]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"counting_pairs": 11, "size": 12}, ["counting_pairs = 11", "10 counting pairs"]),
        ({"size": 12}, ["batch_size = 12", "7 others"]),
        ({"parts": 2}, ["multiples", "processes, 2"]),
    ],
)
def test_batches_that_cannot_be_filled_are_named(options, parts):
    with pytest.raises(UserError) as error:
        batches(**options)
    for part in parts:
        assert part in str(error.value)


def test_a_share_of_each_number_is_held_out_and_never_all():
    counts = np.array([2] * 100 + [3] * 20 + [4] * 6 + [10])
    learned, held = hold_out(counts, 0.1, seed=0)
    assert sorted([*learned, *held]) == list(range(len(counts)))
    assert frequencies(counts[held]) == {2: 10, 3: 2, 4: 1, **dict.fromkeys(range(5, 11), 0)}
    assert len(hold_out(counts, 0.0, seed=0)[1]) == 0
    assert 10 in counts[hold_out(counts, 0.99, seed=0)[0]]


@pytest.fixture
def filtered(tmp_path):
    """filtered(counting, other): a folder as filter_captions leaves it; pairs are (caption, count, reason)."""
    encoded = cv2.imencode(".png", np.full((70, 90, 3), 128, np.uint8))[1].tobytes()

    def make(counting: list[tuple], other: list[tuple]):
        for part, rows in (("counting", counting), ("other", other)):
            samples = []
            for number, (caption, count, reason) in enumerate(rows):
                record = {"caption": caption, "count": count, "reason": reason}
                image = b"no image" if caption == "broken" else encoded
                samples.append({"__key__": f"{number:05d}", "png": image, "json": json.dumps(record).encode()})
            (tmp_path / part).mkdir()
            write_shard(tmp_path / part / "00000.tar", samples)
        return tmp_path

    return make


def test_a_counting_set_without_one_class_is_said(filtered, capfd):
    folder = filtered([(f"{WORDS[n]} cats", n, None) for n in range(2, 10)], [])
    loaded = load_counting(folder, 32, CONTEXT)
    assert frequencies(loaded.counts) == {**dict.fromkeys(range(2, 10), 1), 10: 0}
    assert loaded.pixels.shape == (8, 3, 32, 32)
    assert "none of 8 counting pairs has ten" in capfd.readouterr().out


def test_an_empty_counting_set_is_an_error(filtered):
    with pytest.raises(UserError, match="no counting pairs"):
        load_counting(filtered([], []), 32, CONTEXT)


def test_the_pairs_beside_are_those_without_a_number(filtered):
    none = "caption spells no number"
    rows = [
        ("a cat", None, none),
        ("broken", None, none),
        ("three cats", 3, "detected count differs from the caption's"),
        (None, None, "caption is missing"),
    ]
    folder = filtered([], rows)
    without, outcomes = load_others(folder, 32, CONTEXT, "without_number")
    assert len(without) == 1
    assert outcomes == {"image cannot be decoded": 1, "pairs": 1, "captions cut": 0}
    everything, outcomes = load_others(folder, 32, CONTEXT, "all")
    assert outcomes["pairs"] == 2
    assert [text(ids) for ids in everything.ids] == ["a cat", "three cats"]
