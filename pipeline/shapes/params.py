"""The shapes study's part of params.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.section import Densities, Density, Probability, Range, Runs, Section, Training, ascending, distinct

ARCHITECTURE = "resnet18"  # the paper's
Grey = Annotated[int, Field(ge=0, le=255)]
GreyRange = Annotated[list[Grey], Field(min_length=2, max_length=2), AfterValidator(ascending)]
Margins = Annotated[list[int], Field(min_length=1), AfterValidator(distinct)]


class Scene(Section):
    """How a scene is laid out and drawn; lengths in canvas units (implicit-counting, Method)."""

    canvas: Annotated[int, Field(ge=16, le=4096)]
    oversample: Annotated[int, Field(ge=1, le=8)]
    antialias: bool
    density_sd: Annotated[float, Field(ge=0)]
    circle_share_mean: Probability
    circle_share_sd: Annotated[float, Field(ge=0)]
    circle_radius: Range
    square_side: Range
    background: Grey
    grey: GreyRange
    overlap: bool


class Variants(Section):
    """Networks beside the paper's: every architecture, trained `runs` times, on one density's images."""

    density: Density
    architectures: Annotated[list[str], Field(min_length=1), AfterValidator(distinct)]
    runs: Runs

    @field_validator("architectures")
    @classmethod
    def _are_others(cls, architectures: list[str]) -> list[str]:
        if ARCHITECTURE in architectures:
            raise ValueError(f"{ARCHITECTURE} is the paper's network; shapes.runs says how often it is trained")
        return architectures


class Guest(Section):
    """A network of the user's own that takes the test beside the paper's (pipeline/shapes/guests.py).

    name: of its files, and in tables. build: 'FILE.py:CALLABLE', 'MODULE:CALLABLE', 'torchvision:NAME' or 'timm:NAME'.
    weights: a safetensors file, or None. train: whether it is trained here, as the others are.
    """

    name: str
    build: str
    weights: str | None = None
    train: bool = False

    @field_validator("name")
    @classmethod
    def _names_a_file(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError("allowed are 1 to 64 letters, digits, '_', '-' and '.', a letter or digit first")
        return name

    @field_validator("build")
    @classmethod
    def _says_where_and_what(cls, build: str) -> str:
        where, _, what = build.rpartition(":")
        if not where or not what:
            raise ValueError("expected 'FILE.py:CALLABLE', 'MODULE:CALLABLE', 'torchvision:NAME' or 'timm:NAME'")
        return build


class Shapes(Section):
    """The shapes study, at every scale."""

    scene: Scene
    max_train_margin: Annotated[int, Field(ge=1)] | None
    target: Literal["hard", "soft"]
    margin_densities: Densities
    margins: Margins
    runs: Runs
    variants: Variants
    guests: list[Guest]

    @field_validator("runs")
    @classmethod
    def _begin_with_the_first(cls, runs: list[int]) -> list[int]:
        if runs[0] != 0:
            raise ValueError("the first should be 0: other studies explain and probe that run")
        return runs

    @model_validator(mode="after")
    def _margins_fit(self) -> Shapes:
        for density in self.margin_densities:
            for margin in self.margins:
                if abs(margin) > density or (density + margin) % 2:
                    raise ValueError(
                        f"margin {margin} cannot be had with {density} shapes: circles - squares has the parity "
                        f"of their number and is at most that; change shapes.margins or shapes.margin_densities"
                    )
        return self

    @model_validator(mode="after")
    def _guests_have_names_of_their_own(self) -> Shapes:
        taken: dict[str, str] = {}  # small letters, since some file systems know no others
        for name in self.variants.architectures:
            ours = f"{name}-{self.variants.density}"
            taken |= dict.fromkeys((name.lower(), ours.lower()), f"shapes.variants trains {ours}")
        for guest in self.guests:
            name = guest.name.lower()
            why = "the paper's networks are called so" if re.fullmatch(r"m\d+(-run\d+)?", name) else taken.get(name)
            if why:
                raise ValueError(f"guests: the name '{guest.name}' is taken: {why}; give the guest another")
            taken[name] = f"another guest is called {guest.name}"
        return self


class EpochReadings(Section):
    """What is read of a network after every epoch: its test set, and so many images of every margin set.

    statistics_images: training images on which batch normalisation's statistics are estimated anew.
    """

    margin_images: Annotated[int, Field(ge=1)]
    statistics_images: Annotated[int, Field(ge=2)]


class ShapesAtScale(Section):
    """How much of the shapes study."""

    images: Annotated[int, Field(ge=4)]
    train_fraction: Annotated[float, Field(gt=0, lt=1)]
    margin_images: Annotated[int, Field(ge=1)]
    resolution: Annotated[int, Field(ge=16, le=4096)]
    training: Training
    readings: EpochReadings
    bootstrap: Annotated[int, Field(ge=10)]

    @property
    def train_images(self) -> int:
        """Training images of a density; the rest of `images` are its test images."""
        return round(self.images * self.train_fraction)

    @model_validator(mode="after")
    def _batches_are_full(self) -> ShapesAtScale:
        if not self.training.batch_size <= self.train_images < self.images:
            raise ValueError(
                f"training.batch_size = {self.training.batch_size}, images = {self.images}, train_fraction = "
                f"{self.train_fraction}: these leave {self.train_images} training images and "
                f"{self.images - self.train_images} test images; at least one batch and one test image are needed"
            )
        return self

    @model_validator(mode="after")
    def _readings_have_images(self) -> ShapesAtScale:
        if not self.training.batch_size <= self.readings.statistics_images <= self.train_images:
            raise ValueError(
                f"readings.statistics_images = {self.readings.statistics_images} should be at least one batch, "
                f"training.batch_size = {self.training.batch_size}, and at most the {self.train_images} training images"
            )
        if self.readings.margin_images > self.margin_images:
            raise ValueError(
                f"readings.margin_images = {self.readings.margin_images} should be at most margin_images = "
                f"{self.margin_images}"
            )
        return self
