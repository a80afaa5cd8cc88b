"""params.yaml -> typed, validated settings.

    python -m pipeline.params        check params.yaml; exit status 1 and a line for each error

An unknown key, a missing one, a value of another type or out of range is an error that names the
key, the value found and what is allowed. The file is YAML 1.2, as DVC writes it: `1e-05` is a
number and `off` a string.
"""

from __future__ import annotations

import difflib
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.consistency.params import Consistency, ConsistencyAtScale
from pipeline.countclip.params import ClipModel, CountClip, CountClipAtScale, Detector
from pipeline.localize.params import Localize, LocalizeAtScale
from pipeline.posenet.params import PosENet, PosENetAtScale, PosENetInputs
from pipeline.section import Densities, Section
from pipeline.shapes.params import Shapes, ShapesAtScale
from pipeline.stage import UserError, run

PATH = Path("params.yaml")


class Scale(Section):
    shapes: ShapesAtScale
    consistency: ConsistencyAtScale
    countclip: CountClipAtScale
    posenet: PosENetAtScale
    localize: LocalizeAtScale

    @model_validator(mode="after")
    def _masks_are_a_multiple(self) -> Scale:
        places = self.shapes.resolution // self.localize.stride
        if self.shapes.resolution % self.localize.stride or self.localize.mask_size % places:
            raise ValueError(
                f"localize.mask_size = {self.localize.mask_size} should be a multiple of shapes.resolution / "
                f"localize.stride = {self.shapes.resolution} / {self.localize.stride}"
            )
        return self

    @model_validator(mode="after")
    def _images_are_there(self) -> Scale:
        for counter, training in self.localize.training.items():
            if training.images + self.localize.held_out > self.shapes.train_images:
                raise ValueError(
                    f"localize.training.{counter}.images = {training.images} and held_out = {self.localize.held_out} "
                    f"are more than the {self.shapes.train_images} training images of shapes; lower one of them"
                )
        tests = self.shapes.images - self.shapes.train_images
        for key in ("test_images", "explained_images", "shift_images"):
            if getattr(self.localize, key) > tests:
                raise ValueError(f"localize.{key} = {getattr(self.localize, key)}: shapes has {tests} test images only")
        return self


class Scales(Section):
    smoke: Scale
    laptop: Scale
    paper: Scale


class Source(Section):
    """Inputs from elsewhere. The shapes study has none: its images are drawn in both sources."""

    trials: Literal["simulated", "published"]
    pool: str
    detector: Detector
    clip: ClipModel
    countbench: str
    zero_shot: str | None
    posenet: PosENetInputs


class Sources(Section):
    generated: Source
    published: Source


class Params(Section):
    """The whole of params.yaml."""

    model_config = ConfigDict(validate_by_name=False)

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    scale: Literal["smoke", "laptop", "paper"]
    source: Literal["generated", "published"]
    densities: Densities
    lambda_: Annotated[Literal["one", "norm", "modal", "log", "log_once"], Field(alias="lambda")]
    threads: Annotated[int, Field(ge=1, le=256)]
    precision: Literal["auto", "fp32", "bf16"]
    shapes: Shapes
    consistency: Consistency
    countclip: CountClip
    posenet: PosENet
    localize: Localize
    scales: Scales
    sources: Sources

    @model_validator(mode="after")
    def _variants_have_images(self) -> Params:
        if self.shapes.variants.density not in self.densities:
            raise ValueError(
                f"shapes.variants.density = {self.shapes.variants.density} is not one of densities = "
                f"{self.densities}; change one of them: variants are trained on that density's images"
            )
        return self

    @model_validator(mode="after")
    def _counter_is_trained(self) -> Params:
        if self.posenet.counter_density not in self.densities:
            raise ValueError(
                f"posenet.counter_density = {self.posenet.counter_density} is not one of densities = "
                f"{self.densities}; change one of them: its network is trained by the shapes study"
            )
        return self

    @model_validator(mode="after")
    def _counters_have_images(self) -> Params:
        for key, densities in (
            ("localize.density", [self.localize.density]),
            ("localize.explained", self.localize.explained),
        ):
            if missing := set(densities) - set(self.densities):
                raise ValueError(
                    f"{key}: {sorted(missing)} not among densities = {self.densities}; change one of them: "
                    f"its images and its network are the shapes study's"
                )
        for name in ("smoke", "laptop", "paper"):
            known = getattr(self.scales, name).localize.training
            if missing := set(self.localize.counters) - set(known):
                raise ValueError(
                    f"localize.counters: scales.{name}.localize.training lacks {', '.join(sorted(missing))}; "
                    f"has {', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _probe_has_images(self) -> Params:
        # of the network's own density: probe_images, and this density's part of as many of all densities, others
        shapes, wanted = self.at_scale.shapes, self.at_scale.localize.probe_images
        tests, densities = shapes.images - shapes.train_images, len(self.densities)
        if wanted + -(-wanted // densities) > tests:
            raise ValueError(
                f"scales.{self.scale}.localize.probe_images = {wanted}: at most {tests * densities // (densities + 1)} "
                f"with the {tests} test images of shapes and densities = {self.densities}: localize.density gives as "
                f"many, and its part of as many others; lower it, or raise scales.{self.scale}.shapes.images"
            )
        return self

    @property
    def inputs(self) -> Source:
        """The inputs of the chosen source."""
        return getattr(self.sources, self.source)

    @property
    def at_scale(self) -> Scale:
        """The amounts of the chosen scale."""
        return getattr(self.scales, self.scale)


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML 1.2 file of the repository. Raises UserError where it is not there, or not YAML."""
    try:
        return parse_yaml(Path(path).read_bytes(), path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the repository's root") from None


def parse_yaml(content: bytes | str, name: str | Path) -> Any:
    """YAML 1.2, in UTF-8; `name` is what an error calls it. Raises UserError where it is not YAML."""
    try:
        return YAML(typ="safe", pure=True).load(content if isinstance(content, str) else content.decode())
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from None


def load_params(path: str | Path = PATH) -> Params:
    """Read and validate a params.yaml. Raises UserError with a line for each thing that is wrong."""
    content = read_yaml(path)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from None


def _explain(error: dict[str, Any]) -> str:
    key = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden":
            known = _keys(error["loc"][:-1])
            guess = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
            hint = f" (did you mean '{guess[0]}'?)" if guess else ""
            return f"unknown key '{key}' = {error['input']!r}{hint}; allowed here: {', '.join(known)}"
        case "missing":
            return f"key '{key}' is missing; add it (the comments in the committed params.yaml say what is allowed)"
        case "value_error" if isinstance(error["input"], dict | BaseModel):
            return f"{key}: {message}" if key else message
        case _:
            return f"{key} = {error['input']!r}: {message} (found {type(error['input']).__name__})"


def _keys(section: tuple) -> list[str]:
    """The keys allowed in the section of params.yaml at this path."""

    def below(model: Any, key: str) -> Any:
        if get_origin(model) in (dict, list):  # names of the user's own, as in consistency.sets; or shapes.guests
            return get_args(model)[-1]
        return model.model_fields[key].annotation

    model: Any = reduce(below, section, Params)
    return [field.alias or name for name, field in model.model_fields.items()]


def main() -> str:
    params = load_params()
    return f"{PATH} is valid (scale {params.scale}, source {params.source})"


if __name__ == "__main__":
    run(main)
