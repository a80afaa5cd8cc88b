"""Train YOLOv8n to find the things of generated scenes: what the COCO-trained one does for photographs.

python -m pipeline.countclip.train_detector
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from ruamel.yaml import YAML
from ultralytics import YOLO

from pipeline import training
from pipeline.countclip.detector import ARCHITECTURE, Detector, load_detector, save_detector, use_threads
from pipeline.countclip.paths import DETECTOR
from pipeline.countclip.scenes import KINDS, Scene, draw_scene
from pipeline.params import load_params
from pipeline.shards import item_rng, process_pool
from pipeline.stage import run, write_json

COUNTS = range(1, 11)


def scene(number: int, *, seed: int, split: str, resolution: int) -> Scene:
    """Scene `number` of a split; all counts equally often."""
    return draw_scene(item_rng(seed, f"countclip/detector/{split}/{number}"), COUNTS[number % len(COUNTS)], resolution)


def write_scene(numbered: tuple[int, Scene], folder: Path) -> None:
    """An image and its labels, as ultralytics reads them: class, centre x, y, width, height."""
    number, drawn = numbered
    cv2.imwrite(str(folder / "images" / f"{number}.png"), drawn.pixels[..., ::-1])
    rows = []
    for thing in drawn.things:
        x0, y0, x1, y1 = thing.box
        rows.append(f"{KINDS.index(thing.kind)} {(x0 + x1) / 2:.5f} {(y0 + y1) / 2:.5f} {x1 - x0:.5f} {y1 - y0:.5f}")
    (folder / "labels" / f"{number}.txt").write_text("\n".join(rows) + "\n")


def main() -> str:
    params = load_params()
    settings, scale, found_by = params.countclip.detector, params.at_scale.countclip, params.sources.generated.detector
    use_threads(params.threads)
    with tempfile.TemporaryDirectory() as temporary, process_pool() as parallel_map:
        folder = Path(temporary)
        for part in ("images", "labels"):
            (folder / part).mkdir()
        draw = partial(scene, seed=params.seed, split="train", resolution=scale.resolution)
        for numbered in enumerate(parallel_map(draw, range(scale.detector_scenes))):
            write_scene(numbered, folder)
        # the last epoch is validated even with val=False, twice; nothing here asks for it
        (folder / "first.txt").write_text("./images/0.png\n")
        data = {"path": str(folder), "train": "images", "val": "first.txt", "names": dict(enumerate(KINDS))}
        YAML().dump(data, folder / "data.yaml")
        yolo = YOLO(ARCHITECTURE)
        yolo.add_callback("on_train_start", lambda trainer: trainer.model.to(memory_format=torch.channels_last))
        yolo.train(
            data=str(folder / "data.yaml"),
            imgsz=scale.resolution,
            epochs=scale.detector_epochs,
            batch=settings.batch_size,
            optimizer="AdamW",
            lr0=settings.learning_rate,
            seed=params.seed,
            deterministic=True,
            workers=0,
            device=training.device().type,
            project=str(folder / "runs"),
            val=False,
            save=False,
            plots=False,
            amp=False,
            cache="ram",
            verbose=False,
            # scenes are varied as they are, and all as large as one another
            mosaic=0.0,
            scale=0.1,
            translate=0.05,
            erasing=0.0,
            warmup_epochs=1,
            cos_lr=True,
        )
        save_detector(DETECTOR, yolo.trainer.ema.ema)
        tests = list(
            parallel_map(
                partial(scene, seed=params.seed, split="test", resolution=scale.resolution), range(scale.detector_tests)
            )
        )
    detect = Detector(
        load_detector(DETECTOR),
        size=scale.resolution,
        confidence=found_by.confidence,
        iou=found_by.iou,
        batch=1,
    )
    found = [d.most_frequent for d in detect([Image.fromarray(s.pixels) for s in tests])]
    right = np.array([f == (s.kind, s.count) for f, s in zip(found, tests, strict=True)])
    counts = np.array([s.count for s in tests])
    write_json(
        "metrics/countclip/detector.json",
        {
            "scenes": len(tests),
            "right_kind_and_count": right.mean(),
            "by_count": {str(n): right[counts == n].mean() for n in COUNTS if (counts == n).any()},
        },
    )
    return f"{scale.detector_scenes:,} scenes, {scale.detector_epochs} epochs, right counts {right.mean():.3f},"


if __name__ == "__main__":
    run(main)
