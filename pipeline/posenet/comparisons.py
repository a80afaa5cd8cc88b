"""What the document says of position, as differences of Spearman's correlation with intervals (posenet, section 3).

An interval covers both that other images, and that other training runs, could have been taken. A statement *holds*
where the whole interval is above 0, is *reversed* where it is below, and else *undecided*; each by itself, at 95%.
Differences between networks are between the same images. Black, white and noise are one image each: their intervals
cover the runs, and the natural images that they are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.posenet.paths import ALL, SMOOTH, TESTS
from pipeline.statistics.intervals import over_runs_and_images

CLAIMS = {
    "position is read": "the correlation with the pattern is above 0 (section 3.1)",
    "trained - pixels": "pre-trained features score higher than pixels alone (section 3.1)",
    "random - pixels": "features of a random network score higher than pixels alone (not in the document)",
    "trained - random": "trained features score higher than those of one random network (not in the document)",
    "larger kernels": "larger kernels of the position network read out more (section 3.2, Fig. 4)",
    "more padding": "more zero padding in the position network reads out more (section 3.2, Fig. 5)",
    "natural - black": "held-out images score higher than the black one (section 3.1)",
    "natural - white": "held-out images score higher than the white one (section 3.1)",
    "natural - noise": "held-out images score higher than the noise image (section 3.1)",
    "test image - black": "the natural test image scores higher than the black one (section 3.1)",
    "test image - white": "the natural test image scores higher than the white one (section 3.1)",
    "test image - noise": "the natural test image scores higher than the noise image (section 3.1)",
    "natural - smooth": "held-out images score higher than without their texture (section 3.1)",
    "test image - natural": "the natural test image scores higher than held-out images (section 4)",
    "zeros - reflect": "zero padding of the backbone gives more position than reflection (Islam et al. 2020)",
    "zeros - circular": "zero padding of the backbone gives more position than circular padding (Islam et al. 2020)",
}

Key = tuple[str, str, str, int, int]  # backbone, variant, inputs, kernel, padding
Maps = dict[tuple[Key, str], np.ndarray]  # (key, pattern) -> Spearman [runs, images], NaN where undefined


@dataclass(frozen=True)
class Comparison:
    """One difference: `larger` should be above `smaller`, or above 0 where that is None.

    image: the test image on which `smaller` is taken, or SMOOTH; and of_image that on which `larger` is; None for the
    held-out ones. in_headline: of the questions that overlap, one.
    """

    claim: str
    larger: Key
    smaller: Key | None
    image: str | None = None
    of_image: str | None = None
    in_headline: bool = True


def comparisons(keys: list[Key], kernel_sizes: list[int], paddings: list[int]) -> Iterator[Comparison]:
    """All that can be asked of the networks at hand."""
    present = set(keys)
    networks = sorted({(backbone, variant) for backbone, variant, *_ in keys})
    pixels: Key = ("pixels", "raw", ALL, 3, 0)

    def ask(claim: str, larger: Key, smaller: Key, in_headline: bool = True) -> Iterator[Comparison]:
        if larger != smaller and {larger, smaller} <= present:
            yield Comparison(claim, larger, smaller, in_headline=in_headline)

    def steps(values: list[int]) -> Iterator[tuple[int, int, bool]]:
        """Neighbours, and first the smallest with the largest."""
        extremes = (min(values), max(values))
        for pair in dict.fromkeys([extremes, *pairwise(sorted(values))]):
            yield *pair, pair == extremes

    for backbone, variant in networks:
        own: Key = (backbone, variant, ALL, 3, 0)
        state, _, padding_mode = variant.partition("-")
        usual = padding_mode in ("", "zeros")
        for small, large, extremes in steps(kernel_sizes):
            of = (backbone, variant, ALL)
            yield from ask("larger kernels", (*of, large, 0), (*of, small, 0), usual and extremes)
        for small, large, extremes in steps(paddings):
            of = (backbone, variant, ALL, 3)
            yield from ask("more padding", (*of, large), (*of, small), usual and extremes)
        if own in present:
            yield Comparison("position is read", own, None, in_headline=usual)
            natural, *artificial = TESTS
            for image in artificial:
                yield Comparison(f"natural - {image}", own, own, image, in_headline=usual)
                yield Comparison(f"test image - {image}", own, own, image, natural, in_headline=usual)
            yield Comparison("natural - smooth", own, own, SMOOTH, in_headline=usual)
            yield Comparison("test image - natural", own, own, None, natural, in_headline=usual)
        if padding_mode == "zeros":
            yield from ask(f"{state} - pixels", own, pixels)
            for other in ("reflect", "circular"):
                yield from ask(f"zeros - {other}", own, (backbone, f"{state}-{other}", ALL, 3, 0))
            if state == "trained":
                yield from ask("trained - random", own, (backbone, "random-zeros", ALL, 3, 0))


def verdict(low: float, high: float) -> str:
    if np.isnan(low):
        return "undefined"
    return "holds" if low > 0 else "reversed" if high < 0 else "undecided"


def size(low: float, high: float) -> tuple[float, float]:
    """The interval of a difference without its sign, for statements that have none: 'affects'."""
    return max(low, -high, 0.0), max(-low, high)


def measured(asked: Comparison, patterns: list[str], held_out: Maps, tests: dict[str, Maps]) -> list[dict]:
    """A row for each pattern, and one for their mean, which is undefined where one of them is."""

    def of(key: Key, image: str | None, name: str) -> np.ndarray:
        # a test image is one: [runs, 1]; those without texture are the held-out ones, in their order
        return held_out[key, name] if image is None else tests[image][key, name]

    differences = {}
    for name in patterns:
        smaller = of(asked.smaller, asked.image, name) if asked.smaller else 0.0
        differences[name] = of(asked.larger, asked.of_image, name) - smaller
    if len(patterns) > 1:
        differences["mean"] = np.mean(list(differences.values()), axis=0)
    rows = []
    for name, values in differences.items():
        found = over_runs_and_images(values)
        least, most = size(found["low"], found["high"])
        rows.append(
            {
                "claim": asked.claim,
                "larger": label(asked.larger, asked.of_image),
                "smaller": label(asked.smaller, asked.image) if asked.smaller else "0",
                "pattern": name,
                "difference": found["mean"],
                "low": found["low"],
                "high": found["high"],
                "size": abs(found["mean"]),
                "size_low": least,
                "size_high": most,
                "verdict": verdict(found["low"], found["high"]),
                "undefined": int(np.isnan(values).sum()),
                "in_headline": asked.in_headline,
            }
        )
    return rows


def label(key: Key, image: str | None) -> str:
    """A network in words: 'vgg16/trained-zeros', with what is not usual of it, and the test image if there is one."""
    backbone, variant, inputs, kernel, padding = key
    unusual = [f"layer {inputs}"] * (inputs != ALL) + [f"kernel {kernel}"] * (kernel != 3)
    unusual += [f"padding {padding}"] * bool(padding) + [f"{image} image"] * bool(image)
    return ", ".join([f"{backbone}/{variant}", *unusual])
