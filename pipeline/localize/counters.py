"""The counters on purpose, by the names that params.yaml has for them.

regress        ResNet-18 with two numbers out
ssd            boxes, found in one pass
faster_rcnn    boxes, regions proposed and looked at again
segment        every pixel named, connected components counted
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.localize.counter import Counter
from pipeline.localize.detection import faster_rcnn, ssd
from pipeline.localize.regression import Regressor
from pipeline.localize.scenes import Scenes
from pipeline.localize.segmentation import Segmenter
from pipeline.params import Params

AT_ONCE = {"cpu": 32, "cuda": 256, "mps": 64}  # images


def build(name: str, params: Params) -> Counter:
    """A counter with random weights, for images of the shapes study's resolution."""
    study, scale = params.localize, params.at_scale.localize
    size = params.at_scale.shapes.resolution
    match name:
        case "regress":
            network: Counter = Regressor()
        case "segment":
            network = Segmenter(size, scale.stride, scale.width, scale.mask_size)
        case "ssd" | "faster_rcnn":
            detector = {"ssd": ssd, "faster_rcnn": faster_rcnn}[name]
            network = detector(size, scale.stride, scale.width, study.anchors, study.aspect_ratios)
    return network.to(memory_format=torch.channels_last)


@torch.inference_mode()
def find(network: Counter, scenes: Scenes, device: torch.device) -> list:
    """What a counter finds in each image; its mode is left as found."""
    was_training = network.training
    network.eval()
    batches = torch.from_numpy(scenes.pixels).split(AT_ONCE[device.type])
    found = [item for batch in batches for item in network.find(batch.to(device))]
    network.train(was_training)
    return found


def count(network: Counter, found: list, threshold: float) -> np.ndarray:
    """Squares and circles that the findings make: float [N, 2]."""
    return np.stack([network.tally(item, threshold) for item in found]).astype(float)


def choose_threshold(network: Counter, found: list, counts: np.ndarray) -> tuple[float, float]:
    """The threshold with the least mean absolute error of the counts [N, 2], and that error; the first of equals."""
    errors = {t: float(np.abs(count(network, found, t) - counts).mean()) for t in network.thresholds}
    best = min(errors, key=errors.__getitem__)
    return best, errors[best]
