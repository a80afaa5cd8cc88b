"""Which number does a caption spell, and what would it say with another (countclip, sections 2.1, 2.2, 2.4).

A caption spells a number if it holds one of the words 'two' .. 'ten', in any case, as a word of its
own ('often', 'height' and '2' do not count), and not as part of

- a compound with a hyphen: 'two-tone', 'ten-year-old', 'Brooklyn Nine-Nine', 'one-two-three'. Such
  words say of what kind a thing is, not how many there are. The authors matched them, and with them
  'Two-Tone Coffee Mug' and 'Two-Disc Edition'.
- a larger number: 'twenty-two', 'Fifty Three Stations', 'two hundred', 'three million', 'two dozen'.

Where several remain, the caption's number is the largest: the whole in 'two of the three', the group
in 'a family of five with three boys'. Of CountBench's 20 captions that hold different number words,
this gives the stated number in 18, the first word in 16; and the authors' labels are the largest
number of the caption in all 64 captions of theirs that hold several.

Of the authors' 1,573 labels, these rules give 1,447; of the other 126, all compounds or larger
numbers, 124 spell nothing and 2 a smaller number (tests/countclip/test_captions.py).

One regular expression, without look-around, serves both Python and Polars (Rust): what must not count
is matched first, so that what is left is a number word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

_SPELLED = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBER_OF = {word: n for n, word in enumerate(_SPELLED, start=2)}
WORDS = {n: word for word, n in NUMBER_OF.items()}
NUMBERS = tuple(WORDS)  # 2..10, in the order of nine captions

_NUMBER = "|".join(_SPELLED)
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand"
_MULTIPLE = "hundreds?|thousands?|millions?|billions?|dozens?|score"
_HYPHEN = "[-\u2010\u2011\u2012\u2013]"
# ASCII boundaries: a word ends at anything that is not a letter, digit or underscore of ASCII
PATTERN = (
    rf"(?i)(?-u:\b)(?:"
    rf"(?:{_TENS})(?: and)?(?: |{_HYPHEN})(?:{_NUMBER})(?-u:\b)"
    rf"|(?:{_NUMBER})(?: |{_HYPHEN})(?:{_MULTIPLE})(?-u:\b)"
    rf"|[a-z0-9]+{_HYPHEN}(?:{_NUMBER})(?-u:\b)(?:{_HYPHEN}[a-z0-9]+)*"
    rf"|(?:{_NUMBER}){_HYPHEN}[a-z0-9]+(?:{_HYPHEN}[a-z0-9]+)*"
    rf"|(?:{_NUMBER})(?-u:\b)"
    rf")"
)
ANY = rf"(?i)(?:{_NUMBER})"  # a caption without this spells no number: a fast first pass


@cache
def _compiled() -> re.Pattern:
    return re.compile(PATTERN.replace("(?-u:\\b)", "\\b"), re.ASCII)


def number_words(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, number) of every number word of its own in a caption, in order."""
    for match in _compiled().finditer(text):
        if (number := NUMBER_OF.get(match.group().lower())) is not None:
            yield match.start(), match.end(), number


def caption_count(text: str | None) -> int | None:
    """The number that a caption spells, 2..10, or None."""
    if not text:
        return None
    return max((number for _, _, number in number_words(text)), default=None)


def with_number(text: str, number: int, spelled: int | None = None) -> str:
    """The caption with a number that it spells replaced by another, in the same case; other number words stay.

    `spelled` is the number to replace; None for the caption's own (`caption_count`). Every word of that
    number is replaced, since 'Seven cats. Three cats' would contradict itself. Raises ValueError where the
    caption does not spell it, or `number` is not 2..10.
    """
    if number not in WORDS:
        raise ValueError(f"number = {number!r}; should be 2..10")
    words = list(number_words(text))
    spelled = spelled or max((found for _, _, found in words), default=None)
    if spelled not in {found for _, _, found in words}:
        raise ValueError(f"the caption spells no {WORDS.get(spelled, 'number')}: {text!r}")
    parts, end = [], 0
    for start, stop, found in words:
        if found == spelled:
            parts += [text[end:start], _in_case_of(text[start:stop], WORDS[number])]
            end = stop
    return "".join([*parts, text[end:]])


def nine_captions(text: str, spelled: int | None = None) -> list[str]:
    """The caption with each of the numbers 2..10, in ascending order; see `with_number`."""
    return [with_number(text, number, spelled) for number in NUMBERS]


def _in_case_of(word: str, other: str) -> str:
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
