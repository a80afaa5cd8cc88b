"""What the document says of position, as differences of Spearman's correlation with intervals (posenet, section 3).

Every difference is between the same images and training runs; its interval is a bootstrap over both, because
another image, or another training run, could have been taken. A statement *holds* where the whole interval is
above 0, is *reversed* where it is below, and else *undecided*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.posenet.network import ALL

CLAIMS = {
    "trained - pixels": "pre-trained features hold position, pixels alone do not (section 3.1)",
    "random - pixels": "an untrained network's features hold position too (not asked in the document)",
    "trained - random": "training adds position (not asked in the document)",
    "larger kernels": "larger kernels of the position network read out more (section 3.2, Fig. 4)",
    "more padding": "more zero padding in the position network reads out more (section 3.2, Fig. 5)",
    "natural - black": "black images score below natural ones (section 3.1)",
    "natural - white": "white images score below natural ones (section 3.1)",
    "natural - noise": "noise scores below natural images (section 3.1)",
    "zeros - reflect": "position comes from zero padding of the backbone (section 3.2; Islam et al. 2020)",
    "zeros - circular": "position comes from zero padding of the backbone (section 3.2; Islam et al. 2020)",
}

Key = tuple[str, str, str, int, int]  # backbone, variant, inputs, kernel, padding
Maps = dict[tuple[Key, str], np.ndarray]  # (key, pattern) -> Spearman [runs, images], NaN where undefined


class Bootstrap:
    """Means over runs and images, with intervals from resampling both; the same resamples for every question."""

    def __init__(self, runs: int, images: int, resamples: int, rng: np.random.Generator) -> None:
        self.of_runs = rng.multinomial(runs, np.full(runs, 1 / runs), resamples).astype(float)
        self.of_images = rng.multinomial(images, np.full(images, 1 / images), resamples).astype(float)

    def interval(self, values: np.ndarray) -> dict[str, float]:
        """mean, low and high (95%) of values [runs, images]; those undefined are left out; NaN where all are."""
        defined = ~np.isnan(values)
        filled = np.where(defined, values, 0)
        total = ((self.of_runs @ filled) * self.of_images).sum(axis=1)
        number = ((self.of_runs @ defined) * self.of_images).sum(axis=1)
        if not defined.any():
            return {"mean": np.nan, "low": np.nan, "high": np.nan}
        means = total[number > 0] / number[number > 0]
        low, high = np.quantile(means, [0.025, 0.975])
        return {"mean": float(values[defined].mean()), "low": float(low), "high": float(high)}


@dataclass(frozen=True)
class Comparison:
    """One difference: `larger` should be above `smaller`; image: a test image that stands for `smaller`, or None."""

    claim: str
    larger: Key
    smaller: Key
    image: str | None = None


def comparisons(keys: list[Key], kernel_sizes: list[int], paddings: list[int]) -> Iterator[Comparison]:
    """All that can be asked of the networks at hand."""
    present = set(keys)
    networks = sorted({(backbone, variant) for backbone, variant, *_ in keys})
    pixels: Key = ("pixels", "raw", ALL, 3, 0)

    def ask(claim: str, larger: Key, smaller: Key) -> Iterator[Comparison]:
        if larger != smaller and {larger, smaller} <= present:
            yield Comparison(claim, larger, smaller)

    for backbone, variant in networks:
        own: Key = (backbone, variant, ALL, 3, 0)
        state, _, padding_mode = variant.partition("-")
        for small, large in [*pairwise(sorted(kernel_sizes)), (min(kernel_sizes), max(kernel_sizes))]:
            yield from ask("larger kernels", (backbone, variant, ALL, large, 0), (backbone, variant, ALL, small, 0))
        for small, large in [*pairwise(sorted(paddings)), (min(paddings), max(paddings))]:
            yield from ask("more padding", (backbone, variant, ALL, 3, large), (backbone, variant, ALL, 3, small))
        if own in present:
            for image in ("black", "white", "noise"):
                yield Comparison(f"natural - {image}", own, own, image)
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


def measured(
    asked: Comparison, patterns: list[str], held_out: Maps, tests: dict[str, Maps], bootstrap: Bootstrap
) -> list[dict]:
    """A row for each pattern, and one for their mean."""
    differences = {}
    for name in patterns:
        larger = held_out[asked.larger, name]
        smaller = tests[asked.image][asked.smaller, name] if asked.image else held_out[asked.smaller, name]
        differences[name] = larger - smaller  # a test image is one: [runs, 1]
    defined = [values for values in differences.values() if not np.isnan(values).all()]
    if len(patterns) > 1:
        differences["mean"] = np.nanmean(defined, axis=0) if defined else next(iter(differences.values()))
    rows = []
    for name, values in differences.items():
        found = bootstrap.interval(values)
        rows.append(
            {
                "claim": asked.claim,
                "larger": label(asked.larger),
                "smaller": f"{label(asked.smaller)}{f', {asked.image} image' if asked.image else ''}",
                "pattern": name,
                "difference": found["mean"],
                "low": found["low"],
                "high": found["high"],
                "verdict": verdict(found["low"], found["high"]),
                "undefined": int(np.isnan(values).sum()),
            }
        )
    return rows


def label(key: Key) -> str:
    """A network in words: 'vgg16/trained-zeros', with what is not usual of it."""
    backbone, variant, inputs, kernel, padding = key
    unusual = [f"layer {inputs}"] * (inputs != ALL) + [f"kernel {kernel}"] * (kernel != 3)
    unusual += [f"padding {padding}"] * bool(padding)
    return ", ".join([f"{backbone}/{variant}", *unusual])
