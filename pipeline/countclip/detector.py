"""YOLOv8 on images one at a time or in batches, such that a result does not depend on its neighbours.

A published checkpoint is a pickle, which can run code when it is opened: it is opened only if its
sha256 is the one stated. Our own detectors are safetensors.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image

# before the import: no settings in the home folder, no installing or reporting behind the user's back
os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / "ultralytics"))
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")

from ultralytics import YOLO, settings
from ultralytics.engine.results import Results
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import torch_utils

from pipeline import training
from pipeline.stage import UserError, write_bytes

settings.update({"sync": False})
ARCHITECTURE = "yolov8n.yaml"
GREY, STRIDE = 114, 32  # ultralytics' padding; the network's coarsest


@dataclass(frozen=True)
class Detections:
    """What was found in one image. classes: names; scores: 0..1; boxes: [n, 4], x0, y0, x1, y1 in 0..1 of the image."""

    classes: list[str]
    scores: np.ndarray
    boxes: np.ndarray

    @property
    def most_frequent(self) -> tuple[str, int] | None:
        """The class with most detections and their number (the first by name of several); None without detections."""
        if not self.classes:
            return None
        names, counts = np.unique(self.classes, return_counts=True)
        return str(names[counts.argmax()]), int(counts.max())


def use_threads(threads: int) -> None:
    """CPU threads of torch, in ultralytics too, which would take as many as the machine has cores less one."""
    torch.set_num_threads(threads)
    torch_utils.NUM_THREADS = threads


def load_checkpoint(path: Path, sha256: str) -> YOLO:
    """A published YOLO checkpoint. Raises UserError where the file's sha256 is another than stated."""
    from pipeline.inputs import sources

    if (found := sources.sha256(path)) != sha256:
        raise UserError(
            f"{path}: sha256 {found}, should be {sha256}; a checkpoint can run code when opened, so it was not. "
            f"State its hash beside its path in params.yaml if you trust it"
        )
    return YOLO(path)


def save_detector(path: Path, model: DetectionModel) -> None:
    """Write a detector's weights and class names as safetensors."""
    names = [model.names[i] for i in range(len(model.names))]
    tensors = {name: tensor.detach().cpu().float().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors, {"names": json.dumps(names)}))


def load_detector(path: Path) -> YOLO:
    """A detector that `save_detector` wrote. Raises UserError for a file that is none."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = json.loads((file.metadata() or {})["names"])
        model = DetectionModel(ARCHITECTURE, nc=len(names), verbose=False)
        model.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path}: not a detector of ours: {' '.join(str(error).split())[:300]}; run 'dvc repro'"
        ) from None
    model.names = dict(enumerate(names))
    yolo = YOLO(ARCHITECTURE)
    yolo.model = model.eval()
    return yolo


class Detector:
    """A YOLO at one input size: an image's longer side becomes `size` pixels.

    The body runs in bf16 where `precision` and the device ask for it (see training.autocast), the
    detection head in fp32: boxes in bf16 would be off by pixels.
    """

    def __init__(
        self, yolo: YOLO, *, size: int, confidence: float, iou: float, batch: int, precision: str = "fp32"
    ) -> None:
        self.yolo, self.size, self.confidence, self.iou, self.batch = yolo, size, confidence, iou, batch
        self.device, self.precision = training.device(), precision
        yolo.model.to(memory_format=torch.channels_last)  # faster on a CPU
        head = yolo.model.model[-1]
        in_fp32 = head.forward

        def forward(maps: list[torch.Tensor], *rest: object) -> object:
            with torch.autocast(self.device.type, enabled=False):
                return in_fp32([features.float() for features in maps], *rest)

        head.forward = forward

    def __call__(self, images: list[Image.Image]) -> list[Detections]:
        """Detections in RGB images of any sizes, in their order.

        Images are batched with others of their own padded shape, and a last, smaller batch is filled
        up with blank ones, so that a result does not depend on its neighbours.
        """
        padded = [self._pad(image) for image in images]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, pixels in enumerate(padded):
            by_shape.setdefault(pixels.shape, []).append(i)
        found: dict[int, Detections] = {}
        for shape, members in by_shape.items():
            for start in range(0, len(members), self.batch):
                part = members[start : start + self.batch]
                blank = [np.full(shape, GREY, np.uint8)] * (self.batch - len(part))
                results = self._predict([*(padded[i] for i in part), *blank])
                found |= {i: self._read(result, images[i]) for i, result in zip(part, results, strict=False)}
        return [found[i] for i in range(len(images))]

    def _predict(self, batch: list[np.ndarray]) -> list[Results]:
        with training.autocast(self.precision, self.device):
            return self.yolo.predict(
                batch,
                imgsz=batch[0].shape[:2],
                conf=self.confidence,
                iou=self.iou,
                device=self.device.type,
                verbose=False,
            )

    def _read(self, result: Results, image: Image.Image) -> Detections:
        scale = self.size / max(image.size)
        boxes = result.boxes.xyxy.cpu().numpy() / scale / np.tile(image.size, 2)
        classes = [result.names[int(c)] for c in result.boxes.cls]
        return Detections(classes, result.boxes.conf.cpu().numpy(), boxes.clip(0, 1))

    def _pad(self, image: Image.Image) -> np.ndarray:
        """BGR [H, W, 3], the image in its upper left corner, H and W multiples of the network's stride."""
        scale = self.size / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        full = [-(-length // STRIDE) * STRIDE for length in (height, width)]
        padded = np.full((*full, 3), GREY, np.uint8)
        padded[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))[..., ::-1]
        return padded
