"""Do heat maps fall on the shapes that decide? CAM, Grad-CAM of every layer and LIME, on shapes of known place.

    python -m pipeline.localize.explain

Of the shapes study's networks, each on test images of its density, for the class that it chose; CAM and Grad-CAM also
for the other class, on the same images. Against networks with random weights: an image's control is the mean over those
of 10 (LIME: of 2) that gave it a map; of 'deletion' and 'insertion', which ask the trained network 20 times, it is one
of these, in turn. Intervals are 95%, over images, and of 'random' and 'gain' over networks too: Wilson's of 'pointing',
a share, over images only; else Student's.
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
from pipeline.localize.scenes import BACKGROUND, CIRCLE, SQUARE, Scenes, load
from pipeline.params import Params, load_params
from pipeline.shards import item_rng
from pipeline.stage import run, write_bytes, write_json
from pipeline.statistics.intervals import mean_of_draws, mean_with_interval, share_of_draws, share_with_interval
from pipeline.tiny_maps import quicken

LAYERS = ("layer1", "layer2", "layer3", "layer4")
MEASURES = (*heat.location_measures("chosen"), "deletion", "insertion")
# of the heat of both classes on one image
BOTH = ("follows_class", "other_class_specificity")
SHOWN = 6  # images of the sheet of pictures


def heat_maps(
    network: nn.Module, inputs: Tensor, target: Tensor, params: Params, with_lime: bool = True
) -> dict[str, np.ndarray]:
    """Energies [N, H, W] by method, of inputs [N, 1, H, W] and the class [N] that is to be explained."""
    side = inputs.shape[-1]
    maps = {
        f"grad-cam {layer}": heat.energies(heat.grad_cam(network, network.get_submodule(layer), inputs, target), side)
        for layer in LAYERS
    }
    with torch.no_grad():
        last = nn.Sequential(*list(network.children())[:-2])(inputs)  # all but the pooling and the dense layer
    maps["cam"] = heat.energies(heat.cam(last, network.fc.weight.detach()[target]), side)
    if not with_lime:
        return maps
    grid, samples, weights = params.localize.grid, params.at_scale.localize.lime_samples, []
    for i, (image, c) in enumerate(zip(inputs, target, strict=True)):
        # the same squares are taken away for all networks
        torch.manual_seed(int(item_rng(params.seed, f"localize/explain/{i}").integers(2**63)))
        with torch.no_grad():
            weights.append(heat.lime(network, image, int(c), grid, samples))
    maps["lime"] = heat.energies(torch.stack(weights), side, mode="nearest")
    return maps


def measure(
    network: nn.Module,
    scenes: Scenes,
    inputs: Tensor,
    chosen: Tensor,
    maps: dict[str, np.ndarray],
    seed: int,
    draw: int | None = None,
    tested: set[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """One row an image and method: how the energy lies on the shapes of the chosen kind, and what it is good for.

    maps: of `heat_maps`, by the trained network or by this draw of those with random weights; tested: the methods and
    images of which deletion and insertion were measured with a map of an earlier draw, added to here.
    """
    side, rows = inputs.shape[-1], []
    stream = "localize/explain" if draw is None else f"localize/explain/random-{draw}"
    masks = [shapes.mask(side) for shapes in scenes.shapes]
    for method, energy in maps.items():
        for i, (key, mask) in enumerate(zip(scenes.keys, masks, strict=True)):
            label = (SQUARE, CIRCLE)[int(chosen[i])]
            mine, others = mask == label, (mask != label) & (mask != BACKGROUND)
            if not mine.any():  # no pixel of the kind that it chose
                continue
            rng = item_rng(seed, f"{stream}/{method}/{key}")
            row = {"image": key, "method": method, **heat.location(energy[i], mine, others, "chosen", rng)}
            row |= {"deletion": np.nan, "insertion": np.nan}
            if tested is None:
                row |= heat.faithfulness(network, inputs[i], energy[i], int(chosen[i]), rng)
            elif draw >= turn(method, i) and energy[i].any() and (method, key) not in tested:
                tested.add((method, key))
                row |= heat.faithfulness(network, inputs[i], energy[i], int(chosen[i]), rng)
            rows.append(row)
    return pd.DataFrame(rows, columns=["image", "method", *MEASURES])


def both_classes(
    scenes: Scenes, chosen: Tensor, maps: dict[str, np.ndarray], of_other: dict[str, np.ndarray]
) -> pd.DataFrame:
    """One row an image and method: whether heat follows the class that it is asked for, on one image.

    maps: energies [N, H, W] by method for the chosen class, of_other for the other one. Heat on a kind is in multiples
    of the kind's share of the image.

    follows_class              heat on a kind in its own class' map minus in the other's, mean of the two kinds
    other_class_specificity    in the other class' map, heat on its own kind minus heat on the chosen kind

    Undefined (NaN) where either map is empty; an image without a pixel of either kind has no row.
    """
    rows = []
    for method in of_other:
        for i, (key, shapes) in enumerate(zip(scenes.keys, scenes.shapes, strict=True)):
            mine, others = maps[method][i], of_other[method][i]
            mask = shapes.mask(mine.shape[-1])
            own, other = [mask == label for label in ((SQUARE, CIRCLE), (CIRCLE, SQUARE))[int(chosen[i])]]
            if not own.any() or not other.any():
                continue
            row = {"image": key, "method": method, **dict.fromkeys(BOTH, np.nan)}
            if mine.any() and others.any():
                own_moves = heat_on(own, mine) - heat_on(own, others)
                other_moves = heat_on(other, others) - heat_on(other, mine)
                row["follows_class"] = (own_moves + other_moves) / 2
                row["other_class_specificity"] = heat_on(other, others) - heat_on(own, others)
            rows.append(row)
    return pd.DataFrame(rows, columns=["image", "method", *BOTH])


def heat_on(kind: np.ndarray, energy: np.ndarray) -> float:
    """Share of a map's energy [H, W] on a kind's pixels, bool [H, W], over their share of the image."""
    return energy[kind].sum() / kind.mean()


def turn(method: str, i: int) -> int:
    """The first draw whose map of image number i may be tested.

    Images take turns among the first half of the draws, the others being for those that these gave no map; of LIME,
    which leaves none empty, among all.
    """
    return i % (heat.RANDOM_LIME if method == "lime" else heat.RANDOM_NETWORKS // 2)


def explain(
    density: int, params: Params
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """What `measure`, and `both_classes`, give of {'trained', 'random'}, the latter by 'draw'; and the first heat maps,
    for the figures."""
    device = training.device()

    def build() -> nn.Module:
        return quicken(resnet18()).to(device).eval()

    trained = build()
    training.load_weights(network_weights(density), trained)
    scenes = load(test_name(density), params.shapes.scene.canvas, params.at_scale.localize.explained_images)
    inputs = as_input(torch.from_numpy(scenes.pixels).to(device))
    with torch.no_grad():
        chosen = trained(inputs).argmax(dim=1)
    pictures = {"pixels": scenes.pixels[:SHOWN], "chosen": chosen[:SHOWN].cpu().numpy()}
    # whatever the map was made by, it is the trained network's decision that it should explain
    given = (trained, scenes, inputs, chosen)
    maps = heat_maps(trained, inputs, chosen, params)
    tables = {"trained": measure(*given, maps, params.seed)}
    of_other = heat_maps(trained, inputs, 1 - chosen, params, with_lime=False)
    both = {"trained": both_classes(scenes, chosen, maps, of_other)}
    pictures |= {f"other class/{method}": energy[:SHOWN].astype(np.float32) for method, energy in of_other.items()}
    pictures |= {f"trained/{method}": energy[:SHOWN].astype(np.float32) for method, energy in maps.items()}
    tested: set[tuple[str, str]] = set()
    parts, of_both = [], []
    for draw, network in heat.untrained(build, params.seed, f"localize/explain/{density}"):
        maps = heat_maps(network, inputs, chosen, params, with_lime=draw < heat.RANDOM_LIME)
        parts.append(measure(*given, maps, params.seed, draw, tested).assign(draw=draw))
        of_other = heat_maps(network, inputs, 1 - chosen, params, with_lime=False)
        of_both.append(both_classes(scenes, chosen, maps, of_other).assign(draw=draw))
        if not draw:
            pictures |= {f"random/{method}": energy[:SHOWN].astype(np.float32) for method, energy in maps.items()}
    tables["random"], both["random"] = pd.concat(parts), pd.concat(of_both)
    return tables, both, {f"{density}/{name}": values for name, values in pictures.items()}


def summarise(
    tables: dict[str, pd.DataFrame], network: str, images: int, measures: tuple[str, ...] = MEASURES
) -> list[dict]:
    """One row a method and measure: its mean, with random weights beside it, and by how much the first is more.

    tables: of `explain`. {name}_images, _draws, _maps: how many images, networks and maps are behind a number.
    """
    rows = []
    by_method = {state: dict(iter(table.groupby("method", sort=False))) for state, table in tables.items()}
    for method, trained in by_method["trained"].items():
        for name in measures:
            mine = trained.set_index("image")[name]
            control = by_method["random"][method].pivot_table(index="image", columns="draw", values=name, dropna=False)
            share = name == "pointing"
            rows.append(
                {
                    "network": network,
                    "method": method,
                    "measure": name,
                    "images": images,
                    "nothing_of_the_chosen_kind": images - len(trained),
                    **(share_with_interval if share else mean_with_interval)(mine.to_numpy(), "value"),
                    **(share_of_draws if share else mean_of_draws)(control, "random"),
                    **mean_of_draws(control.rsub(mine, axis=0), "gain"),
                }
            )
    return rows


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/explain", params.threads)
    rows, pictures, numbers = [], {}, {}
    for density in tqdm(params.localize.explained, "localize/explain", disable=None, leave=False):
        tables, both, shown = explain(density, params)
        images = params.at_scale.localize.explained_images
        rows += summarise(tables, network_of(density), images)
        rows += summarise(both, network_of(density), images, BOTH)
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
