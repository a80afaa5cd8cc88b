"""How much position every network reads: Table 2 with intervals, and what the document says, measured (section 3).

    python -m pipeline.posenet.evaluate

The document has one training run of each network and one test image, a bear; here several runs, and images that
were held out, so that numbers have intervals. Each is there twice: as training reads it ('adam', as published), and
as the least squares do ('optimum', whose intervals cover images alone: it has one run). Gradient descent, which the
original's authors used, is beside Adam in optimizers.json, on the networks of Table 2.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import asdict
from itertools import product

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from tqdm import tqdm

from pipeline import training
from pipeline.params import Params, load_params
from pipeline.posenet.comparisons import CLAIMS, Key, Maps, comparisons, measured
from pipeline.posenet.network import Cell, PosENets
from pipeline.posenet.optimizers import stability
from pipeline.posenet.paths import (
    ADAM,
    ALL,
    DESCENTS,
    FIRST,
    HELD_OUT,
    IMAGES,
    MAPS,
    PLOTS,
    READINGS,
    SCORES,
    SMOOTH,
    TESTS,
    features_path,
    weights_path,
)
from pipeline.posenet.patterns import pattern
from pipeline.posenet.published import DOUBTFUL, table_2
from pipeline.posenet.scores import score_maps
from pipeline.posenet.train import build, has_zeros, variants
from pipeline.stage import run, write_bytes, write_json
from pipeline.statistics.intervals import over_runs_and_images

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


def scores(maps: dict[Cell, np.ndarray], names: list[str], **described: str) -> pd.DataFrame:
    """One row a map: Spearman's correlation (null where undefined) and mean absolute error."""
    cells = pd.DataFrame({**described, **asdict(cell)} for cell in maps)
    found = [score_maps(drawn, pattern(cell.pattern, drawn.shape[-1])) for cell, drawn in maps.items()]
    spearman, errors = map(np.concatenate, zip(*found, strict=True))
    rows = cells.loc[cells.index.repeat(len(names))].reset_index(drop=True)
    return rows.assign(image=names * len(maps), spearman=spearman, mae=errors)


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


def summarise(maps: dict[str, Maps], image: str) -> list[dict]:
    """A row for every network and pattern: both measures' mean and interval on images [runs, images]."""
    rows = []
    for (key, name), spearman in maps["spearman"].items():
        backbone, variant, inputs, kernel, padding = key
        row = {"network": f"{backbone}/{variant}", "inputs": inputs, "kernel": kernel, "padding": padding}
        row |= {"pattern": name, "image": image, "undefined": int(np.isnan(spearman).sum())}
        row["runs"] = len(spearman)
        for measure in ("spearman", "mae"):
            found = over_runs_and_images(maps[measure][key, name])
            row |= {measure: found["mean"], f"{measure}_low": found["low"], f"{measure}_high": found["high"]}
        rows.append(row)
    return rows


def beside_published(rows: list[dict], published: dict[tuple[str, str, str], tuple[float | None, float]]) -> list[dict]:
    """The rows of Table 2's kind (3 x 3, no padding, all layers), each with the published cell where there is one."""
    table = []
    for row in rows:
        if (row["inputs"], row["kernel"], row["padding"]) != (ALL, 3, 0):
            continue
        cell = published.get((row["pattern"], row["network"], row["image"]))
        kept = {key: value for key, value in row.items() if key not in ("inputs", "kernel", "padding")}
        spearman, error = cell or (None, None)
        doubtful = (row["pattern"], row["network"], row["image"]) in DOUBTFUL
        # DVC draws a table whose rows have the same keys, and no other
        found = {"in_table": cell is not None, "published_spearman": spearman, "published_mae": error}
        found["published_doubtful"] = cell is not None and doubtful
        table.append(kept | found)
    return table


def main() -> str:
    params = load_params()
    settings = params.posenet
    training.configure(params.seed, "posenet/evaluate", params.threads)
    device = training.device()
    held = [f"{HELD_OUT}/{n:05d}" for n in range(len(np.load(IMAGES / "held_out.npy", mmap_mode="r")))]
    smooth = [name.replace(HELD_OUT, SMOOTH) for name in held]
    names = [*held, *smooth, *TESTS]

    parts, drawn_maps = [], {}
    for reading, (backbone, variant) in tqdm(
        list(product(READINGS, variants(params))), "posenet/evaluate", disable=None, leave=False
    ):
        network = build(backbone, variant, reading, params)
        training.load_weights(weights_path(backbone, variant, reading), network)
        features = np.load(features_path(backbone, variant), mmap_mode="r")[-len(names) :]
        maps = predictions(network.to(device), features) if len(network.weights) else {}
        if maps:
            parts.append(scores(maps, names, reading=reading, backbone=backbone, variant=variant))
        drawn_maps |= {
            f"{reading}/{backbone}/{variant}/{cell.name}": drawn[-len(TESTS)]  # of the natural test image
            for cell, drawn in maps.items()
            if cell.run == 0
        }
    rows = pd.concat(parts, ignore_index=True)
    buffer = io.BytesIO()
    kinds = dict.fromkeys(["reading", "backbone", "variant", "inputs", "pattern", "image"], "category")
    rows.astype(kinds).to_parquet(buffer, index=False)
    write_bytes(SCORES, buffer.getvalue())
    write_bytes(MAPS, safetensors.numpy.save({name: np.ascontiguousarray(m) for name, m in drawn_maps.items()}))

    found: dict[str, list[dict]] = {"held_out": [], "table2": [], "comparisons": []}
    for reading, these in rows.groupby("reading", sort=False):
        for name, more in analyse(these, held, params).items():
            found[name] += [{"reading": reading, **row} for row in more]
    for name, more in found.items():
        write_json(PLOTS / f"{name}.json", more)
    beside = beside_adam(held, len(names), params, device)
    as_published = (rows["reading"] == ADAM) & rows["image"].isin(held) & rows["variant"].map(has_zeros)
    as_published &= (rows["inputs"] == ALL) & (rows["kernel"] == 3) & (rows["padding"] == 0)
    write_json(PLOTS / "optimizers.json", stability(pd.concat([rows[as_published], *beside], ignore_index=True)))
    write_json("metrics/posenet.json", headline(found["table2"], found["comparisons"], settings.patterns, rows))
    return f"{len(rows):,} maps of {len(parts)} sets of position networks scored"


def beside_adam(held: list[str], tested: int, params: Params, device: torch.device) -> list[pd.DataFrame]:
    """Scores on held-out images of Table 2's networks with their first weights, and as gradient descent leaves them.

    tested: how many images, held-out ones first, are at the end of the features.
    """
    parts = []
    for reading, (backbone, variant) in product((FIRST, *DESCENTS), variants(params)):
        if not has_zeros(variant):
            continue
        network = build(backbone, variant, reading, params)
        if reading != FIRST:
            training.load_weights(weights_path(backbone, variant, reading), network)
        features = np.load(features_path(backbone, variant), mmap_mode="r")[-tested:][: len(held)]
        maps = predictions(network.to(device), features)
        parts.append(scores(maps, held, reading=reading, backbone=backbone, variant=variant))
    return parts


def analyse(rows: pd.DataFrame, held: list[str], params: Params) -> dict[str, list[dict]]:
    """What one reading's scores say: summaries on held-out images, Table 2, and the document's statements."""
    settings = params.posenet
    on_held_out = rows[rows["image"].isin(held)]
    measures = ("spearman", "mae")
    by_measure = {measure: by_network(on_held_out, measure) for measure in measures}
    held_out_rows = summarise(by_measure, HELD_OUT)
    tests: dict[str, Maps] = {}
    published = table_2() if rows["reading"].iloc[0] == ADAM else {}
    table = beside_published(held_out_rows, published)
    for image in (SMOOTH, *TESTS):
        shown = rows["image"].str.startswith(f"{SMOOTH}/") if image == SMOOTH else rows["image"] == image
        these = {measure: by_network(rows[shown], measure) for measure in measures}
        tests[image] = these["spearman"]
        table += beside_published(summarise(these, image), published)
    asked = comparisons([key for key, _ in by_measure["spearman"]], settings.kernel_sizes, settings.paddings)
    compared = [row for one in asked for row in measured(one, settings.patterns, by_measure["spearman"], tests)]
    return {"held_out": held_out_rows, "table2": table, "comparisons": compared}


def headline(table: list[dict], compared: list[dict], patterns: list[str], rows: pd.DataFrame) -> dict:
    """Few numbers, for `dvc metrics diff`: correlations by network, how statements fall out, undefined maps."""
    over = "mean" if len(patterns) > 1 else patterns[0]
    spearman, claims = {}, {}
    for reading in dict.fromkeys(row["reading"] for row in table):
        these = pd.DataFrame([row for row in table if (row["reading"], row["image"]) == (reading, HELD_OUT)])
        networks = these.groupby("network", sort=False)["spearman"]
        spearman[reading] = {name: float(np.mean(values)) for name, values in networks}  # undefined where one is
        found = [row for row in compared if (row["reading"], row["pattern"]) == (reading, over) and row["in_headline"]]
        claims[reading] = {
            claim: dict(Counter(row["verdict"] for row in found if row["claim"] == claim))
            for claim in CLAIMS
            if any(row["claim"] == claim for row in found)
        }
    return {"spearman": spearman, "claims": claims, "undefined": int(rows["spearman"].isna().sum())}


if __name__ == "__main__":
    run(main)
