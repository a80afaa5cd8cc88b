"""How much position every network reads: Table 2 with intervals, and what the document says, measured (section 3).

    python -m pipeline.posenet.evaluate

The document has one training run of each network and one test image, a bear; here several runs, and images that
were held out, so that every number has an interval.
"""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from tqdm import tqdm

from pipeline import training
from pipeline.params import load_params
from pipeline.posenet.comparisons import CLAIMS, Bootstrap, Comparison, Key, Maps, comparisons, measured
from pipeline.posenet.network import ALL, Cell, PosENets
from pipeline.posenet.paths import IMAGES, MAPS, PLOTS, SCORES, features_path, weights_path
from pipeline.posenet.patterns import pattern
from pipeline.posenet.published import IMAGES as TESTS
from pipeline.posenet.published import table_2
from pipeline.posenet.scores import score_maps
from pipeline.posenet.train import build, variants
from pipeline.shards import item_rng
from pipeline.stage import run, write_bytes, write_json

HELD_OUT = "held-out"
AT_ONCE = 64  # images


@torch.inference_mode()
def predictions(network: PosENets, features: np.ndarray) -> dict[Cell, np.ndarray]:
    """Each cell's maps, float32 [N, S', S'], of features [N, channels, S, S]."""
    found: dict[Cell, list[np.ndarray]] = {}
    device = next(network.parameters()).device
    for start in range(0, len(features), AT_ONCE):
        batch = torch.from_numpy(features[start : start + AT_ONCE].astype(np.float32)).to(device)
        for block, drawn in network(batch):
            for cell, maps in zip(block.cells, drawn.cpu().numpy().swapaxes(0, 1), strict=True):
                found.setdefault(cell, []).append(maps)
    return {cell: np.concatenate(parts) for cell, parts in found.items()}


def scores(backbone: str, variant: str, maps: dict[Cell, np.ndarray], names: list[str]) -> pd.DataFrame:
    """One row a map: Spearman's correlation (null where undefined) and mean absolute error."""
    parts = []
    for cell, drawn in maps.items():
        spearman, error = score_maps(drawn, pattern(cell.pattern, drawn.shape[-1]))
        described = {"inputs": cell.inputs, "kernel": cell.kernel, "padding": cell.padding, "pattern": cell.pattern}
        parts.append(pd.DataFrame({**described, "run": cell.run, "image": names, "spearman": spearman, "mae": error}))
    rows = pd.concat(parts, ignore_index=True)
    rows.insert(0, "backbone", backbone)
    rows.insert(1, "variant", variant)
    return rows


def by_network(rows: pd.DataFrame, measure: str) -> Maps:
    """(network, pattern) -> values [runs, images], in the order of the images."""
    found: Maps = {}
    for (backbone, variant, inputs, kernel, padding, name), these in rows.groupby(
        ["backbone", "variant", "inputs", "kernel", "padding", "pattern"], sort=False
    ):
        key: Key = (backbone, variant, inputs, kernel, padding)
        runs = these["run"].nunique()
        found[key, name] = these.sort_values("run", kind="stable")[measure].to_numpy(float).reshape(runs, -1)
    return found


def summarise(maps: dict[str, Maps], bootstrap: Bootstrap, image: str) -> list[dict]:
    """A row for every network and pattern: both measures' mean and interval on images [runs, images]."""
    rows = []
    for (key, name), spearman in maps["spearman"].items():
        backbone, variant, inputs, kernel, padding = key
        row = {"network": f"{backbone}/{variant}", "inputs": inputs, "kernel": kernel, "padding": padding}
        row |= {"pattern": name, "image": image, "undefined": int(np.isnan(spearman).sum())}
        for measure in ("spearman", "mae"):
            found = bootstrap.interval(maps[measure][key, name])
            row |= {measure: found["mean"], f"{measure}_low": found["low"], f"{measure}_high": found["high"]}
        rows.append(row)
    return rows


def beside_published(rows: list[dict]) -> list[dict]:
    """The rows of Table 2's kind (3 x 3, no padding, all layers), each with the published cell where there is one."""
    published = table_2()
    table = []
    for row in rows:
        if (row["inputs"], row["kernel"], row["padding"]) != (ALL, 3, 0):
            continue
        cell = published.get((row["pattern"], row["network"], row["image"]))
        kept = {key: value for key, value in row.items() if key not in ("inputs", "kernel", "padding")}
        found = {"in_table": cell is not None}
        if cell is not None:
            found |= {"published_spearman": cell[0], "published_mae": cell[1]}
        table.append(kept | found)
    return table


def main() -> str:
    params = load_params()
    settings, scale = params.posenet, params.at_scale.posenet
    training.configure(params.seed, "posenet/evaluate", params.threads)
    device = training.device()
    held = [f"{HELD_OUT}/{n:05d}" for n in range(len(np.load(IMAGES / "held_out.npy", mmap_mode="r")))]
    names = [*held, *TESTS]

    parts, drawn_maps = [], {}
    for backbone, variant in tqdm(variants(params), "posenet/evaluate", disable=None, leave=False):
        network = build(backbone, variant, params)
        training.load_weights(weights_path(backbone, variant), network)
        features = np.load(features_path(backbone, variant), mmap_mode="r")[-len(names) :]
        maps = predictions(network.to(device), features)
        parts.append(scores(backbone, variant, maps, names))
        natural = len(held)
        drawn_maps |= {f"{backbone}/{variant}/{cell.name}": m[natural] for cell, m in maps.items() if cell.run == 0}
    rows = pd.concat(parts, ignore_index=True)
    buffer = io.BytesIO()
    rows.astype({"backbone": "category", "variant": "category"}).to_parquet(buffer, index=False)
    write_bytes(SCORES, buffer.getvalue())
    write_bytes(MAPS, safetensors.numpy.save({name: np.ascontiguousarray(m) for name, m in drawn_maps.items()}))

    rng = item_rng(params.seed, "posenet/bootstrap")
    bootstrap = Bootstrap(scale.runs, len(held), scale.resamples, rng)
    alone = Bootstrap(scale.runs, 1, scale.resamples, rng)  # a test image is one: over runs only
    on_held_out = rows[rows["image"].isin(held)]
    by_measure = {measure: by_network(on_held_out, measure) for measure in ("spearman", "mae")}
    held_out_rows = summarise(by_measure, bootstrap, HELD_OUT)
    tests: dict[str, Maps] = {}
    table = beside_published(held_out_rows)
    for image in TESTS:
        these = {measure: by_network(rows[rows["image"] == image], measure) for measure in ("spearman", "mae")}
        tests[image] = these["spearman"]
        table += beside_published(summarise(these, alone, image))
    asked: list[Comparison] = list(
        comparisons([key for key, _ in by_measure["spearman"]], settings.kernel_sizes, settings.paddings)
    )
    compared = [
        row for one in asked for row in measured(one, settings.patterns, by_measure["spearman"], tests, bootstrap)
    ]
    write_json(PLOTS / "held_out.json", held_out_rows)
    write_json(PLOTS / "table2.json", table)
    write_json(PLOTS / "comparisons.json", compared)
    write_json("metrics/posenet.json", headline(held_out_rows, compared, settings.patterns, rows))
    return f"{len(rows):,} maps of {len(parts)} backbones scored"


def headline(held_out: list[dict], compared: list[dict], patterns: list[str], rows: pd.DataFrame) -> dict:
    """Few numbers, for `dvc metrics diff`: correlations by network, how statements fall out, undefined maps."""
    usual = [row for row in held_out if (row["inputs"], row["kernel"], row["padding"]) == (ALL, 3, 0)]
    means = {
        network: np.nanmean([row["spearman"] for row in usual if row["network"] == network])
        for network in dict.fromkeys(row["network"] for row in usual)
    }
    over = "mean" if len(patterns) > 1 else patterns[0]
    verdicts = {
        claim: dict(Counter(row["verdict"] for row in compared if (row["claim"], row["pattern"]) == (claim, over)))
        for claim in CLAIMS
    }
    return {"spearman": means, "claims": verdicts, "undefined": int(rows["spearman"].isna().sum())}


if __name__ == "__main__":
    run(main)
