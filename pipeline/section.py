"""What the schemas of params.yaml share: sections that refuse unknown keys, common types, how networks are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("Values should differ from one another")
    return values


def ascending(values: list) -> list:
    if values[0] > values[1]:
        raise ValueError("The range should be [low, high] with low <= high")
    return values


Density = Annotated[int, Field(ge=1, le=1000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(gt=0)]
Range = Annotated[list[Length], Field(min_length=2, max_length=2), AfterValidator(ascending)]
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
Runs = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(distinct)]
Densities = Annotated[list[Density], Field(min_length=1), AfterValidator(distinct)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Training(Section):
    """How a network is trained."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    optimizer: Literal["adam", "adamw", "sgd"]
    betas: Betas
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["constant", "one_cycle"]
