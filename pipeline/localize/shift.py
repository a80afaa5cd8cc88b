"""How often does a decision change when the scene moves, and what has padding to do with it?

    python -m pipeline.localize.shift

The document (convnets-in-vision, 'ConvNets in Computer Vision') qualifies shift invariance by the border ('the choice
of padding in convnets makes a difference!') and by pooling. A scene is moved along either axis in two ways: 'rolled',
what leaves at one end comes in at the other, so that nothing is lost; and 'cut', what leaves is gone and black comes
in, so that the majority itself may change ('majority_changed'). The network's maps are padded as in training (zeros),
or by reflection, or by their other end. With the last, a rolled scene by a multiple of the network's stride, 32,
changes nothing: that is the check of the method.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline import training
from pipeline.localize.network import as_input, resnet18
from pipeline.localize.paths import METRICS, PLOTS, network_of, network_weights, test_name
from pipeline.localize.scenes import CIRCLE, SQUARE, Shapes, load
from pipeline.padding import MODES, pad_with
from pipeline.params import load_params
from pipeline.psychometric import wilson
from pipeline.stage import run, write_json

WAYS = ("rolled", "cut")
STRIDE = 32  # of ResNet-18


def move(pixels: Tensor, by: int, axis: int, way: str) -> Tensor:
    """Images uint8 [N, H, W] moved by so many pixels down (axis 1) or to the right (axis 2); see WAYS."""
    moved = torch.roll(pixels, by, dims=axis)
    if way == "cut":
        moved.narrow(axis, 0, min(by, pixels.shape[axis])).zero_()
    return moved


def majority(scenes: list[Shapes], by: float, axis: int, way: str) -> np.ndarray:
    """Whether circles are in the majority, bool [N], of the shapes whose centres are still there; a tie is a square.

    by: in 0..1 of the image; axis: 1 for down, 2 for to the right.
    """
    answers = []
    for shapes in scenes:
        place = shapes.y if axis == 1 else shapes.x
        left = shapes.label[place + by < 1] if way == "cut" else shapes.label
        answers.append((left == CIRCLE).sum() > (left == SQUARE).sum())
    return np.array(answers)


@torch.inference_mode()
def logits(network: nn.Module, pixels: Tensor) -> Tensor:
    """Logits float [N, 2] of images uint8 [N, H, W]."""
    where = next(network.parameters()).device
    return torch.cat([network(as_input(batch.to(where))).float().cpu() for batch in pixels.split(128)])


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/shift", params.threads)
    device, density = training.device(), params.localize.density
    network = resnet18().to(device).eval()
    training.load_weights(network_weights(density), network)
    scenes = load(test_name(density), params.shapes.scene.canvas, params.at_scale.localize.shift_images)
    pixels = torch.from_numpy(scenes.pixels)
    circles = majority(scenes.shapes, 0, 1, "cut")
    side = pixels.shape[-1]
    rows = []
    for padding in MODES:
        if padding == "reflect" and side <= STRIDE:  # the deepest maps are single pixels, which have no reflection
            continue
        padded = pad_with(copy.deepcopy(network), padding)
        still = logits(padded, pixels)
        for way in WAYS:
            for by in sorted({0, *(shift for shift in params.localize.shifts if shift < side)}):
                moved = torch.cat([logits(padded, move(pixels, by, axis, way)) for axis in (1, 2)])
                before = torch.cat([still, still])
                changed = (moved.argmax(dim=1) != before.argmax(dim=1)).numpy()
                truth = np.concatenate([majority(scenes.shapes, by / side, axis, way) for axis in (1, 2)])
                right = (moved.argmax(dim=1) == 1).numpy() == truth
                # of an image's two moves, one is not independent of the other: the interval counts images
                low, high = wilson(np.array(changed.mean() * len(pixels)), np.array(len(pixels)))
                rows.append(
                    {
                        "network": network_of(density),
                        "padding": padding,
                        "way": way,
                        "shift": by,
                        "images": len(pixels),
                        "changed": changed.mean(),
                        "changed_low": float(low),
                        "changed_high": float(high),
                        "accuracy": right.mean(),
                        "majority_changed": (truth != np.concatenate([circles, circles])).mean(),
                        "answered_circle": (moved.argmax(dim=1) == 1).float().mean().item(),
                        "logits_apart": (moved - before).abs().mean().item(),
                    }
                )
    table = pd.DataFrame(rows)
    write_json(PLOTS / "shifts.json", table.to_dict("records"))
    moved = table[table["shift"] > 0]
    write_json(
        METRICS / "shifts.json",
        {
            way: {
                padding: {f"by_{row['shift']}": row["changed"] for _, row in these.iterrows()}
                | {"mean": float(these["changed"].mean())}
                for padding, these in of_way.groupby("padding", sort=False)
            }
            for way, of_way in moved.groupby("way", sort=False)
        },
    )
    return f"{len(pixels)} scenes moved in {len(rows)} ways"


if __name__ == "__main__":
    run(main)
