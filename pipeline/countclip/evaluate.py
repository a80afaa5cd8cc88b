"""What CLIP counts, and what it still knows, before and after fine-tuning (countclip, sections 3 and 4).

python -m pipeline.countclip.evaluate
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
from pipeline.countclip.samples import record_of
from pipeline.countclip.scores import accuracy, answers, ask, measures
from pipeline.countclip.shares import FEW_PAIRS, youden
from pipeline.countclip.tokens import tokenize
from pipeline.params import load_params
from pipeline.predictions import write_predictions
from pipeline.shards import read_shard
from pipeline.stage import run, write_json
from pipeline.statistics.intervals import agresti_min
from pipeline.statistics.tests import mcnemar

BASELINE = "pretrained"
WITH_INTERVAL = {"": "accuracy", "_low": "low", "_high": "high"}


def trials(name: str, benchmark: Benchmark, similarity: Tensor) -> pd.DataFrame:
    """One row an image: the number that it shows, the one answered, and all nine similarities."""
    answered = answers(similarity)
    rows = pd.DataFrame(
        {
            "observer": f"clip-{name}",
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
    """What two networks' right answers [N], bool, to the same images say of their difference.

    gained, lost: images; log10_p: of McNemar's exact test, two-sided; change: of the share of right answers, with
    Agresti and Min's 95% interval.
    """
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    p = mcnemar(gained, lost)
    low, high = agresti_min(gained, lost, len(before))
    return {
        "gained": gained,
        "lost": lost,
        "log10_p": float(np.log10(p)),
        "change": (gained - lost) / len(before),
        "change_low": low,
        "change_high": high,
    }


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
    rows: list[dict] = []
    by_number: list[dict] = []
    correct: dict[str, np.ndarray] = {}
    classified: dict[str, np.ndarray] = {}
    for name in [BASELINE, *sorted(path.stem for path in FINETUNED.glob("*.safetensors"))]:
        if name != BASELINE:
            training.load_weights(FINETUNED / f"{name}.safetensors", model)
        these = trials(name, benchmark, ask(model, benchmark.pixels, benchmark.ids, precision))
        write_predictions(PREDICTIONS / f"{name}.parquet", these)
        write_json(PLOTS / "confusion" / f"{name}.json", these[["number", "answered"]].to_dict("records"))
        found = measures(these["number"], these["answered"])
        by_number += [
            {
                "weights": name,
                "number": number,
                **found["by_class"][str(number)],
                **youden((these["number"] == number).to_numpy(), (these["answered"] == number).to_numpy()),
            }
            for number in NUMBERS
        ]
        measured = {key: found[key] for key in ("images", "accuracy", "low", "high", "mean_absolute_deviation")}
        correct[name] = these["correct"].to_numpy()
        rare = accuracy(int((these["answered"] >= FEW_PAIRS).sum()), len(these))
        measured |= {f"answered_7_to_10{end}": rare[key] for end, key in WITH_INTERVAL.items()}
        rows.append({"weights": name, **measured, **paired(correct[BASELINE], correct[name])})
        if classes:
            with training.autocast(precision, device):
                classified[name] = named_rightly(model, pixels, **classes, right=right)
            rows[-1]["zero_shot"] = {
                **accuracy(int(classified[name].sum()), len(right)),
                **paired(classified[BASELINE], classified[name]),
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
    return f"{len(benchmark.keys):,} images; {listed};"


if __name__ == "__main__":
    run(main)
