"""Which units of the first layers follow circles or squares of which size? implicit-counting's last wish, early layers.

    python -m pipeline.localize.filters

A unit is a channel, and its activity the mean of its map. Shapes are classed by kind and by side, a circle's being that
of the square of its area: three classes of equal width over the sides that both kinds have. Sides and radii are drawn
uniformly, so circles and squares of a class have the same areas on average. Activity is regressed on the numbers of
all classes at once, those beyond the common sides included.

follows      the number of this class tells of the activity, all others held
only         the unit follows this class and none of the other five
more_by      one such shape adds more to the activity than one of the other kind in the same class of sides

A level holds for all units and classes of a network at once: in 95% of permutations of the images against their
numbers, no |t| is above it (Westfall and Young 1993). Beside the training runs stands one with random weights.

It reads what `dvc repro` has drawn and trained, and writes report/filters.json, filter_units.json and filters.png.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from pipeline import training
from pipeline.figures import figure
from pipeline.localize.figures import COLOURS_OF
from pipeline.localize.network import as_input, resnet18
from pipeline.localize.paths import margin_name, network_of, run_name, test_name
from pipeline.localize.scenes import CIRCLE, KINDS, Shapes, load
from pipeline.params import Params, load_params
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_json

NODES = {"relu": "conv1", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3"}  # of ResNet-18: what they end
SIZES = ("small", "middle", "large")
CLASSES = list(product(KINDS, SIZES))
PERMUTATIONS, TOGETHER = 500, 20
LEVEL = 0.95
TABLE, UNITS, FIGURE = (Path("report") / name for name in ("filters.json", "filter_units.json", "filters.png"))


def sides_between(square_side: tuple[float, float], circle_radius: tuple[float, float]) -> np.ndarray:
    """Bounds of the three classes of sides, [4], in the unit of these ranges.

    Raises UserError where no square is as large as a circle.
    """
    root = np.sqrt(np.pi)
    low, high = max(square_side[0], circle_radius[0] * root), min(square_side[1], circle_radius[1] * root)
    if low >= high:
        raise UserError(
            f"params.yaml: shapes.scene: square_side = {list(square_side)} and circle_radius = {list(circle_radius)} "
            f"share no area, but filters compare the two at equal areas; let the ranges overlap"
        )
    return np.linspace(low, high, len(SIZES) + 1)


def numbers(shapes: Shapes, bounds: np.ndarray) -> np.ndarray:
    """How many shapes of each class, and of either kind beyond them, int64 [8]. bounds: in 0..1 of the canvas."""
    side = shapes.half * np.where(shapes.label == CIRCLE, np.sqrt(np.pi), 2)
    place = np.searchsorted(bounds, side, side="right") - 1
    within = (place >= 0) & (place < len(SIZES))
    kind = shapes.label - 1
    inside = np.bincount(kind[within] * len(SIZES) + place[within], minlength=len(CLASSES))
    return np.concatenate([inside, np.bincount(kind[~within], minlength=len(KINDS))])


@torch.inference_mode()
def activity(network: nn.Module, pixels: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    """{layer: mean of every channel, float [N, C]} of images uint8 [N, H, W]."""
    extractor = create_feature_extractor(network.eval(), NODES)
    parts: list[dict[str, Tensor]] = []
    for batch in torch.from_numpy(pixels).split(64):
        maps = extractor(as_input(batch.to(device)))
        parts.append({layer: values.mean(dim=(2, 3)).float().cpu() for layer, values in maps.items()})
    return {layer: torch.cat([part[layer] for part in parts]).double().numpy() for layer in NODES.values()}


class Regression:
    """Least squares of activity on numbers [N, 8], of many units at once, and t of nine contrasts.

    The first six are the classes' own coefficients, the last three circle minus square in a class of sides.
    """

    def __init__(self, design: np.ndarray) -> None:
        there = design.any(axis=0)  # a kind may have no other sides
        columns = np.column_stack([np.ones(len(design)), design[:, there]])
        self.free = len(columns) - columns.shape[1]
        if self.free < 1 or np.linalg.matrix_rank(columns) < columns.shape[1] or not there[: len(CLASSES)].all():
            raise UserError(
                f"{len(design)} images of one density: too few to tell classes of shapes apart; raise "
                f"scales.*.shapes.images or margin_images"
            )
        self.q, upper = np.linalg.qr(columns)
        single = np.eye(len(CLASSES))
        contrasts = np.vstack([single, single[len(SIZES) :] - single[: len(SIZES)]])
        wide = np.zeros((len(contrasts), columns.shape[1]))
        wide[:, 1 : 1 + len(CLASSES)] = contrasts
        self.of_rotated = np.linalg.solve(upper.T, wide.T).T  # contrast @ inverse of R: [9, columns]
        self.spread = np.linalg.norm(self.of_rotated, axis=1)

    def t(self, units: np.ndarray, orders: np.ndarray | None = None) -> np.ndarray:
        """t [9, C] of activity [N, C], or [P, 9, C] of images permuted as orders [P, N] say. 0 of a constant unit."""
        centred = units - units.mean(axis=0)
        whole = (centred**2).sum(axis=0)
        silent = whole <= 1e-18 * (units**2).sum(axis=0)
        rotated = (self.q if orders is None else self.q[orders]).swapaxes(-1, -2) @ centred
        rest = np.maximum(whole - (rotated**2).sum(axis=-2, keepdims=True), 1e-12 * whole)  # rounding: nothing is left
        error = np.sqrt(np.where(silent, 1, rest) / self.free)
        return np.where(silent, 0, self.of_rotated @ rotated / error / self.spread[:, None])


def levels(regression: Regression, units: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The |t| that one of all units and classes reaches by chance in 5% of cases: of the six, and of the last three."""
    largest = []
    for _ in range(PERMUTATIONS // TOGETHER):
        t = np.abs(regression.t(units, np.stack([rng.permutation(len(units)) for _ in range(TOGETHER)]))).max(axis=-1)
        largest.append(np.stack([t[:, : len(CLASSES)].max(axis=1), t[:, len(CLASSES) :].max(axis=1)], axis=1))
    six, three = np.quantile(np.concatenate(largest), LEVEL, axis=0)
    return float(six), float(three)


def shares(t: np.ndarray, level: float, level_of_three: float) -> list[dict]:
    """A row a class of one layer's units, of t [9, C]."""
    follows = np.abs(t[: len(CLASSES)]) > level
    rows = []
    for place, (kind, size) in enumerate(CLASSES):
        apart = t[len(CLASSES) + place % len(SIZES)] * (1 if kind == "circle" else -1)
        rows.append(
            {
                "kind": kind,
                "size": size,
                "follows": follows[place].mean(),
                "only": (follows[place] & (follows.sum(axis=0) == 1)).mean(),
                "more_by": (apart > level_of_three).mean(),
            }
        )
    return rows


def images(params: Params, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and numbers [N, 8] of the density's test images and margin sets, which no network was trained on."""
    study, density = params.shapes, params.localize.density
    names = [test_name(density)]
    if density in study.margin_densities:
        names += [margin_name(density, margin) for margin in study.margins]
    sets = [load(name, study.scene.canvas) for name in names]
    found = [numbers(shapes, bounds) for one in sets for shapes in one.shapes]
    return np.concatenate([one.pixels for one in sets]), np.stack(found)


def draw(rows: list[dict]) -> None:
    """A column a class of sides; above, units that follow a class; below, units that tell kinds apart."""
    layers = list(NODES.values())
    labels = {
        "follows": "share of units that follow them",
        "more_by": "share of units to which one\nadds more than one of the other kind",
    }
    with figure(FIGURE, nrows=2, ncols=len(SIZES), sharex=True, sharey=True, figsize=(10.5, 6)) as (drawing, axes):
        for (line, of), (column, size) in product(enumerate(labels), enumerate(SIZES)):
            ax = axes[line, column]
            for state, kind in product(("random", "trained"), KINDS):
                chosen = [r for r in rows if (r["weights"], r["kind"], r["size"]) == (state, kind, size)]
                values = np.array([[r[of] for r in chosen if r["layer"] == layer] for layer in layers])
                look = {"color": COLOURS_OF[kind], "ls": "-" if state == "trained" else ":"}
                ax.plot(layers, values.mean(axis=1), label=f"{kind}s, {state} weights", **look)
                if state == "trained":
                    ax.plot(layers, values, "o", color=COLOURS_OF[kind], alpha=0.5)
            ax.set(ylim=(-0.03, 1.03))
            if line == 0:
                ax.set_title(f"{size} shapes")
        for ax, label in zip(axes[:, 0], labels.values(), strict=True):
            ax.set_ylabel(label)
        drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/filters", params.threads)
    scene, density, device = params.shapes.scene, params.localize.density, training.device()
    bounds = sides_between(scene.square_side, scene.circle_radius)
    pixels, of_images = images(params, bounds / scene.canvas)
    regression = Regression(of_images)
    rows, units = [], []
    for number, state in [(params.localize.runs[0], "random"), *((of, "trained") for of in params.localize.runs)]:
        network = resnet18().to(device).eval()
        name = run_name(network_of(density), number)
        if state == "trained":
            training.load_weights(Path(f"models/shapes/paper/{name}.safetensors"), network)
        by_layer = activity(network, pixels, device)
        rng = item_rng(params.seed, f"localize/filters/{state}/{number}")
        limits = levels(regression, np.concatenate(list(by_layer.values()), axis=1), rng)
        for layer, means in by_layer.items():
            t = regression.t(means)
            about = {"network": name, "weights": state, "layer": layer}
            rows += [about | row for row in shares(t, *limits)]
            follows = np.abs(t[: len(CLASSES)]) > limits[0]
            for unit in np.flatnonzero(follows.sum(axis=0) == 1) if state == "trained" else []:
                place = int(follows[:, unit].argmax())
                kind, size = CLASSES[place]
                partial = t[place, unit] / np.hypot(t[place, unit], np.sqrt(regression.free))
                units.append(about | {"unit": int(unit), "kind": kind, "size": size, "correlation": float(partial)})
    write_json(UNITS, units)

    def mean(**of: str) -> dict[str, float]:
        chosen = [row for row in rows if all(row[key] == value for key, value in of.items())]
        return {key: float(np.mean([row[key] for row in chosen])) for key in ("follows", "only", "more_by")}

    summary = {
        state: {
            layer: {
                f"{kind}s": {size: mean(weights=state, layer=layer, kind=kind, size=size) for size in SIZES}
                for kind in KINDS
            }
            for layer in NODES.values()
        }
        for state in ("trained", "random")
    }
    found = {"images": len(pixels), "networks": len(params.localize.runs), "sides": bounds.tolist(), **summary}
    write_json(TABLE, found | {"shares": rows})
    draw(rows)
    return f"{len(rows)} shares, {len(units)} units that follow one class only,"


if __name__ == "__main__":
    run(main)
