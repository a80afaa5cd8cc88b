"""The PosENet study's part of params.yaml, its inputs among `sources` too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.section import Density, Section, distinct


class Descent(Section):
    """Stochastic gradient descent in Adam's place, as the original authors' code has it (train_network.py).

    learning_rate: theirs, a tenth of it from epoch `tenth_after` + 1 on.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    tenth_after: Annotated[int, Field(ge=1)]


class PosENetTraining(Section):
    """How the position networks are trained, at every scale."""

    weight_decay: Annotated[float, Field(ge=0)]
    sgd: Descent


Backbone = Literal["pixels", "vgg16", "resnet152", "squeezenet1_1"]


class PosENet(Section):
    """The PosENet study, at every scale."""

    backbones: Annotated[list[Backbone], Field(min_length=1), AfterValidator(distinct)]
    counter_density: Density
    layers: dict[
        Literal["vgg16", "resnet152", "squeezenet1_1", "counter"],
        Annotated[list[str], Field(min_length=1), AfterValidator(distinct)],
    ]
    padding_modes: Annotated[
        list[Literal["zeros", "reflect", "circular"]], Field(min_length=1), AfterValidator(distinct)
    ]
    readout: Literal["slices", "channels"]
    map_size: Annotated[int, Field(ge=8, le=512)]
    patterns: Annotated[list[Literal["H", "V", "G", "HS", "VS"]], Field(min_length=1), AfterValidator(distinct)]
    kernel_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(distinct)]
    paddings: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=1), AfterValidator(distinct)]
    transpose_test: bool
    training: PosENetTraining

    @model_validator(mode="after")
    def _kernels_fit(self) -> PosENet:
        if max(self.kernel_sizes) > self.map_size - 3:
            raise ValueError(
                f"kernel_sizes = {self.kernel_sizes}: a kernel should leave at least 4 x 4 pixels of "
                f"map_size = {self.map_size}; lower it, or raise map_size"
            )
        return self


class PosENetAtScale(Section):
    """How much of the PosENet study. images: to train on, at most; runs: of every cell of the grid."""

    image_size: Annotated[int, Field(ge=32, le=2048)]
    images: Annotated[int, Field(ge=1)]
    held_out: Annotated[int, Field(ge=2)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    runs: Annotated[int, Field(ge=1)]


class PosENetInputs(Section):
    """images: 'generated', a name in sources.yaml, a folder or archive. weights: a name there, a path, or null."""

    images: str
    weights: dict[Literal["vgg16", "resnet152", "squeezenet1_1"], str | None]
