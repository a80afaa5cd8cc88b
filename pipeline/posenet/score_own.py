"""How much position do the layers of a backbone of one's own hold, on images of one's own? (posenet, Table 2)

    python -m pipeline.posenet.score_own --backbone torchvision:resnet18 --layers layer1,layer2 \\
        --images folder --out folder

--backbone: torchvision:name or timm:name. --layers: modules of it, by comma. --images: a folder, or .zip archive.
--weights: a .safetensors file, one of the library's tags, which is fetched, or 'none' for random ones. --size: pixels,
to which images are resized. --most: images, chosen at random where there are more.

A fifth of the images is held out. As in the document, a 3 x 3 convolution reads each of five patterns from the maps,
without padding; it is trained by Adam for 15 epochs (section 2.4), three times, and solved by least squares. Beside it
stands the same on the pixels alone. In --out: table2.csv, a row for each reading, network, layer, pattern and image,
and scores.json. Intervals are 95%, over images and training runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import training
from pipeline.posenet.backbones import PIXELS, calibrate, channels_of_pixels
from pipeline.posenet.evaluate import by_network, predictions, scores, summarise
from pipeline.posenet.extract import CALIBRATION, extract
from pipeline.posenet.images import EXTENSIONS, decode, four_tests, list_images, shuffled
from pipeline.posenet.network import PosENets, errors, grid, solve, targets
from pipeline.posenet.own_backbone import RANDOM, OwnExtractor, load_backbone
from pipeline.posenet.paths import ADAM, ALL, HELD_OUT, OPTIMUM, TESTS
from pipeline.posenet.patterns import PATTERNS
from pipeline.shards import item_rng
from pipeline.stage import UserError, run, write_bytes, write_json

SEED, RUNS, MAP_SIZE = 0, 3, 28
EPOCHS, BATCH, RATE, DECAY = 15, 4, 1e-3, 1e-4  # as published
LEAST = 8  # images
ARTIFICIAL = TESTS[1:]  # black, white, noise
READINGS = {ADAM: "trained by Adam, as published", OPTIMUM: "least squares"}


def load_images(place: Path, size: int, most: int) -> tuple[np.ndarray, dict[str, int]]:
    """Pixels uint8 [N, 3, size, size] of up to `most` images, and outcomes by mode or reason. Raises UserError."""
    if not place.exists():
        raise UserError(f"{place}: no such folder; should hold images ({', '.join(sorted(EXTENSIONS))})")
    try:
        names, read = list_images(place)
    except UserError:
        raise UserError(f"{place}: no images; should hold at least {LEAST}, {', '.join(sorted(EXTENSIONS))}") from None
    pixels, outcomes = decode(shuffled(names, SEED), read, size, 1, most)
    if len(pixels) < LEAST:
        raise UserError(
            f"{place}: {len(pixels)} images that can be used ({dict(outcomes)}); at least {LEAST} are needed"
        )
    return pixels, dict(sorted(outcomes.items()))


def learn(network: PosENets, features: Tensor) -> None:
    """Train as published on features float32 [N, channels, S, S]: Adam, mean squared error; the study's own order."""
    optimizer = torch.optim.Adam(network.parameters(), RATE, weight_decay=DECAY, fused=True)
    with torch.no_grad():
        wanted = targets(network(features[:1]))
    for epoch in tqdm(range(EPOCHS), "epochs", disable=None, leave=False):
        order = item_rng(SEED, f"posenet/epoch-{epoch}").permutation(len(features))
        for batch in range(len(features) // BATCH):  # a last, smaller batch is left out
            chosen = order[batch * BATCH :][:BATCH]
            optimizer.zero_grad()
            errors(network(features[chosen]), wanted).sum().backward()
            optimizer.step()


def read_position(features: np.ndarray, channels: dict[str, int], train: int, names: list[str]) -> pd.DataFrame:
    """Scores of every map read from features [N, channels, S, S], the first `train` of which are trained on.

    names: of the others. Columns: reading, inputs (a layer, or ALL), pattern, run, image, spearman, mae.
    """
    device, parts = training.device(), []
    seen = torch.from_numpy(features[:train]).to(device)
    for reading, fit, runs in ((ADAM, learn, RUNS), (OPTIMUM, solve, 1)):
        network = PosENets(grid(channels, list(PATTERNS), [3], [0], runs), channels, SEED).to(device)
        fit(network, seen)
        parts.append(scores(predictions(network, features[train:]), names, reading=reading))
    return pd.concat(parts, ignore_index=True)


def features_of(read: Callable[[Tensor], Tensor], channels: dict[str, int], pixels: np.ndarray) -> np.ndarray:
    """float32 [N, channels, MAP_SIZE, MAP_SIZE] of pixels uint8 [N, 3, H, W]."""
    out = np.empty((len(pixels), sum(channels.values()), MAP_SIZE, MAP_SIZE), np.float32)
    with tqdm(total=len(pixels), desc="images", disable=None, leave=False) as bar:
        extract(read, pixels, out, 0, lambda done: bar.update(done - bar.n))
    return out


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each reading, network, layer, pattern and image: both measures' means, with intervals."""
    of_image = rows["image"].where(rows["image"].isin(ARTIFICIAL), HELD_OUT)
    parts = []
    for (reading, image), these in rows.groupby(["reading", of_image], sort=False):
        maps = {measure: by_network(these, measure) for measure in ("spearman", "mae")}
        parts += [{"reading": reading, **row} for row in summarise(maps, image)]
    return pd.DataFrame(parts)


def shown(table: pd.DataFrame) -> str:
    """Table 2's cells, all layers together, as text: SPC and MAE by pattern, network and image."""
    lines = []
    width = max(map(len, table["network"]))
    for reading, title in READINGS.items():
        lines += [f"{title}:", f"{'':{width + 7}}{HELD_OUT:<28}" + "".join(f"{image:<13}" for image in ARTIFICIAL)]
        lines.append(f"{'':{width + 7}}{'SPC [95%]':<22}{'MAE':<6}" + f"{'SPC':<7}{'MAE':<6}" * len(ARTIFICIAL))
        these = table[(table["reading"] == reading) & (table["inputs"] == ALL)]
        for (name, network), cells in these.groupby(["pattern", "network"], sort=False):
            by_image = cells.set_index("image").to_dict("index")
            held = by_image[HELD_OUT]
            spc = _number(held["spearman"], 5)
            if not np.isnan(held["spearman"]):
                spc += f" [{held['spearman_low']:.2f}, {held['spearman_high']:.2f}]"
            line = f"{name:<3}  {network:<{width}}  {spc:<22}{_number(held['mae'])}"
            for image in ARTIFICIAL:
                line += f"  {_number(by_image[image]['spearman'], 5)}  {_number(by_image[image]['mae'])}"
            lines.append(line)
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float, width: int = 4) -> str:
    return f"{'-' if np.isnan(value) else format(value, '.2f'):>{width}}"


def main(
    backbone: str, layers: str, images: Path, out: Path, weights: str = RANDOM, size: int = 224, most: int = 1000
) -> str:
    chosen = [layer.strip() for layer in layers.split(",")]
    if size < 32 or most < LEAST or len(set(chosen)) < len(chosen):
        raise UserError(
            f"size = {size}, most = {most}, layers = '{layers}': should be 32 or more, {LEAST} or more, "
            f"and each layer once"
        )
    training.configure(SEED, "posenet/score_own", torch.get_num_threads())
    device = training.device()
    network, mean, std = load_backbone(backbone, weights)
    extractor = OwnExtractor(backbone, network, chosen, mean, std, MAP_SIZE).to(device)
    pixels, outcomes = load_images(images, size, most)
    held = max(len(pixels) // 5, 2)
    train = len(pixels) - held
    sample = torch.from_numpy(pixels[:train][:CALIBRATION]).to(device)
    with torch.inference_mode():
        extractor(sample[:1])  # says what does not fit before anything is trained
    if weights == RANDOM:
        calibrate(backbone, network, sample)

    names = [f"{HELD_OUT}/{number:05d}" for number in range(held)] + list(ARTIFICIAL)
    seen = np.concatenate([pixels, four_tests(pixels[train], None, SEED)[1:]])
    parts, state = [], "random" if weights == RANDOM else "trained"
    for name, read, channels in (
        (backbone, extractor, extractor.channels()),
        (PIXELS, lambda batch: channels_of_pixels(batch, MAP_SIZE, normalised=False), {PIXELS: 3}),
    ):
        rows = read_position(features_of(read, channels, seen), channels, train, names)
        parts.append(rows.assign(backbone=name, variant="raw" if name == PIXELS else state))
    table = tabulate(pd.concat(parts, ignore_index=True))
    order = {name: place for place, name in enumerate(PATTERNS)}
    table = table.sort_values("pattern", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)

    write_bytes(out / "table2.csv", table.round(6).to_csv(index=False).encode())
    described = {
        "backbone": backbone,
        "weights": None if weights == RANDOM else weights,
        "layers": chosen,
        "size": size,
    }
    counted = {"train": train, "held_out": held, "outcomes": outcomes}
    write_json(out / "scores.json", {**described, **counted, "table": table.to_dict("records")})
    print(shown(table))
    return f"{train:,} images to train on, {held:,} held out; results in {out},"


if __name__ == "__main__":
    run(main, backbone=str, layers=str, images=Path, out=Path, weights=str, size=int, most=int)
