"""Counting by detection: every shape is found as a box.

Source: convnets-in-vision, 'Object Detection' and 'Region Prediction Networks'.

The base network is ResNet-18's first layers, as a pyramid of maps at two scales. At every place of every map there
are anchor boxes of several sizes. Those that match a shape's box (IoU) learn its category, of k + 1, by cross entropy
(in Faster R-CNN's proposals, whether there is one), and their 4 offsets to it by Huber's loss; non-maximum
suppression leaves one box a shape. All of this is torchvision's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import MultiScaleRoIAlign

from pipeline.localize.counter import Counter
from pipeline.localize.network import LEVELS, Pyramid, as_input
from pipeline.localize.scenes import CLASSES, Shapes

MOST = 1000  # boxes an image, at most
CANDIDATES = 4000  # of a kind, before those that overlap are dropped
LEAST_SCORE = 0.02  # of a box that is kept, for the curve of precision against recall
FINE = 1024  # parts of a pixel
NMS_IOU = 0.45  # of two boxes of one kind, the worse is dropped where they overlap more
AS_THEY_ARE = {"image_mean": [0.0], "image_std": [1.0]}  # images are in 0..1 already


class Detector(Counter):
    """Finds {'boxes': [n, 4] in 0..1 of the image, 'labels': [n], 'scores': [n]}, the best first."""

    thresholds = tuple(np.round(np.arange(0.1, 0.91, 0.05), 2).tolist())

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def look(self, pixels: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """torchvision's network on images; only its base network under autocast: bf16 has no room for places."""
        kind = pixels.device.type
        self.network.backbone.bf16 = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False):
            return self.network(list(as_input(pixels)), targets)

    def loss(self, pixels: Tensor, shapes: list[Shapes]) -> dict[str, Tensor]:
        side, device = pixels.shape[-1], pixels.device
        targets = [
            {
                "boxes": torch.from_numpy(s.boxes * side).reshape(-1, 4).to(device),
                "labels": torch.from_numpy(s.label).to(device),
            }
            for s in shapes
        ]
        parts = self.look(pixels, targets)
        return {"loss": sum(parts.values()), **parts}

    def find(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        found = self.look(pixels)
        return [
            {name: (v / pixels.shape[-1] if name == "boxes" else v).float().cpu() for name, v in image.items()}
            | {"labels": image["labels"].cpu()}
            for image in found
        ]

    def tally(self, found: dict[str, Tensor], threshold: float) -> np.ndarray:
        return np.bincount(found["labels"][found["scores"] >= threshold].numpy(), minlength=CLASSES)[1:]


def ssd(size: int, stride: int, width: int, anchors: list[float], aspect_ratios: list[float]) -> Detector:
    """Single-shot detection. anchors: sizes in 0..1 of the image, one a map and one beyond the last.

    A map's anchors are squares of its size and of the geometric mean with the next one's, and two boxes of its size
    for every aspect ratio beside 1: that wide over high, and that high over wide.
    """
    generator = DefaultBoxGenerator([aspect_ratios] * len(LEVELS), scales=anchors)
    head = SSDHead([width] * len(LEVELS), generator.num_anchors_per_location(), CLASSES)
    kept = {
        "score_thresh": LEAST_SCORE,
        "nms_thresh": NMS_IOU,
        "detections_per_img": MOST,
        "topk_candidates": CANDIDATES,
    }
    pyramid = Pyramid(stride, width)
    return Detector(SSD(pyramid, generator, (size, size), CLASSES, head=head, **AS_THEY_ARE, **kept))


class FineAnchors(AnchorGenerator):
    """torchvision's, in fractions of a pixel: it rounds to whole ones, and a small shape is no wider than that."""

    def generate_anchors(self, scales: list[float], aspect_ratios: list[float], **options) -> Tensor:
        return super().generate_anchors([size * FINE for size in scales], aspect_ratios, **options) / FINE


def faster_rcnn(size: int, stride: int, width: int, anchors: list[float], aspect_ratios: list[float]) -> Detector:
    """Faster R-CNN: a region proposal network, and a second look at each region. Arguments as of `ssd`."""
    ratios = (1.0, *(r for ratio in aspect_ratios for r in (ratio, 1 / ratio)))
    sizes = tuple((low * size, (low * high) ** 0.5 * size) for low, high in pairwise(anchors))
    looks = 5  # samples of a region, in each direction
    network = FasterRCNN(
        Pyramid(stride, width),
        rpn_anchor_generator=FineAnchors(sizes, (ratios,) * len(LEVELS)),
        box_roi_pool=MultiScaleRoIAlign([str(i) for i in range(len(LEVELS))], looks, 2, canonical_scale=size // 4),
        box_head=TwoMLPHead(width * looks**2, 2 * width),
        box_predictor=FastRCNNPredictor(2 * width, CLASSES),
        rpn_pre_nms_top_n_train=CANDIDATES,
        rpn_post_nms_top_n_train=MOST,
        rpn_pre_nms_top_n_test=CANDIDATES,
        rpn_post_nms_top_n_test=MOST,
        box_score_thresh=LEAST_SCORE,
        box_nms_thresh=NMS_IOU,
        box_detections_per_img=MOST,
        min_size=size,
        max_size=size,
        **AS_THEY_ARE,
    )
    return Detector(network)
