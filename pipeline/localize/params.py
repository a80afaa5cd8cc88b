"""The localize study's part of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.section import Densities, Density, Length, Section, Training, distinct

Method = Literal["regress", "ssd", "faster_rcnn", "segment"]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Localize(Section):
    """The localize study, at every scale. Counters on purpose are trained on the images of one density."""

    density: Density
    counters: Annotated[list[Method], Field(min_length=1), AfterValidator(distinct)]
    runs: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(distinct)]
    anchors: Annotated[list[Fraction], Field(min_length=3, max_length=3)]
    aspect_ratios: Annotated[list[Length], AfterValidator(distinct)]
    explained: Densities
    grid: Annotated[int, Field(ge=2, le=64)]
    shifts: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(distinct)]
    turns: Annotated[list[Annotated[int, Field(ge=1, le=180)]], Field(min_length=1), AfterValidator(distinct)]
    zooms: Annotated[list[Annotated[int, Field(ge=1, le=400)]], Field(min_length=1), AfterValidator(distinct)]

    @model_validator(mode="after")
    def _anchors_grow(self) -> Localize:
        if self.anchors != sorted(set(self.anchors)):
            raise ValueError(f"anchors = {self.anchors} should grow: a finer map has the smaller ones")
        return self


class CounterTraining(Training):
    """How a counter on purpose is trained, and on how many images."""

    images: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _batches_are_full(self) -> CounterTraining:
        if self.batch_size > self.images:
            raise ValueError(f"batch_size = {self.batch_size} should be at most images = {self.images}")
        return self


class LocalizeAtScale(Section):
    """How much of the localize study. stride: pixels between places of the finest map; mask_size: pixels of a mask.

    held_out: training images kept back to choose thresholds; test_images: of each density; the rest likewise.
    """

    stride: Literal[2, 4]
    width: Annotated[int, Field(ge=8, le=512)]
    mask_size: Annotated[int, Field(ge=16, le=4096)]
    held_out: Annotated[int, Field(ge=1)]
    test_images: Annotated[int, Field(ge=1)]
    explained_images: Annotated[int, Field(ge=2)]
    lime_samples: Annotated[int, Field(ge=8)]
    probe_images: Annotated[int, Field(ge=5)]
    shift_images: Annotated[int, Field(ge=2)]
    training: dict[Method, CounterTraining]
