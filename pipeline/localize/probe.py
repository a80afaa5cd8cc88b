"""Is there a number inside? Linear read-out of counts from every layer, and single units that follow one count.

    python -m pipeline.localize.probe

implicit-counting's last wish ('could we localize counting mechanisms to individual neurons in later layers?'). Read
from the mean of every channel over its map, by ridge regression; R2 is of predictions for images that were not fitted
(5 folds), its intervals are bootstrap percentiles over images. Against the same network with random weights. Units are
chosen on one half of the images of all densities and measured on the other.

In images of one density circles and squares nearly tell one another, as their total hardly varies: R2 of the total,
whose standard deviation is 3 shapes, asks for an error of less than that.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from pipeline import training
from pipeline.localize.network import as_input, resnet18
from pipeline.localize.paths import METRICS, PLOTS, network_of, network_weights, test_name
from pipeline.localize.scenes import KINDS, load
from pipeline.params import Params, load_params
from pipeline.shards import item_rng
from pipeline.stage import run, write_json

BLOCKS = [f"layer{layer}.{block}" for layer in range(1, 5) for block in range(2)]
LAYERS = ["maxpool", *BLOCKS]  # before the first block, and after each
UNITS = BLOCKS[-1]  # whose channels are the units that the decision is made from
TARGETS = ("squares", "circles", "difference", "total")
ALPHAS = np.logspace(-2, 5, 15)
FOLDS = 5
RESAMPLES = 1000
ABLATED = (1, 4, 16, 64)  # units at once
DRAWS = 50  # of as many units by chance

OWN, ALL = "own density", "all densities"


@torch.inference_mode()
def channel_means(network: nn.Module, pixels: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    """{layer: mean of every channel, float [N, C]} of images uint8 [N, H, W]."""
    extractor = create_feature_extractor(network.eval(), {layer: layer for layer in LAYERS})
    parts: list[dict[str, Tensor]] = []
    for batch in torch.from_numpy(pixels).split(128):
        maps = extractor(as_input(batch.to(device)))
        parts.append({layer: values.mean(dim=(2, 3)).float().cpu() for layer, values in maps.items()})
    return {layer: torch.cat([part[layer] for part in parts]).double().numpy() for layer in LAYERS}


def targets(counts: np.ndarray) -> np.ndarray:
    """TARGETS [N, 4], of squares and circles [N, 2]; difference: circles - squares."""
    squares, circles = counts.T.astype(float)
    return np.stack([squares, circles, circles - squares, circles + squares], axis=1)


def r2(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Share of the variance explained, over the second to last axis; NaN where there is none."""
    residual = ((true - predicted) ** 2).sum(axis=-2)
    variance = ((true - true.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2)
    return 1 - np.divide(residual, variance, out=np.full_like(residual, np.nan), where=variance > 0)


def read_out(features: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """R2 [T], the bounds of its interval, and the root mean squared error [T], of wanted [N, T] read linearly from
    features [N, C]."""
    model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, alpha_per_target=True))
    folds = KFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    predicted = cross_val_predict(model, features, wanted, cv=folds)
    draws = rng.integers(len(wanted), size=(RESAMPLES, len(wanted)))
    low, high = np.nanquantile(r2(wanted[draws], predicted[draws]), [0.025, 0.975], axis=0)
    return r2(wanted, predicted), low, high, np.sqrt(((wanted - predicted) ** 2).mean(axis=0))


def partial_correlations(units: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlation of units [N, C] with either count [N, 2], the other held: [C, 2]; NaN of a unit that is constant."""

    def without(values: np.ndarray, other: np.ndarray) -> np.ndarray:
        design = np.stack([np.ones(len(other)), other], axis=1)
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    found = []
    for kind in range(2):
        other = counts[:, 1 - kind].astype(float)
        activity, count = without(units, other), without(counts[:, kind].astype(float), other)
        left, spread = (np.linalg.norm(values, axis=0) for values in (activity, units - units.mean(axis=0)))
        follows_the_other = left <= 1e-9 * spread
        correlation = count @ activity / np.where(follows_the_other, 1, left) / np.linalg.norm(count)
        found.append(np.where(spread == 0, np.nan, np.where(follows_the_other, 0, correlation)))
    return np.stack(found, axis=1)


def selective(correlations: np.ndarray, kind: int) -> np.ndarray:
    """All units, the one first that follows the count of a kind most and the other's least. correlations: [C, 2].

    By |correlation|: a unit that falls silent as a count grows follows it too. The first are the most selective there
    are, which need not be selective.
    """
    contrast = np.abs(correlations[:, kind]) - np.abs(correlations[:, 1 - kind])
    return np.argsort(-np.nan_to_num(contrast, nan=-np.inf), kind="stable")


def ablate(units: np.ndarray, which: np.ndarray, dense: nn.Linear) -> np.ndarray:
    """Whether 'circle' is answered, bool [N], when these units of [N, C] are held at their mean."""
    held = units.copy()
    held[:, which] = units[:, which].mean(axis=0)
    with torch.no_grad():
        logits = dense(torch.from_numpy(held).float().to(dense.weight.device)).cpu().numpy()
    return logits[:, 1] > logits[:, 0]


def ablations(
    units: np.ndarray, counts: np.ndarray, ranked: dict[str, np.ndarray], dense: nn.Linear, rng
) -> list[dict]:
    """What becomes of the decisions without the first units of each ranking, and without as many by chance."""
    majority = counts[:, 1] > counts[:, 0]
    whole = ablate(units, np.array([], dtype=int), dense)
    rows = []
    for number in ABLATED:
        by_chance = [ablate(units, rng.choice(units.shape[1], number, replace=False), dense) for _ in range(DRAWS)]
        changed = np.mean([answers != whole for answers in by_chance], axis=1)
        for kind, order in ranked.items():
            answers = ablate(units, order[:number], dense)
            rows.append(
                {
                    "follows": kind,
                    "units": number,
                    "changed": (answers != whole).mean(),
                    "changed_by_chance": changed.mean(),
                    "changed_by_chance_high": np.quantile(changed, 0.95),
                    "answered_circle": answers.mean(),
                    "accuracy": (answers == majority).mean(),
                    "answered_circle_whole": whole.mean(),
                    "accuracy_whole": (whole == majority).mean(),
                }
            )
    return rows


def images(params: Params) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels and counts of two sets: images of the network's own density, and as many of all densities together.

    The sets share no image: units are chosen on the second, and what they do is measured on the first.
    """
    wanted, canvas = params.at_scale.localize.probe_images, params.shapes.scene.canvas
    each = -(-wanted // len(params.densities))
    own = load(test_name(params.localize.density), canvas, each + wanted)[each:]
    parts = [load(test_name(density), canvas, each) for density in params.densities]
    pixels, counts = (np.concatenate([getattr(part, name) for part in parts]) for name in ("pixels", "counts"))
    return {OWN: (own.pixels, own.counts), ALL: (pixels, counts)}


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/probe", params.threads)
    device, name = training.device(), network_of(params.localize.density)
    trained, untrained = (resnet18().to(device).eval() for _ in range(2))
    training.load_weights(network_weights(params.localize.density), trained)
    sets = images(params)
    rows, trained_means = [], {}
    for state, network in (("trained", trained), ("random", untrained)):
        for images_of, (pixels, counts) in sets.items():
            means = channel_means(network, pixels, device)
            if state == "trained":
                trained_means[images_of] = means[UNITS]
            for layer, features in means.items():
                rng = item_rng(params.seed, f"localize/probe/{state}/{images_of}/{layer}")
                for target, value, low, high, error in zip(
                    TARGETS, *read_out(features, targets(counts), rng), strict=True
                ):
                    rows.append(
                        {
                            "network": name,
                            "weights": state,
                            "images_of": images_of,
                            "layer": layer,
                            "target": target,
                            "r2": value,
                            "r2_low": low,
                            "r2_high": high,
                            "error": error,  # root mean squared, in shapes
                        }
                    )
    units, counts = trained_means[ALL], sets[ALL][1]
    rng = item_rng(params.seed, "localize/probe/units")
    half = rng.permutation(len(units))[: len(units) // 2]
    rest = np.setdiff1d(np.arange(len(units)), half)
    on_half, on_rest = (partial_correlations(units[these], counts[these]) for these in (half, rest))
    weights = trained.fc.weight.detach()
    ranked = {kind: selective(on_half, i) for i, kind in enumerate(KINDS)}
    found = [
        {
            "follows": kind,
            "rank": rank,
            "unit": int(unit),
            "r_squares": on_rest[unit, 0],
            "r_circles": on_rest[unit, 1],
            "weight": float(weights[1, unit] - weights[0, unit]),
        }
        for kind, order in ranked.items()
        for rank, unit in enumerate(order[:20])
    ]
    own_units, own_counts = trained_means[OWN], sets[OWN][1]
    ablated = ablations(own_units, own_counts, ranked, trained.fc, rng)
    write_json(PLOTS / "readout.json", rows)
    write_json(PLOTS / "units.json", found)
    write_json(PLOTS / "ablations.json", ablated)
    last = [row for row in rows if row["layer"] == UNITS]
    write_json(
        METRICS / "probe.json",
        {
            "r2_of_last_layer": {
                images_of: {
                    state: {
                        row["target"]: {key: row[key] for key in ("r2", "r2_low", "r2_high", "error")}
                        for row in last
                        if (row["images_of"], row["weights"]) == (images_of, state)
                    }
                    for state in ("trained", "random")
                }
                for images_of in sets
            },
            "units": {kind: next(row for row in found if row["follows"] == kind) for kind in KINDS},
            "ablations": {
                kind: {f"units_{row['units']}": row for row in ablated if row["follows"] == kind} for kind in KINDS
            },
        },
    )
    return f"{len(rows)} read-outs, {units.shape[1]} units"


if __name__ == "__main__":
    run(main)
