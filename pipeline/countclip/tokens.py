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

from pipeline.countclip.captions import WORDS, caption_count, nine_captions, number_words

CONTEXT = 77  # tokens, with those of start and end


@dataclass(frozen=True)
class Tokens:
    """ids: int64 [N, context], zero after the end. cut: how many of the captions were too long."""

    ids: Tensor
    cut: int


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def length(text: str) -> int:
    """Tokens of a text, without those of start and end."""
    return len(_tokenizer().encode(text))


def shorten(caption: str, number: int | None = None, context: int = CONTEXT) -> str:
    """The caption, or the longest run of its words that fits the context and holds the number word.

    number: the one whose word survives; None for the caption's own (`caption_count`). context: tokens,
    those of start and end included.

    The run begins with the caption's first word where it can; else it ends with as many words after
    the number as there are before it, as far as these go. A caption without a number is cut at its end.
    Shorten before making counterfactuals: number words are a token each, so these fit as well.
    """
    room = context - 2
    if length(caption) <= room:
        return caption
    words = caption.split()
    tokens = [length(word) for word in words]
    number = number or caption_count(caption)
    at = 0
    if number is not None:
        start = next((start for start, _, found in number_words(caption) if found == number), 0)
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


def tokenize(captions: list[str], context: int = CONTEXT) -> Tokens:
    """Captions as CLIP's tokens; those that are too long are shortened (see `shorten`)."""
    shortened = [shorten(caption, context=context) for caption in captions]
    return Tokens(_ids(shortened, context), sum(s != c for s, c in zip(shortened, captions, strict=True)))


def tokenize_nine(captions: list[str], numbers: list[int], context: int = CONTEXT) -> Tokens:
    """Each caption with each of the numbers 2..10, as tokens [N, 9, context].

    numbers: the ones that the captions spell and that are replaced. A caption that is too long is shortened
    before, so that all nine differ in the number alone. Raises ValueError where a caption does not spell it.
    """
    shortened = [shorten(caption, number, context) for caption, number in zip(captions, numbers, strict=True)]
    nine = [text for short, number in zip(shortened, numbers, strict=True) for text in nine_captions(short, number)]
    ids = _ids(nine, context).view(len(captions), len(WORDS), context)
    return Tokens(ids, sum(s != c for s, c in zip(shortened, captions, strict=True)))


def _ids(captions: list[str], context: int) -> Tensor:
    if not captions:
        return torch.zeros(0, context, dtype=torch.long)
    return _tokenizer()(captions, context_length=context)
