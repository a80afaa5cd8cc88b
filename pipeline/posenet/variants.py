"""Which variants of a backbone there are: with trained or random weights, padded in three ways."""

from __future__ import annotations

from pipeline.params import Params
from pipeline.posenet.paths import COUNTER

PIXELS = "pixels"  # no backbone at all: PosENet alone


def weights_of(name: str, params: Params) -> str | None:
    """The file, or name in sources.yaml, of a backbone's trained weights; None where the source has none."""
    if name == COUNTER:
        return f"models/shapes/paper/M{params.posenet.counter_density}-run0.safetensors"
    return params.inputs.posenet.weights.get(name)


def variants_of(name: str, params: Params) -> list[str]:
    """The variants of a backbone that this source allows."""
    if name == PIXELS:
        return ["raw", "normalised"]
    weights = (["trained"] if weights_of(name, params) else []) + ["random"]
    return [f"{state}-{padding}" for state in weights for padding in params.posenet.padding_modes]
