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

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.stage import UserError, run

PATH = Path("params.yaml")


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("Values should differ from one another")
    return values


def _ascending(values: list) -> list:
    if values[0] > values[1]:
        raise ValueError("The range should be [low, high] with low <= high")
    return values


Density = Annotated[int, Field(ge=1, le=1000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(gt=0)]
Range = Annotated[list[Length], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Grey = Annotated[int, Field(ge=0, le=255)]
GreyRange = Annotated[list[Grey], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
Densities = Annotated[list[Density], Field(min_length=1), AfterValidator(_distinct)]
Margins = Annotated[list[int], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


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
    architectures: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
    runs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_distinct)]


class Shapes(Section):
    """The shapes study, at every scale."""

    scene: Scene
    max_train_margin: Annotated[int, Field(ge=1)] | None
    target: Literal["hard", "soft"]
    margin_densities: Densities
    margins: Margins
    variants: Variants

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


class ConsistencySet(Section):
    """One set of predictions for the error-consistency study."""

    predictions: Annotated[list[str], Field(min_length=1)]
    conditions: str = ""
    observers: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
    compare: Literal["groups", "differences"]
    distance: str | None = None
    watch: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []

    @model_validator(mode="after")
    def _distance_is_described(self) -> ConsistencySet:
        if self.distance is not None and self.distance not in self.observers:
            raise ValueError(f"distance = '{self.distance}' is not one of observers = {self.observers}")
        return self


class Consistency(Section):
    """The error-consistency study, at every scale."""

    sets: dict[str, ConsistencySet]


class Pool(Section):
    """The generated pool of images with captions (countclip, section 2.1)."""

    counts: Annotated[dict[Annotated[int, Field(ge=1, le=10)], Annotated[float, Field(gt=0)]], Field(min_length=1)]
    captions: Annotated[dict[Literal["right", "wrong", "none", "idle"], Probability], Field(min_length=1)]

    @model_validator(mode="after")
    def _shares_are_of_something(self) -> Pool:
        if not sum(self.captions.values()):
            raise ValueError(f"captions = {self.captions}: at least one share should be above 0")
        return self


class DetectorTraining(Section):
    """How the detector of generated scenes is trained."""

    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]


class Filter(Section):
    """How the filter runs."""

    engine: Literal["local", "ray"]
    batch_size: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]


class Counting(Section):
    """How CLIP is taught to count (countclip, sections 2.2 to 2.4), at every scale."""

    scheduler: bool
    counterfactuals: Literal["one", "all"]
    lambda_0: Annotated[float, Field(ge=0)]
    count_logit_scale: Annotated[float, Field(gt=0)]
    betas: Betas
    others: Literal["without_number", "all"]
    run: Annotated[int, Field(ge=0)]


class CountClip(Section):
    """The CountCLIP study, at every scale."""

    pool: Pool
    detector: DetectorTraining
    filter: Filter
    training: Counting


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

    backbones: Annotated[list[Backbone], Field(min_length=1), AfterValidator(_distinct)]
    counter_density: Density
    layers: dict[
        Literal["vgg16", "resnet152", "squeezenet1_1", "counter"],
        Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)],
    ]
    padding_modes: Annotated[
        list[Literal["zeros", "reflect", "circular"]], Field(min_length=1), AfterValidator(_distinct)
    ]
    readout: Literal["slices", "channels"]
    map_size: Annotated[int, Field(ge=8, le=512)]
    patterns: Annotated[list[Literal["H", "V", "G", "HS", "VS"]], Field(min_length=1), AfterValidator(_distinct)]
    kernel_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_distinct)]
    paddings: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=1), AfterValidator(_distinct)]
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


Method = Literal["regress", "ssd", "faster_rcnn", "segment"]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Localize(Section):
    """The localize study, at every scale. Counters on purpose are trained on the images of one density."""

    density: Density
    counters: Annotated[list[Method], Field(min_length=1), AfterValidator(_distinct)]
    anchors: Annotated[list[Fraction], Field(min_length=3, max_length=3)]
    aspect_ratios: Annotated[list[Length], AfterValidator(_distinct)]
    explained: Densities
    grid: Annotated[int, Field(ge=2, le=64)]
    shifts: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_distinct)]
    turns: Annotated[list[Annotated[int, Field(ge=1, le=180)]], Field(min_length=1), AfterValidator(_distinct)]
    zooms: Annotated[list[Annotated[int, Field(ge=1, le=400)]], Field(min_length=1), AfterValidator(_distinct)]

    @model_validator(mode="after")
    def _anchors_grow(self) -> Localize:
        if self.anchors != sorted(set(self.anchors)):
            raise ValueError(f"anchors = {self.anchors} should grow: a finer map has the smaller ones")
        return self


class Training(Section):
    """How a network is trained."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    optimizer: Literal["adam", "adamw", "sgd"]
    betas: Betas
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["constant", "one_cycle"]


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


class ConsistencyAtScale(Section):
    """How much of the error-consistency study."""

    trials: Annotated[int, Field(ge=48)]
    resamples: Annotated[int, Field(ge=10)]
    draws: Annotated[int, Field(ge=10)]


class Pretraining(Section):
    """How much our own CLIP is pre-trained: scenes drawn, steps of a batch."""

    scenes: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _batches_are_full(self) -> Pretraining:
        if self.batch_size > self.scenes:
            raise ValueError(f"batch_size = {self.batch_size} should be at most scenes = {self.scenes}")
        return self


class CountingAtScale(Section):
    """How much CLIP is taught to count. held_out: share of the counting pairs kept out of training.

    weight_decay, eps: of Adam; its weight decay is added to the gradient.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    counting_pairs: Annotated[int, Field(ge=1)]
    held_out: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    eps: Annotated[float, Field(gt=0)]
    precision: Literal["auto", "fp32", "bf16"]

    @model_validator(mode="after")
    def _counting_pairs_fit(self) -> CountingAtScale:
        if self.counting_pairs > self.batch_size:
            raise ValueError(
                f"batch_size = {self.batch_size} is smaller than counting_pairs = {self.counting_pairs}, which are "
                f"part of the batch; raise batch_size or lower counting_pairs"
            )
        return self


class CountClipAtScale(Section):
    """How much of the CountCLIP study."""

    resolution: Annotated[int, Field(ge=64, le=1024, multiple_of=32)]
    pool_images: Annotated[int, Field(ge=1)]
    pool_shards: Annotated[int, Field(ge=1)]
    detector_scenes: Annotated[int, Field(ge=1)]
    detector_epochs: Annotated[int, Field(ge=1)]
    detector_tests: Annotated[int, Field(ge=10)]
    filter_by: Literal["detector", "truth"]
    benchmark_per_number: Annotated[int, Field(ge=1)]
    zero_shot_images: Annotated[int, Field(ge=1)]
    pretraining: Pretraining
    training: CountingAtScale


class PosENetAtScale(Section):
    """How much of the PosENet study. images: to train on, at most; runs: of every cell of the grid."""

    image_size: Annotated[int, Field(ge=32, le=2048)]
    images: Annotated[int, Field(ge=1)]
    held_out: Annotated[int, Field(ge=2)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    runs: Annotated[int, Field(ge=1)]


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


class Detector(Section):
    """What finds things: a YOLO checkpoint (its path, or its name in sources.yaml), or null for our own.

    A checkpoint is opened only if its sha256 is the one given. image_size: pixels; null for the
    scenes' own.
    """

    path: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] | None
    confidence: Probability
    iou: Probability

    @model_validator(mode="after")
    def _checkpoints_have_hash_and_size(self) -> Detector:
        if self.path is not None and None in (self.sha256, self.image_size):
            raise ValueError(f"detector.path = '{self.path}': sha256 and image_size should go with it, found null")
        return self


class ClipModel(Section):
    """A CLIP model. name: small-clip (ours) or one of open_clip's. weights: a name in sources.yaml, a path, a
    tag of open_clip's, or null.

    null: what pretrain_clip made, for small-clip; random weights, for any other.
    """

    name: str
    weights: str | None


class PosENetInputs(Section):
    """images: 'generated', a name in sources.yaml, a folder or archive. weights: a name there, a path, or null."""

    images: str
    weights: dict[Literal["vgg16", "resnet152", "squeezenet1_1"], str | None]


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
        if get_origin(model) is dict:  # a section with names of the user's own, such as consistency.sets
            return get_args(model)[1]
        return model.model_fields[key].annotation

    model: Any = reduce(below, section, Params)
    return [field.alias or name for name, field in model.model_fields.items()]


def main() -> str:
    params = load_params()
    return f"{PATH} is valid (scale {params.scale}, source {params.source})"


if __name__ == "__main__":
    run(main)
