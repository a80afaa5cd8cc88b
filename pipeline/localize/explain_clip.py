"""Does the similarity of an image and its caption rest on the things that the caption names?

    python -m pipeline.localize.explain_clip

Grad-CAM and LIME of CLIP's image-caption similarity, on generated scenes whose things' boxes are known; against the
caption of another scene ('other caption') and against random weights, of which an image's control is the mean over
those of 10 models (LIME: of 2) that gave it a map. Of a model without convolutional stages (ViT), Grad-CAM is of its
only convolution, the patch embedding. Intervals are 95%, over images, and where weights are random over models too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

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
from tqdm import tqdm

from pipeline import training
from pipeline.countclip.params import ClipModel
from pipeline.localize import heat
from pipeline.localize.paths import CLIP_CONFIG, CLIP_HEAT_MAPS, CLIP_POOL, CLIP_WEIGHTS, METRICS, PLOTS
from pipeline.params import Params, load_params
from pipeline.shards import item_rng, read_shard
from pipeline.stage import UserError, run, write_bytes, write_json
from pipeline.statistics.intervals import mean_of_draws, mean_with_interval, paired, share_of_draws, share_with_interval

SMALL = "small-clip"  # ours
CONTROLS = ("caption", "other caption", "random weights")
MEASURES = heat.location_measures("named")
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
    from pipeline.inputs.sources import resolve

    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights, which are wanted
    open_clip.add_model_config(CLIP_CONFIG)
    ours = choice.weights is None and choice.name == SMALL
    weights = resolve(choice.weights) if trained and choice.weights else None
    try:
        model = open_clip.create_model(choice.name, pretrained=weights)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"params.yaml: sources: clip.weights = '{choice.weights}': no weights for {choice.name}: {reason}; set it "
            f"to a file of this model's weights, or to a tag of open_clip's where there is a network"
        ) from None
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


def maps_of(
    model: nn.Module, image: Tensor, caption: Tensor, params: Params, i: int, with_lime: bool = True
) -> dict[str, np.ndarray]:
    """Energies [H, W] by method, of image number i [3, H, W] and one caption."""
    similarity, side = Similarity(model, caption).eval(), image.shape[-1]
    target = torch.zeros(1, dtype=torch.long, device=image.device)
    maps = {
        f"grad-cam {name}": heat.energies(heat.grad_cam(similarity, layer, image[None], target), side)[0]
        for name, layer in layers(model).items()
    }
    if not with_lime:
        return maps
    torch.manual_seed(int(item_rng(params.seed, f"localize/explain_clip/{i}").integers(2**63)))
    with torch.no_grad():
        weights = heat.lime(similarity, image, 0, params.localize.grid, params.at_scale.localize.lime_samples)
    maps["lime"] = heat.energies(weights[None], side, mode="nearest")[0]
    return maps


def another(known: list[dict], i: int) -> int:
    """The next scene about things of another kind; the scene itself where there is none."""
    following = [*range(i + 1, len(known)), *range(i)]
    return next((j for j in following if known[j]["kind"] != known[i]["kind"]), i)


def models(choice: ClipModel, seed: int, device: torch.device) -> Iterator[tuple[str, int, nn.Module]]:
    """Control, number of the draw and model, one after the other: large ones need not be in memory together."""
    trained = build(choice, trained=True).to(device)
    for control in CONTROLS[:2]:
        yield control, 0, trained
    for draw, model in heat.untrained(lambda: build(choice, trained=False), seed, "localize/explain_clip"):
        yield CONTROLS[2], draw, model.to(device)


def explain(known: list[dict], choice: ClipModel, params: Params) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row an image, control, draw and method; and what the figures show of the first images."""
    device, rows, pictures = training.device(), [], {}
    runs = tqdm(models(choice, params.seed, device), "localize/explain_clip", disable=None, leave=False)
    for control, draw, model in runs:
        visual, context = model.visual, model.context_length
        side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (visual.image_mean, visual.image_std))
        captions = open_clip.tokenize([scene["caption"] for scene in known], context_length=context).to(device)
        for i, scene in enumerate(known):
            pixels = torch.from_numpy(scene["pixels"]).permute(2, 0, 1)
            image = resize(pixels, [side, side], InterpolationMode.BICUBIC, antialias=True)
            # what LIME takes away is then the mean of all images
            inputs = ((image.float() / 255 - mean) / std).to(device)
            named, others = filled(scene["named"], side), filled(scene["others"], side)
            caption = captions[[another(known, i) if control == "other caption" else i]]
            with_lime = control != CONTROLS[2] or draw < heat.RANDOM_LIME
            for method, energy in maps_of(model, inputs, caption, params, i, with_lime).items():
                rng = item_rng(params.seed, f"localize/explain_clip/{i}/{control}/{method}" + f"/{draw}" * bool(draw))
                measured = heat.location(energy, named, others, "named", rng)
                rows.append({"image": i, "control": control, "draw": draw, "method": method, **measured})
                if i < SHOWN and not draw:
                    pictures[f"{i}/{control}/{method}"] = energy.astype(np.float32)
            if i < SHOWN and control == CONTROLS[0]:
                pictures[f"{i}/pixels"] = image.permute(1, 2, 0).contiguous().numpy()
                pictures[f"{i}/caption"] = np.frombuffer(scene["caption"].encode(), np.uint8).copy()
    return pd.DataFrame(rows), pictures


def summarise(table: pd.DataFrame) -> list[dict]:
    """One row a method and measure: its mean for each of CONTROLS, and how far the scene's own caption is above.

    {name}_images, _draws, _maps: how many images, models and maps are behind a number.
    """
    rows = []
    for method, of_method in table.groupby("method", sort=False):
        by_control = {
            control: part.pivot_table(index="image", columns="draw", values=list(MEASURES), dropna=False)
            for control, part in of_method.groupby("control")
        }
        for name in MEASURES:
            share = name == "pointing"
            own, other, random = (by_control[control][name] for control in CONTROLS)
            interval = share_with_interval if share else mean_with_interval
            rows.append(
                {
                    "method": method,
                    "measure": name,
                    "images": len(own),
                    **interval(own[0].to_numpy(), "caption"),
                    **interval(other[0].to_numpy(), "other_caption"),
                    **(share_of_draws if share else mean_of_draws)(random, "random_weights"),
                    **paired(own[0], other[0], "over_other_caption"),
                    **mean_of_draws(random.rsub(own[0], axis=0), "over_random_weights"),
                }
            )
    return rows


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/explain_clip", params.threads)
    known = scenes(params.at_scale.localize.explained_images)
    rows, pictures = [], {}
    if known:
        table, pictures = explain(known, params.inputs.clip, params)
        rows = summarise(table)
    write_bytes(CLIP_HEAT_MAPS, safetensors.numpy.save(pictures))
    write_json(PLOTS / "clip_explanations.json", rows)
    numbers: dict = {"images": len(known), "unknown": None if known else "where the things of this pool's images are"}
    for row in rows:
        values = {name: value for name, value in row.items() if name not in ("method", "measure")}
        numbers.setdefault(row["method"], {})[row["measure"]] = values
    write_json(METRICS / "clip_explanations.json", numbers)
    return f"{len(known)} images and captions of {params.inputs.clip.name}"


if __name__ == "__main__":
    run(main)
