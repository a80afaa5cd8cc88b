"""How well does a CLIP model of one's own count, on CountBench or on images of one's own? (countclip, section 3)

    python -m pipeline.countclip.score_own --model ViT-B-32 --weights file.safetensors --images folder --out folder

--model: any of open_clip's, or small-clip. --weights: a .safetensors file, one of open_clip's tags, a name in
sources.yaml, or 'none' for random ones. --images: a folder with images and a table image,caption,number
(pipeline/countclip/own_captions.py), or the benchmark's shard, data/countclip/countbench/countbench.tar.

In --out: scores.json (accuracy, recall by number, confusion), by_number.csv, confusion.png, and answers.parquet, a row
an image, which error consistency reads. All intervals are Wilson's, 95%, over images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline import training
from pipeline.countclip.captions import NUMBERS
from pipeline.countclip.counting_set import Benchmark
from pipeline.countclip.drawing import draw_matrices
from pipeline.countclip.evaluate import trials
from pipeline.countclip.own_captions import read_captioned
from pipeline.countclip.own_model import RANDOM, ask_own, load_own
from pipeline.countclip.scores import measures
from pipeline.predictions import write_predictions
from pipeline.stage import run, write_bytes, write_json
from pipeline.statistics.intervals import wilson

SEED = 0  # of random weights


def by_number(confusion: np.ndarray) -> pd.DataFrame:
    """A row for each number, of counts [9, 9]: images, right answers, recall with its interval, precision.

    NaN where undefined: a number without images has no recall, one that was never answered no precision.
    """
    right, images, answered = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = wilson(right, images.astype(float))
        columns = {"recall": right / images, "recall_low": low, "recall_high": high, "precision": right / answered}
    columns = {name: np.where(images > 0, v, np.nan) if "recall" in name else v for name, v in columns.items()}
    return pd.DataFrame({"number": NUMBERS, "images": images, "right": right, **columns})


def shown(table: pd.DataFrame, confusion: np.ndarray) -> str:
    """Recall by number, and the answers to each, as text."""
    head = f"{'number':>6} {'images':>6}  {'recall [95%]':<18}" + "".join(f"{n:>5}" for n in NUMBERS)
    lines = [f"{'':34}answered", head]
    for row, counts in zip(table.itertuples(), confusion, strict=True):
        recall = f"{row.recall:.2f} [{row.recall_low:.2f}, {row.recall_high:.2f}]" if row.images else "undefined"
        lines.append(f"{row.number:>6} {row.images:>6}  {recall:<18}" + "".join(f"{count:>5}" for count in counts))
    return "\n".join(lines)


def main(model: str, weights: str, images: Path, out: Path) -> str:
    rows = read_captioned(images)
    training.configure(SEED, "countclip/score_own", torch.get_num_threads())
    own = load_own(model, weights)
    own.model.to(training.device())
    asked = ask_own(own, rows)

    numbers = np.array([row.number for row in asked.kept])
    nothing = torch.empty(0)  # what was seen is not kept
    benchmark = Benchmark([row.key for row in asked.kept], nothing, nothing, numbers, asked.cut)
    answers = trials(model, None, benchmark, asked.similarity).assign(condition="own").drop(columns="run")
    found = measures(numbers, answers["answered"])
    confusion = np.array(found["confusion"])
    table = by_number(confusion)

    write_predictions(out / "answers.parquet", answers)
    write_bytes(out / "by_number.csv", table.round(4).to_csv(index=False).encode())
    draw_matrices(out / "confusion.png", [(model, confusion)], 1, f"Weights: {Path(weights).name}")
    left_out = [{"image": row.key, "number": row.number, "reason": reason} for row, reason in asked.left_out]
    described = {"model": model, "weights": None if weights == RANDOM else weights, "preparation": own.preparation}
    counted = {"captions_cut": asked.cut, "left_out": left_out}
    write_json(out / "scores.json", {**described, **found, "by_number": table.to_dict("records"), **counted})

    print(shown(table, confusion))
    if left_out:
        print(f"{len(left_out):,} images left out, first {left_out[0]['image']}: {left_out[0]['reason']}")
    return (
        f"{found['images']:,} images, accuracy {found['accuracy']:.3f} [{found['low']:.3f}, {found['high']:.3f}], "
        f"chance {1 / len(NUMBERS):.3f}; results in {out},"
    )


if __name__ == "__main__":
    run(main, model=str, weights=str, images=Path, out=Path)
