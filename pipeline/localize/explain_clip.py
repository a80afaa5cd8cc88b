"""Does the similarity of an image and its caption rest on the things that the caption names?

    python -m pipeline.localize.explain_clip

Grad-CAM and LIME of CLIP's image-caption similarity, on generated scenes whose things' boxes are known; against the
caption of another scene ('other caption') and against random weights. Of a model without convolutional stages (ViT),
Grad-CAM is of its only convolution, the patch embedding. Intervals are 95%, over images.
"""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import open_clip
import pandas as pd
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from pipeline import training
from pipeline.localize import heat
from pipeline.localize.paths import CLIP_CONFIG, CLIP_HEAT_MAPS, CLIP_POOL, CLIP_WEIGHTS, METRICS, PLOTS
from pipeline.localize.summaries import mean_with_interval, paired, share_with_interval
from pipeline.params import ClipModel, Params, load_params
from pipeline.shards import item_rng, read_shard
from pipeline.stage import run, write_bytes, write_json

CONTROLS = ("caption", "other caption", "random weights")
MEASURES = ("named", "other", "background", "named_times_area", "pointing", "iou")
SHOWN = 5


class Similarity(nn.Module):
    """Cosine of the angle between images, float [B, 3, H, W], and one caption: [B, 1]."""

    def __init__(self, model: nn.Module, caption: Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.text = normalize(model.encode_text(caption), dim=-1)  # [1, D]

    def forward(self, images: Tensor) -> Tensor:
        return normalize(self.model.encode_image(images), dim=-1) @ self.text.T


def build(choice: ClipModel, trained: bool) -> nn.Module:
    """The source's CLIP model, pre-trained or with random weights."""
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights, which are wanted
    open_clip.add_model_config(CLIP_CONFIG)
    ours = choice.weights is None
    model = open_clip.create_model(choice.name, pretrained=None if ours or not trained else choice.weights)
    if ours and trained:
        training.load_weights(CLIP_WEIGHTS, model)
    return model.eval()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Where Grad-CAM is asked: every convolutional stage, or a ViT's patch embedding."""
    stages = {name: module for name, module in model.visual.named_children() if name.startswith("layer")}
    return stages or {"conv1": model.visual.conv1}


def scenes(wanted: int) -> list[dict]:
    """Scenes of the pool with things of more than one kind: pixels [H, W, 3], caption, and boxes of what it names."""
    found = []
    for sample in read_shard(CLIP_POOL):
        record = json.loads(sample["json"])
        truth = record.get("truth")
        if truth is None:
            return []  # no generated pool: where its things are is not known
        things = truth["things"]
        if len({thing["kind"] for thing in things}) < 2:
            continue
        image = cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR_RGB)
        named = [thing["box"] for thing in things if thing["kind"] == truth["kind"]]
        others = [thing["box"] for thing in things if thing["kind"] != truth["kind"]]
        found.append(
            {"pixels": image, "caption": record["caption"], "kind": truth["kind"], "named": named, "others": others}
        )
        if len(found) == wanted:
            break
    return found


def filled(boxes: list[list[float]], side: int) -> np.ndarray:
    """Pixels whose centre is in any of the boxes x0, y0, x1, y1 in 0..1: bool [side, side]."""
    mask = np.zeros((side, side), bool)
    centres = (np.arange(side) + 0.5) / side
    for x0, y0, x1, y1 in boxes:
        mask[slice(*np.searchsorted(centres, [y0, y1])), slice(*np.searchsorted(centres, [x0, x1]))] = True
    return mask


def maps_of(model: nn.Module, image: Tensor, caption: Tensor, params: Params, key: str) -> dict[str, np.ndarray]:
    """Energies [H, W] by method, of one image [3, H, W] and one caption."""
    similarity, side = Similarity(model, caption).eval(), image.shape[-1]
    target = torch.zeros(1, dtype=torch.long, device=image.device)
    maps = {
        f"grad-cam {name}": heat.energies(heat.grad_cam(similarity, layer, image[None], target), side)[0]
        for name, layer in layers(model).items()
    }
    torch.manual_seed(int(item_rng(params.seed, f"localize/explain_clip/{key}").integers(2**63)))
    with torch.no_grad():
        weights = heat.lime(similarity, image, 0, params.localize.grid, params.at_scale.localize.lime_samples)
    maps["lime"] = heat.energies(weights[None], side, mode="nearest")[0]
    return maps


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/explain_clip", params.threads)
    device, choice = training.device(), params.inputs.clip
    known = scenes(params.at_scale.localize.explained_images)
    models = {name: build(choice, name != "random weights").to(device) for name in CONTROLS}
    model = models["caption"]
    side = model.visual.image_size[0] if isinstance(model.visual.image_size, tuple) else model.visual.image_size
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.visual.image_mean, model.visual.image_std))
    captions = open_clip.tokenize([scene["caption"] for scene in known], context_length=model.context_length).to(device)
    rows, pictures = [], {}
    for i, scene in enumerate(known):
        pixels = torch.from_numpy(scene["pixels"]).permute(2, 0, 1)
        image = resize(pixels, [side, side], InterpolationMode.BICUBIC, antialias=True)
        # 0 where a square is taken away is then the mean of all images
        inputs = ((image.float() / 255 - mean) / std).to(device)
        named, others = filled(scene["named"], side), filled(scene["others"], side)
        others &= ~named
        away = next((j for step in range(1, len(known)) for j in [(i + step) % len(known)]
                     if known[j]["kind"] != scene["kind"]), i)  # fmt: skip
        for control in CONTROLS:
            caption = captions[[away if control == "other caption" else i]]
            maps = maps_of(models[control], inputs, caption, params, f"{i}/{control}")
            for method, energy in maps.items():
                rng = item_rng(params.seed, f"localize/explain_clip/{i}/{control}/{method}")
                found = heat.location(energy, named, rng)
                defined = bool(energy.any())
                rows.append(
                    {
                        "image": i,
                        "control": control,
                        "method": method,
                        "named": found["share"],
                        "other": energy[others].sum() if defined else np.nan,
                        "background": energy[~named & ~others].sum() if defined else np.nan,
                        "named_times_area": found["share"] / named.mean(),
                        "pointing": found["pointing"],
                        "iou": found["iou"],
                    }
                )
                if i < SHOWN:
                    pictures[f"{i}/{control}/{method}"] = energy.astype(np.float32)
        if i < SHOWN:
            pictures[f"{i}/pixels"] = image.permute(1, 2, 0).contiguous().numpy()
            pictures[f"{i}/caption"] = np.frombuffer(scene["caption"].encode(), np.uint8).copy()
    columns = ["image", "control", "method", *MEASURES]
    table = pd.DataFrame(rows, columns=columns)
    summaries = []
    for method, of_method in table.groupby("method", sort=False):
        by_control = {control: part.set_index("image") for control, part in of_method.groupby("control")}
        for name in MEASURES:
            row = {"method": method, "measure": name, "images": len(by_control["caption"])}
            interval = share_with_interval if name == "pointing" else mean_with_interval
            for control in CONTROLS:
                row |= interval(by_control[control][name].to_numpy(), control.replace(" ", "_"))
            for control in CONTROLS[1:]:
                gain = f"over_{control.replace(' ', '_')}"
                row |= paired(by_control["caption"][name], by_control[control][name], gain)
            summaries.append(row)
    write_bytes(CLIP_HEAT_MAPS, safetensors.numpy.save(pictures))
    write_json(PLOTS / "clip_explanations.json", summaries)
    write_json(
        METRICS / "clip_explanations.json",
        {"images": len(known), "unknown": None if known else "where the things of this pool's images are"}
        | {
            method: {
                row["measure"]: {k: v for k, v in row.items() if k not in ("method", "measure")} for row in of_method
            }
            for method in dict.fromkeys(row["method"] for row in summaries)
            for of_method in [[row for row in summaries if row["method"] == method]]
        },
    )
    return f"{len(table):,} heat maps of {choice.name}"


if __name__ == "__main__":
    run(main)
