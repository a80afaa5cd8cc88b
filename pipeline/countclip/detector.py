"""YOLOv8 on images one at a time or in batches, such that a result does not depend on its neighbours.

Every image is scaled and padded to the same square, and every batch filled up to the same size.
A published checkpoint is a pickle, which can run code when it is opened: it is opened only if its
sha256 is the one stated. Our own detectors are safetensors.
"""

from __future__ import annotations

import hashlib
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
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import torch_utils

from pipeline.stage import UserError, write_bytes

settings.update({"sync": False})
ARCHITECTURE = "yolov8n.yaml"
GREY = 114  # ultralytics' padding


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
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
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
    """A YOLO at one input size."""

    def __init__(self, yolo: YOLO, *, size: int, confidence: float, iou: float, batch: int) -> None:
        self.yolo, self.size, self.confidence, self.iou, self.batch = yolo, size, confidence, iou, batch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        yolo.model.to(memory_format=torch.channels_last)  # more than twice as fast on a CPU

    def __call__(self, images: list[Image.Image]) -> list[Detections]:
        """Detections in RGB images of any sizes."""
        found = []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            squares, scales = zip(*(self._square(image) for image in part), strict=True)
            blank = [np.full((self.size, self.size, 3), GREY, np.uint8)] * (self.batch - len(part))
            results = self.yolo.predict(
                [*squares, *blank],
                imgsz=self.size,
                conf=self.confidence,
                iou=self.iou,
                device=self.device,
                rect=False,
                verbose=False,
            )
            for image, scale, result in zip(part, scales, results, strict=False):
                boxes = result.boxes.xyxy.cpu().numpy() / scale / np.tile(image.size, 2)
                classes = [result.names[int(c)] for c in result.boxes.cls]
                found.append(Detections(classes, result.boxes.conf.cpu().numpy(), boxes.clip(0, 1)))
        return found

    def _square(self, image: Image.Image) -> tuple[np.ndarray, float]:
        """The image as BGR [size, size, 3], in the upper left corner, and by what it was scaled."""
        scale = self.size / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        square = np.full((self.size, self.size, 3), GREY, np.uint8)
        square[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))[..., ::-1]
        return square, scale
