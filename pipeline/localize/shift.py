"""How often does a decision change when the scene moves, turns or grows, and what has padding to do with it?

    python -m pipeline.localize.shift

The document (convnets-in-vision, 'ConvNets in Computer Vision') qualifies shift invariance by the border ('the choice
of padding in convnets makes a difference!') and by pooling. A scene is moved along either axis in two ways: 'rolled',
what leaves at one end comes in at the other, so that nothing is lost; and 'cut', what leaves is gone and black comes
in, so that the majority itself may change ('majority_changed'). The network's maps are padded as in training (zeros),
or by reflection, or by their other end. With the last, a rolled scene by a multiple of the network's stride, 32,
changes nothing: that is the check of the method.

The document would have a perfect model bear rotation and scale too, since the contents hardly change. So a scene is
also 'turned' both ways by some degrees, and 'zoomed', enlarged by some percent and reduced as much, about its middle,
black beyond the border. Its shapes are drawn anew for that: pixels that are sampled anew would be blurred, and shapes
are few pixels wide. Of all ways it is measured how far the raw features change ('pixels_apart', the distance of the
moved scene's pixels from the scene's, as a share of another scene's distance), and the contents ('shapes_lost', the
share of shapes whose centres leave).
"""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline import training
from pipeline.localize.network import as_input, resnet18
from pipeline.localize.paths import METRICS, PLOTS, network_of, network_weights, test_name
from pipeline.localize.scenes import BACKGROUND, CIRCLE, SQUARE, Shapes, load
from pipeline.padding import MODES, pad_with
from pipeline.params import load_params
from pipeline.stage import run, write_json
from pipeline.statistics.intervals import mean_with_interval, wilson
from pipeline.tiny_maps import quicken

WAYS = ("rolled", "cut", "turned", "zoomed")
SHIFTED = WAYS[:2]
FINE = 512  # cells of a side, at least, on which scenes are drawn anew
DIRECTIONS = (1, 2)  # down and to the right (the images' axes); turned to the right and left; enlarged and reduced
STRIDE = 32  # of ResNet-18


def move(pixels: Tensor, by: int, axis: int, way: str) -> Tensor:
    """Images uint8 [N, H, W] moved by so many pixels down (axis 1) or to the right (axis 2); see SHIFTED."""
    moved = torch.roll(pixels, by, dims=axis)
    if way == "cut":
        moved.narrow(axis, 0, min(by, pixels.shape[axis])).zero_()
    return moved


def drawn(scenes: list[Shapes], side: int) -> np.ndarray:
    """Scenes drawn finer than their images of side x side pixels: uint8 [N, F, F], F a multiple of side."""
    fine = side * -(-FINE // side)
    return np.stack([(shapes.mask(fine) > BACKGROUND).astype(np.uint8) * 255 for shapes in scenes])


def transform(fine: np.ndarray, side: int, by: float, direction: int, way: str) -> Tensor:
    """Images uint8 [N, side, side] of `drawn` scenes, turned by degrees or zoomed by percent about their middle."""
    centre = np.full(2, (fine.shape[-1] - 1) / 2)
    matrix = linear(by, direction, way)
    affine = np.column_stack([matrix, centre - matrix @ centre])
    moved = (cv2.warpAffine(scene, affine, scene.shape) for scene in fine)
    return torch.from_numpy(np.stack([cv2.resize(m, (side, side), interpolation=cv2.INTER_AREA) for m in moved]))


def linear(by: float, direction: int, way: str) -> np.ndarray:
    """Where (x, y) from the middle, y down, comes to lie: float [2, 2]. by: degrees or percent."""
    if way == "zoomed":
        factor = 1 + by / 100
        return np.eye(2) * (factor if direction == 1 else 1 / factor)
    angle = np.radians(by if direction == 1 else -by)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).round(12)


def kept(shapes: Shapes, by: float, direction: int, way: str) -> np.ndarray:
    """Of which shapes the centres are still there: bool [n]. by: in 0..1 of the image, degrees, or percent."""
    if way in SHIFTED:
        place = shapes.y if direction == 1 else shapes.x
        return (place + by < 1) | (way == "rolled")
    places = linear(by, direction, way) @ (np.stack([shapes.x, shapes.y]) - 0.5)
    return (np.abs(places) <= 0.5 + 1e-9).all(axis=0)


def majority(scenes: list[Shapes], by: float, axis: int, way: str) -> np.ndarray:
    """Whether circles are in the majority, bool [N], of the shapes whose centres are still there; a tie is a square.

    by: in 0..1 of the image, degrees, or percent; axis: the direction.
    """
    answers = []
    for shapes in scenes:
        left = shapes.label[kept(shapes, by, axis, way)]
        answers.append((left == CIRCLE).sum() > (left == SQUARE).sum())
    return np.array(answers)


def distances(first: Tensor, second: Tensor) -> np.ndarray:
    """Root mean square of the difference of images uint8 [N, H, W], one by one: float [N]."""
    return (first.double() - second.double()).square().mean(dim=(1, 2)).sqrt().numpy()


def changes(pixels: Tensor, moved: list[Tensor], scenes: list[Shapes], by: float, way: str) -> dict[str, float]:
    """How far the raw features, and the contents, of scenes change: means over images, of both directions.

    pixels, moved: uint8 [N, H, W], as they were, and moved in either direction; by: as of `kept`.
    """
    apart = np.mean([distances(images, pixels) for images in moved], axis=0)
    lost = [[1 - kept(shapes, by, axis, way).mean() for axis in DIRECTIONS] for shapes in scenes if len(shapes)]
    return {
        **mean_with_interval(apart / distances(pixels, pixels.roll(1, dims=0)), "pixels_apart"),
        **mean_with_interval(np.mean(lost, axis=1), "shapes_lost"),
    }


@torch.inference_mode()
def logits(network: nn.Module, pixels: Tensor) -> Tensor:
    """Logits float [N, 2] of images uint8 [N, H, W]."""
    where = next(network.parameters()).device
    return torch.cat([network(as_input(batch.to(where))).float().cpu() for batch in pixels.split(128)])


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/shift", params.threads)
    device, density = training.device(), params.localize.density
    network = quicken(resnet18()).to(device).eval()
    training.load_weights(network_weights(density), network)
    scenes = load(test_name(density), params.shapes.scene.canvas, params.at_scale.localize.shift_images)
    pixels = torch.from_numpy(scenes.pixels)
    circles = majority(scenes.shapes, 0, 1, "cut")
    side = pixels.shape[-1]
    shifts = [shift for shift in params.localize.shifts if shift < side]
    amounts = {"rolled": shifts, "cut": shifts, "turned": params.localize.turns, "zoomed": params.localize.zooms}
    amounts = {way: sorted({0, *of_way}) for way, of_way in amounts.items()}
    fine = drawn(scenes.shapes, side)
    rows = []
    for padding in MODES:
        if padding == "reflect" and side <= STRIDE:  # the deepest maps are single pixels, which have no reflection
            continue
        padded = pad_with(copy.deepcopy(network), padding)
        for way in WAYS if padding == "zeros" else SHIFTED:
            start = pixels if way in SHIFTED else transform(fine, side, 0, 1, way)
            before = logits(padded, start).repeat(2, 1)
            for by in amounts[way]:
                if way in SHIFTED:
                    images = [move(pixels, by, axis, way) for axis in DIRECTIONS]
                else:
                    images = [transform(fine, side, by, axis, way) for axis in DIRECTIONS]
                moved = torch.cat([logits(padded, of_direction) for of_direction in images])
                changed = (moved.argmax(dim=1) != before.argmax(dim=1)).numpy()
                amount = by / side if way in SHIFTED else by
                truth = np.concatenate([majority(scenes.shapes, amount, axis, way) for axis in DIRECTIONS])
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
                        **changes(start, images, scenes.shapes, amount, way),
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
