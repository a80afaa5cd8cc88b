"""Captions as CLIP's tokens, cut so that the number word survives (countclip, sections 2.2 and 3).

CLIP reads 77 tokens, two of them marks of start and end. Cutting a long caption at its 75th token (or,
as the authors' code does, at its 77th character) can cut off the very word that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from pipeline.countclip.captions import caption_count, number_words

CONTEXT = 77  # tokens, with those of start and end


@dataclass(frozen=True)
class Tokens:
    """ids: int64 [N, 77], zero after the end. cut: how many of the captions were too long."""

    ids: Tensor
    cut: int


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer(context_length=CONTEXT)


def length(text: str) -> int:
    """Tokens of a text, without those of start and end."""
    return len(_tokenizer().encode(text))


def shorten(caption: str) -> str:
    """The caption, or the longest run of its words that fits CLIP's context and holds the number word.

    The run begins with the caption's first word where it can; else it ends with as many words after
    the number as there are before it, as far as these go. A caption without a number is cut at its end.
    Shorten before making counterfactuals: number words are a token each, so these fit as well.
    """
    room = CONTEXT - 2
    if length(caption) <= room:
        return caption
    words = caption.split()
    tokens = [length(word) for word in words]
    number = caption_count(caption)
    at = 0
    if number is not None:
        start = next(start for start, _, found in number_words(caption) if found == number)
        at = min(len(caption[:start].split()), len(words) - 1)
    first, last = at, at  # the run, both ends included
    if sum(tokens[: at + 1]) <= room:
        first = 0
    used = sum(tokens[first : last + 1])
    while True:
        after = last + 1 < len(words) and used + tokens[last + 1] <= room
        before = first > 0 and used + tokens[first - 1] <= room
        if after and (not before or last - at <= at - first):
            last += 1
            used += tokens[last]
        elif before:
            first -= 1
            used += tokens[first]
        else:
            return " ".join(words[first : last + 1])


def tokenize(captions: list[str]) -> Tokens:
    """Captions as CLIP's tokens; those that are too long are shortened (see `shorten`)."""
    shortened = [shorten(caption) for caption in captions]
    ids = _tokenizer()(shortened) if shortened else torch.zeros(0, CONTEXT, dtype=torch.long)
    return Tokens(ids, sum(short != full for short, full in zip(shortened, captions, strict=True)))
