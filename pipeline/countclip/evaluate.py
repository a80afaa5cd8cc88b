"""What CLIP counts, and what it still knows, before and after fine-tuning (countclip, sections 3 and 4).

    python -m pipeline.countclip.evaluate

Numbers are means over the runs of fine-tuning, with 95% intervals over images and runs (pipeline/statistics/intervals).
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import torch
from open_clip import build_zero_shot_classifier
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline import training
from pipeline.countclip import clip
from pipeline.countclip.captions import NUMBERS, WORDS
from pipeline.countclip.counting_set import Benchmark, decode, load_benchmark
from pipeline.countclip.paths import BENCHMARK, CLASSES, FINETUNED, PLOTS, PREDICTIONS, ZERO_SHOT
from pipeline.countclip.runs import run_name
from pipeline.countclip.samples import record_of
from pipeline.countclip.scores import answers, ask, measures
from pipeline.countclip.shares import FEW_PAIRS, youden
from pipeline.countclip.tokens import tokenize
from pipeline.params import load_params
from pipeline.predictions import write_predictions
from pipeline.shards import read_shard
from pipeline.stage import run, write_json
from pipeline.statistics.intervals import agresti_min, over_runs, share_over_runs
from pipeline.statistics.tests import mcnemar

BASELINE = "pretrained"
WITH_INTERVAL = {"": "accuracy", "_low": "low", "_high": "high"}


def trials(name: str, run: int | None, benchmark: Benchmark, similarity: Tensor) -> pd.DataFrame:
    """One row an image: the number that it shows, the one answered, and all nine similarities.

    run: of fine-tuning; None for the pre-trained network.
    """
    answered = answers(similarity)
    rows = pd.DataFrame(
        {
            "observer": f"clip-{name}" if run is None else f"clip-{name}-{run_name(run)}",
            "run": run,
            "condition": "countbench",
            "image": benchmark.keys,
            "category": [WORDS[number] for number in benchmark.numbers],
            "response": [WORDS[number] for number in answered],
            "correct": answered == benchmark.numbers,
            "number": benchmark.numbers,
            "answered": answered,
        }
    )
    columns = {f"similarity_{n}": similarity[:, place].cpu().numpy() for place, n in enumerate(NUMBERS)}
    return pd.concat([rows, pd.DataFrame(columns)], axis=1)


def paired(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """What right answers before, bool [N], and after fine-tuning, bool [runs, N], to the same images say.

    gained, lost: images, mean over runs. log10_p: of McNemar's exact test, two-sided, of the run where it is largest.
    change: of the share of right answers, with Agresti and Min's interval over images, and Student's over runs.
    """
    gained, lost = ((after & ~before).sum(axis=1), (before & ~after).sum(axis=1))
    bounds = [agresti_min(more, less, len(before)) for more, less in zip(gained, lost, strict=True)]
    change, low, high = over_runs((gained - lost) / len(before), *np.transpose(bounds))
    return {
        "gained": float(gained.mean()),
        "lost": float(lost.mean()),
        "log10_p": max(float(np.log10(mcnemar(*counts))) for counts in zip(gained, lost, strict=True)),
        "change": change,
        "change_low": low,
        "change_high": high,
    }


def shares(values: np.ndarray, name: str = "accuracy", ends: tuple[str, str] = ("low", "high")) -> dict:
    """A share of bool [runs, images], with its interval and what each run has."""
    share, low, high = share_over_runs(values.astype(float))
    return {name: share, ends[0]: low, ends[1]: high, f"{name}_by_run": values.mean(axis=1).tolist()}


def of_number(number: int, runs: list[pd.DataFrame]) -> dict:
    """Precision, recall and F1 of a number, means over runs that have them, each run's, and Youden's J."""
    found = [measures(these["number"], these["answered"])["by_class"][str(number)] for these in runs]
    row: dict = {"number": number, "images": found[0]["images"]}
    for name in ("precision", "recall", "f1"):
        row[f"{name}_by_run"] = [one[name] for one in found]
        known = [value for value in row[f"{name}_by_run"] if value is not None]
        row[name] = float(np.mean(known)) if known else None
    of_runs = [youden((t["number"] == number).to_numpy(), (t["answered"] == number).to_numpy()) for t in runs]
    if None in of_runs[0].values():
        return row | of_runs[0]
    names = list(of_runs[0])
    value, low, high = over_runs(*([one[name] for one in of_runs] for name in names))
    return row | dict(zip(names, (value, max(low, -1.0), min(high, 1.0)), strict=True))


@torch.no_grad()
def named_rightly(
    model: nn.Module, pixels: Tensor, names: list[str], templates: list[str], right: list[str]
) -> np.ndarray:
    """Of which images [N, 3, S, S] the class, of `names`, is named rightly: bool [N].

    A class is the mean embedding of its name in all templates, as open_clip builds zero-shot classifiers.
    """

    class Encoder(nn.Module):  # so that captions need not fill the context
        def encode_text(self, ids: Tensor, normalize: bool = True) -> Tensor:
            return torch.nn.functional.normalize(clip.embed_texts(model, ids), dim=-1)

    classes = build_zero_shot_classifier(
        Encoder(),
        lambda texts: tokenize(texts, model.context_length).ids,
        names,
        [template.format for template in templates],
        device=model.logit_scale.device,
    )  # [D, classes]
    chosen = (normalize(clip.embed_images(model, pixels), dim=-1) @ classes).argmax(dim=1).tolist()
    return np.array([names[place] == name for place, name in zip(chosen, right, strict=True)])


def main() -> str:
    params = load_params()
    precision = params.at_scale.countclip.training.precision
    training.configure(params.seed, "countclip/evaluation", params.threads)
    device = training.device()
    model = clip.load(params.inputs.clip).eval()
    size = clip.image_size(model)
    benchmark = load_benchmark(BENCHMARK, size, model.context_length)
    named = list(read_shard(ZERO_SHOT)) if ZERO_SHOT.exists() else []
    classes = json.loads(CLASSES.read_text()) if named else None
    pixels, right = decode(named, size), [record_of(sample)["class"] for sample in named]

    model.to(device)
    runs = [FINETUNED / run_name(number) for number in params.countclip.runs]
    kinds = [path.stem for path in sorted(runs[0].glob("*.safetensors"))]
    rows: list[dict] = []
    by_number: list[dict] = []
    correct: dict[str, np.ndarray] = {}  # by weights: bool [runs, images]
    classified: dict[str, np.ndarray] = {}
    for name in [BASELINE, *kinds]:
        tables, named_right = [], []
        for number in [None] if name == BASELINE else params.countclip.runs:
            if number is not None:
                training.load_weights(FINETUNED / run_name(number) / f"{name}.safetensors", model)
            tables.append(trials(name, number, benchmark, ask(model, benchmark.pixels, benchmark.ids, precision)))
            if classes:
                with training.autocast(precision, device):
                    named_right.append(named_rightly(model, pixels, **classes, right=right))
        these = pd.concat(tables, ignore_index=True)
        write_predictions(PREDICTIONS / f"{name}.parquet", these)
        write_json(PLOTS / "confusion" / f"{name}.json", these[["number", "answered"]].to_dict("records"))
        by_number += [{"weights": name, **of_number(number, tables)} for number in NUMBERS]
        correct[name] = np.stack([table["correct"] for table in tables])
        answered = np.stack([table["answered"] for table in tables])
        rows.append(
            {
                "weights": name,
                "images": len(benchmark.keys),
                "runs": len(tables),
                **shares(correct[name]),
                "mean_absolute_deviation": float(np.abs(answered - benchmark.numbers).mean()),
                **shares(answered >= FEW_PAIRS, "answered_7_to_10", ("answered_7_to_10_low", "answered_7_to_10_high")),
                **paired(correct[BASELINE][0], correct[name]),
            }
        )
        if classes:
            classified[name] = np.stack(named_right)
            rows[-1]["zero_shot"] = {
                "images": len(right),
                **shares(classified[name]),
                **paired(classified[BASELINE][0], classified[name]),
            }
    write_json(PLOTS / "by_number.json", by_number)
    write_json(PLOTS / "measures.json", rows)
    accuracies = {row["weights"]: row["accuracy"] for row in rows}

    def with_interval(found: dict[str, dict]) -> dict[str, float]:
        return {f"{name}{end}": row[key] for name, row in found.items() for end, key in WITH_INTERVAL.items()}

    # few numbers, for `dvc exp show`; all else is in plots/countclip/measures.json
    headline = {
        "images": len(benchmark.keys),
        "captions_cut": benchmark.cut,
        "accuracy": with_interval({row["weights"]: row for row in rows}),
        "zero_shot": with_interval({row["weights"]: row["zero_shot"] for row in rows if "zero_shot" in row}),
        "log10_p": {row["weights"]: row["log10_p"] for row in rows if row["weights"] != BASELINE},
    }
    write_json("metrics/countclip.json", headline)
    listed = ", ".join(f"{name} {value:.3f}" for name, value in accuracies.items())
    return f"{len(benchmark.keys):,} images, {len(runs)} runs; {listed};"


if __name__ == "__main__":
    run(main)
