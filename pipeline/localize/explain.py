"""Do heat maps fall on the shapes that decide? CAM, Grad-CAM of every layer and LIME, on shapes of known place.

    python -m pipeline.localize.explain

Of the shapes study's networks, each on test images of its density, for the class that it chose; against the same
network with random weights. Intervals are 95%, over images: Wilson's of 'pointing', a share; else Student's.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline import training
from pipeline.localize import heat
from pipeline.localize.network import as_input, resnet18
from pipeline.localize.paths import HEAT_MAPS, METRICS, PLOTS, network_of, network_weights, test_name
from pipeline.localize.scenes import CIRCLE, SQUARE, Scenes, load
from pipeline.localize.summaries import mean_with_interval, paired, share_with_interval
from pipeline.params import Params, load_params
from pipeline.shards import item_rng
from pipeline.stage import run, write_bytes, write_json
from pipeline.tiny_maps import quicken

LAYERS = ("layer1", "layer2", "layer3", "layer4")
MEASURES = ("chosen", "other", "background", "chosen_over_area", "pointing", "iou", "deletion", "insertion")
SHOWN = 6  # images of the sheet of pictures


def heat_maps(network: nn.Module, inputs: Tensor, target: Tensor, params: Params) -> dict[str, np.ndarray]:
    """Energies [N, H, W] by method, of inputs [N, 1, H, W] and the class [N] that is to be explained."""
    side = inputs.shape[-1]
    maps = {
        f"grad-cam {layer}": heat.energies(heat.grad_cam(network, network.get_submodule(layer), inputs, target), side)
        for layer in LAYERS
    }
    with torch.no_grad():
        last = nn.Sequential(*list(network.children())[:-2])(inputs)  # all but the pooling and the dense layer
    maps["cam"] = heat.energies(heat.cam(last, network.fc.weight.detach()[target]), side)
    grid, samples, weights = params.localize.grid, params.at_scale.localize.lime_samples, []
    for i, (image, c) in enumerate(zip(inputs, target, strict=True)):
        # the same squares are taken away for both networks
        torch.manual_seed(int(item_rng(params.seed, f"localize/explain/{i}").integers(2**63)))
        with torch.no_grad():
            weights.append(heat.lime(network, image, int(c), grid, samples))
    maps["lime"] = heat.energies(torch.stack(weights), side, mode="nearest")
    return maps


def measure(
    network: nn.Module, scenes: Scenes, inputs: Tensor, chosen: Tensor, maps: dict[str, np.ndarray], seed: int
) -> pd.DataFrame:
    """One row an image and method: how the energy lies on the shapes of the chosen kind, and what it is good for."""
    side, rows = inputs.shape[-1], []
    masks = [shapes.mask(side) for shapes in scenes.shapes]
    for method, energy in maps.items():
        for i, (key, mask) in enumerate(zip(scenes.keys, masks, strict=True)):
            label = (SQUARE, CIRCLE)[int(chosen[i])]
            mine, others = mask == label, (mask != label) & (mask > 0)
            if not mine.any():  # no pixel of the kind that it chose
                continue
            rng = item_rng(seed, f"localize/explain/{method}/{key}")
            found = heat.location(energy[i], mine, rng)
            defined = bool(energy[i].any())
            rows.append(
                {
                    "image": key,
                    "method": method,
                    "chosen": found["share"],
                    "other": energy[i][others].sum() if defined else np.nan,
                    "background": energy[i][mask == 0].sum() if defined else np.nan,
                    "chosen_over_area": found["share"] / mine.mean(),
                    "pointing": found["pointing"],
                    "iou": found["iou"],
                    **heat.faithfulness(network, inputs[i], energy[i], int(chosen[i]), rng),
                }
            )
    return pd.DataFrame(rows)


def explain(density: int, params: Params) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """What `measure` gives for one network, {'trained', 'random'}; and the first heat maps, for the figures."""
    device = training.device()
    networks = {state: quicken(resnet18()).to(device).eval() for state in ("trained", "random")}
    training.load_weights(network_weights(density), networks["trained"])
    scenes = load(test_name(density), params.shapes.scene.canvas, params.at_scale.localize.explained_images)
    inputs = as_input(torch.from_numpy(scenes.pixels).to(device))
    with torch.no_grad():
        chosen = networks["trained"](inputs).argmax(dim=1)
    tables, pictures = {}, {"pixels": scenes.pixels[:SHOWN], "chosen": chosen[:SHOWN].cpu().numpy()}
    for state, network in networks.items():
        maps = heat_maps(network, inputs, chosen, params)
        # whatever the map was made by, it is the trained network's decision that it should explain
        tables[state] = measure(networks["trained"], scenes, inputs, chosen, maps, params.seed)
        pictures |= {f"{state}/{method}": energy[:SHOWN].astype(np.float32) for method, energy in maps.items()}
    return tables, {f"{density}/{name}": values for name, values in pictures.items()}


def summarise(tables: dict[str, pd.DataFrame], network: str, images: int) -> list[dict]:
    """One row a method and measure: its mean, with random weights beside it, and by how much the first is more."""
    rows = []
    by_method = {state: dict(iter(table.groupby("method", sort=False))) for state, table in tables.items()}
    for method, trained in by_method["trained"].items():
        control = by_method["random"][method]
        for name in MEASURES:
            interval = share_with_interval if name == "pointing" else mean_with_interval
            rows.append(
                {
                    "network": network,
                    "method": method,
                    "measure": name,
                    "images": images,
                    "nothing_of_the_chosen_kind": images - len(trained),
                    **interval(trained[name].to_numpy(), "value"),
                    **interval(control[name].to_numpy(), "random"),
                    **paired(trained.set_index("image")[name], control.set_index("image")[name]),
                }
            )
    return rows


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/explain", params.threads)
    rows, pictures, numbers = [], {}, {}
    for density in tqdm(params.localize.explained, "localize/explain", disable=None, leave=False):
        tables, shown = explain(density, params)
        rows += summarise(tables, network_of(density), params.at_scale.localize.explained_images)
        pictures |= shown
    for row in rows:
        values = {name: value for name, value in row.items() if name not in ("network", "method", "measure")}
        numbers.setdefault(row["network"], {}).setdefault(row["method"], {})[row["measure"]] = values
    write_bytes(HEAT_MAPS, safetensors.numpy.save(pictures))
    write_json(PLOTS / "explanations.json", rows)
    write_json(METRICS / "explanations.json", numbers)
    return f"decisions of {len(params.localize.explained)} networks, {len(rows)} measures"


if __name__ == "__main__":
    run(main)
