"""The CountCLIP study's part of params.yaml, its models among `sources` too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.section import Betas, Probability, Runs, Section


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


class CountClip(Section):
    """The CountCLIP study, at every scale."""

    pool: Pool
    detector: DetectorTraining
    filter: Filter
    training: Counting
    runs: Runs


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
