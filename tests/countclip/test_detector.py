"""The detector of generated scenes: trained to the same bytes, and read back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import copy_params, run_stages
from PIL import Image
from ultralytics.nn.tasks import DetectionModel

from pipeline.countclip.detector import ARCHITECTURE, Detector, load_detector, save_detector
from pipeline.countclip.scenes import KINDS


@pytest.fixture
def untrained() -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(ARCHITECTURE, nc=len(KINDS), verbose=False)
    model.names = dict(enumerate(KINDS))
    return model.eval()


def test_a_detector_is_read_back_as_it_was(untrained, tmp_path):
    save_detector(tmp_path / "d.safetensors", untrained)
    read = load_detector(tmp_path / "d.safetensors").model
    assert read.names == untrained.names
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(read(x)[0], untrained(x)[0])


def test_boxes_are_in_shares_of_the_image_whatever_its_shape(untrained, tmp_path):
    """A detector that finds something at one place of the network's input finds it there in the image."""
    save_detector(tmp_path / "d.safetensors", untrained)
    detect = Detector(load_detector(tmp_path / "d.safetensors"), size=64, confidence=0.0, iou=0.99, batch=2)
    images = [Image.new("RGB", size, "red") for size in ((64, 64), (640, 320), (30, 90), (640, 320), (1, 1))]
    for found in detect(images):
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
        assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
        assert len(found.classes) == len(found.scores) == len(found.boxes)


@pytest.mark.slow
def test_training_twice_gives_the_same_bytes(tmp_path: Path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        copy_params(tmp_path / name, **{"scales.smoke.countclip.detector_scenes": 48})
        run_stages(tmp_path / name, ("countclip.train_detector",))
        contents.append((tmp_path / name / "models/countclip/detector.safetensors").read_bytes())
    assert contents[0] == contents[1]
    assert np.frombuffer(contents[0], np.uint8).std() > 1
