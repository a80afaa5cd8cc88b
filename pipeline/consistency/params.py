"""The error-consistency study's part of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.section import Section, distinct


class ConsistencySet(Section):
    """One set of trials for the error-consistency study.

    predictions: a file or a folder, see sets.py. categories: answers that its CSV files may give; none: sets.py says.
    observers: columns that describe an observer; of several, the last is a mere repetition of the others.
    """

    predictions: Annotated[str, Field(min_length=1)]
    conditions: str = ""
    categories: Annotated[list[str], AfterValidator(distinct)] = Field(default=[])
    observers: Annotated[list[str], Field(min_length=1), AfterValidator(distinct)]
    compare: Literal["groups", "differences"]
    distance: str | None = None
    watch: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(default=[])

    @model_validator(mode="after")
    def _distance_is_described(self) -> ConsistencySet:
        if self.distance is not None and self.distance not in self.observers:
            raise ValueError(f"distance = '{self.distance}' is not one of observers = {self.observers}")
        return self


class Consistency(Section):
    """The error-consistency study, at every scale."""

    sets: dict[Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")], ConsistencySet]


class ConsistencyAtScale(Section):
    """How much of the error-consistency study."""

    trials: Annotated[int, Field(ge=48)]
    resamples: Annotated[int, Field(ge=10)]
    draws: Annotated[int, Field(ge=10)]
