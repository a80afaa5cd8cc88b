"""The counting set, the pairs beside it and the benchmark, in memory as CLIP sees them; batches made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.countclip.captions import NUMBERS, WORDS
from pipeline.countclip.clip import image_pixels, trimmed
from pipeline.countclip.samples import open_image, record_of
from pipeline.countclip.tokens import tokenize, tokenize_nine
from pipeline.shards import Sample, item_rng, process_pool, read_shard
from pipeline.stage import UserError

WITHOUT_NUMBER = "caption spells no number"  # why filter_captions dropped such a pair


@dataclass(frozen=True)
class Pairs:
    """pixels: uint8 [N, 3, S, S]. ids: tokens, [N, L], or [N, 9, L] of counting pairs. counts: [N], 0 where none."""

    pixels: Tensor
    ids: Tensor
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: np.ndarray) -> Pairs:
        return Pairs(self.pixels[index], self.ids[index], self.counts[index])

    def to(self, device: torch.device) -> Pairs:
        """With its pixels on a device."""
        return Pairs(self.pixels.to(device), self.ids, self.counts)


def decode(samples: Iterable[Sample], size: int) -> Tensor:
    """Pixels uint8 [N, 3, size, size] of samples' images, decoded by as many processes as there are cores."""
    with process_pool() as parallel_map:
        pixels = list(parallel_map(partial(_decode_one, size=size), samples))
    return torch.from_numpy(np.stack(pixels)) if pixels else torch.zeros(0, 3, size, size, dtype=torch.uint8)


def _decode_one(sample: Sample, size: int, strict: bool = True) -> np.ndarray | str:
    """Pixels; where not strict, what is wrong with an image instead of a ValueError."""
    try:
        return image_pixels(open_image(sample, size), size).numpy()
    except ValueError as error:
        if strict:
            raise
        return str(error)


@dataclass(frozen=True)
class Benchmark:
    """keys: of images. pixels: uint8 [N, 3, S, S]. ids: [N, 9, context]. numbers: [N]. cut: captions too long."""

    keys: list[str]
    pixels: Tensor
    ids: Tensor
    numbers: np.ndarray
    cut: int


def load_benchmark(path: Path, size: int, context: int) -> Benchmark:
    """The benchmark as a model sees it. Raises UserError for a caption that does not spell its number."""
    samples = list(read_shard(path))
    captions = [sample["txt"].decode() for sample in samples]
    numbers = [record_of(sample)["number"] for sample in samples]
    try:
        tokens = tokenize_nine(captions, numbers, context)
    except ValueError as error:
        raise UserError(f"{path}: {error}; delete it and run 'dvc repro'") from None
    keys = [str(sample["__key__"]) for sample in samples]
    return Benchmark(keys, decode(samples, size), tokens.ids, np.array(numbers), tokens.cut)


def load_counting(folder: Path, size: int, context: int) -> Pairs:
    """The counting set that filter_captions kept. Raises UserError where it is empty.

    A number without pairs is said; it is not trained on, and `balanced_lambda` says what it would weigh.
    """
    samples = [sample for shard in sorted((folder / "counting").glob("*.tar")) for sample in read_shard(shard)]
    if not samples:
        raise UserError(
            f"{folder / 'counting'}: no counting pairs; see metrics/countclip/filter.json for why pairs were dropped, "
            f"and take a larger pool (scales.*.countclip.pool_images, sources.*.pool)"
        )
    records = [json.loads(sample["json"]) for sample in samples]
    counts = np.array([record["count"] for record in records])
    if absent := sorted(set(NUMBERS) - set(counts.tolist())):
        words = ", ".join(WORDS[number] for number in absent)
        print(f"{folder / 'counting'}: none of {len(samples):,} counting pairs has {words}: not trained on", flush=True)
    tokens = tokenize_nine([record["caption"] for record in records], counts.tolist(), context)
    return Pairs(decode(samples, size), tokens.ids, counts)


def load_others(folder: Path, size: int, context: int, which: str) -> tuple[Pairs, dict[str, int]]:
    """The pairs that filter_captions dropped and that have image and caption; and what became of them, counted.

    which: 'without_number', only those whose caption spells no number, since the others', by the detector, are
    wrong; or 'all'. Images that cannot be decoded are left out and counted by reason, captions that are cut too.
    """
    chosen: list[Sample] = []
    for shard in sorted((folder / "other").glob("*.tar")):
        for sample in read_shard(shard):
            record = json.loads(sample["json"])
            if record["caption"] is not None and (which == "all" or record["reason"] == WITHOUT_NUMBER):
                chosen.append({**sample, "txt": record["caption"].encode()})
    with process_pool() as parallel_map:
        decoded = list(parallel_map(partial(_decode_one, size=size, strict=False), chosen))
    opened = [
        (sample["txt"].decode(), image)
        for sample, image in zip(chosen, decoded, strict=True)
        if not isinstance(image, str)
    ]
    if not opened:
        raise UserError(f"{folder / 'other'}: no pairs beside the counting ones ({which}); take a larger pool")
    captions, images = zip(*opened, strict=True)
    tokens = tokenize(list(captions), context)
    outcomes = Counter(image for image in decoded if isinstance(image, str))
    outcomes.update({"pairs": len(opened), "captions cut": tokens.cut})
    return Pairs(torch.from_numpy(np.stack(images)), tokens.ids, np.zeros(len(captions), int)), dict(outcomes)


def hold_out(counts: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pairs to train on and of those held out: about `share` of each number, never all of one."""
    held: list[int] = []
    for number in NUMBERS:
        members = item_rng(seed, f"countclip/held-out/{number}").permutation(np.flatnonzero(counts == number))
        held += members[: min(round(share * len(members)), max(len(members) - 1, 0))].tolist()
    return np.setdiff1d(np.arange(len(counts)), held), np.array(sorted(held), int)


def frequencies(counts: np.ndarray) -> dict[int, int]:
    """{number: pairs} for 2..10."""
    found = Counter(counts.tolist())
    return {number: found[number] for number in NUMBERS}


@dataclass(frozen=True)
class Batch:
    """c counting pairs, then others. pixels: [B, 3, S, S]. ids: [B + c * K, L], last the counterfactuals of the
    counting pairs in turn. counts: [c]."""

    pixels: Tensor
    ids: Tensor
    counts: np.ndarray


class Batches:
    """Batches of `size` pairs, `counting_pairs` of them from the counting set; each depends on seed and step alone.

    An epoch is once through the counting set (a last, smaller batch is left out); the others go round on their
    own. Of `parts` processes, each takes its share of every batch.
    """

    def __init__(
        self,
        counting: Pairs,
        others: Pairs,
        *,
        size: int,
        counting_pairs: int,
        counterfactuals: str,
        seed: int,
        name: str,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        if len(counting) < counting_pairs or len(others) < size - counting_pairs:
            raise UserError(
                f"batch_size = {size}, counting_pairs = {counting_pairs}: there are {len(counting):,} counting pairs "
                f"and {len(others):,} others; lower them, or take a larger pool"
            )
        if counting_pairs % parts or size % parts:
            raise UserError(
                f"batch_size = {size}, counting_pairs = {counting_pairs}: both should be multiples of the number of "
                f"processes, {parts}, which share each batch"
            )
        self.counting, self.others = counting, others
        self.size, self.counting_pairs, self.all = size, counting_pairs, counterfactuals == "all"
        self.epoch_steps = len(counting) // counting_pairs
        self.mine = slice(part, None, parts)

        @lru_cache(maxsize=2)
        def order(of: str, n: int, epoch: int) -> np.ndarray:
            return item_rng(seed, f"{name}/{of}/{epoch}").permutation(n)

        self._order = order
        self._rng = partial(item_rng, seed)
        self._name = name

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.epoch_steps)
        counting = self._order("counting", len(self.counting), epoch)[place * self.counting_pairs :]
        index = counting[: self.counting_pairs][self.mine]
        wanted = self.size - self.counting_pairs
        around, place = divmod(step, len(self.others) // wanted) if wanted else (0, 0)
        beside = self._order("others", len(self.others), around)[place * wanted :][:wanted][self.mine]

        chosen, others = self.counting[index], self.others[beside]
        true = chosen.counts - NUMBERS[0]  # the place of a pair's own caption among its nine
        eight = np.array([[k for k in range(len(NUMBERS)) if k != own] for own in true])  # [c, 8]
        if not self.all:
            picks = self._rng(f"{self._name}/counterfactual/{step}").integers(8, size=self.counting_pairs)[self.mine]
            eight = np.take_along_axis(eight, picks[:, None], axis=1)
        rows = torch.arange(len(index))
        false = chosen.ids[rows[:, None], torch.from_numpy(eight)]  # [c, K, L]
        ids = torch.cat([chosen.ids[rows, torch.from_numpy(true)], others.ids, false.flatten(end_dim=1)])
        return Batch(torch.cat([chosen.pixels, others.pixels]), trimmed(ids), chosen.counts)
