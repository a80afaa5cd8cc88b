"""What CLIP counts before and after: trials, measures, paired tests, naming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import edit_params
from sklearn.metrics import confusion_matrix
from torch.nn.functional import normalize

from pipeline.countclip import clip
from pipeline.countclip.counting_set import Benchmark
from pipeline.countclip.evaluate import named_rightly, paired, trials
from pipeline.countclip.shares import youden
from pipeline.countclip.tokens import tokenize
from pipeline.predictions import read_predictions


def test_a_paired_test_by_hand():
    before = np.array([True] * 10 + [False] * 10 + [True, False])
    after = np.array([True] * 10 + [True] * 8 + [False] * 2 + [False, False])
    # 8 gained, 1 lost: two-sided p = 2 (1 + 9) / 2^9
    found = paired(before, after)
    assert (found["gained"], found["lost"], found["log10_p"]) == (8, 1, pytest.approx(np.log10(20 / 512)))
    # Agresti and Min: half a trial more in each of four cells: (8.5 - 1.5) / 24 +- 1.96 sqrt(10 - 49 / 24) / 24
    assert found["change"] == pytest.approx(7 / 22)
    spread = 1.959964 * np.sqrt(10 - 49 / 24) / 24
    assert (found["change_low"], found["change_high"]) == pytest.approx((7 / 24 - spread, 7 / 24 + spread))
    same = paired(before, before)
    assert (same["gained"], same["lost"], same["log10_p"], same["change"]) == (0, 0, 0.0, 0.0)
    assert same["change_low"] < 0 < same["change_high"]  # that nothing differs in 22 images is not that nothing would


def test_youdens_j_by_hand():
    """Newcombe's own example of method 10: 56 of 70 less 48 of 80 is 0.2 [0.0524, 0.3339]."""
    positive = np.array([True] * 70 + [False] * 80)
    called = np.array([True] * 56 + [False] * 14 + [True] * 48 + [False] * 32)
    found = youden(positive, called)
    assert found["youden"] == pytest.approx(0.2)
    assert (found["youden_low"], found["youden_high"]) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert youden(positive, np.ones(150, bool))["youden"] == 0  # called so whatever it is
    assert youden(np.zeros(150, bool), called) == {"youden": None, "youden_low": None, "youden_high": None}


def test_trials_hold_every_answer():
    benchmark = Benchmark(["a", "b"], torch.zeros(2), torch.zeros(2), np.array([3, 9]), 0)
    similarity = torch.zeros(2, 9)
    similarity[0, 1] = similarity[1, 0] = 0.5
    rows = trials("last", benchmark, similarity)
    assert rows[["observer", "category", "response", "correct"]].to_numpy().tolist() == [
        ["clip-last", "three", "three", True],
        ["clip-last", "nine", "two", False],
    ]
    assert rows[[f"similarity_{n}" for n in range(2, 11)]].to_numpy().tolist() == similarity.tolist()


def test_naming_is_by_the_mean_of_templates():
    torch.manual_seed(0)
    model = clip.build(clip.SMALL).eval()
    pixels = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    names, templates = ["red balls", "blue boxes", "cones"], ["{} on a table", "{}"]
    with torch.no_grad():
        classes = []
        for name in names:
            ids = tokenize([template.format(name) for template in templates], model.context_length).ids
            classes.append(normalize(normalize(model.encode_text(ids), dim=-1).mean(dim=0), dim=0))
        image = normalize(clip.encode_images(model, pixels), dim=-1)
    by_hand = (image @ torch.stack(classes).T).argmax(dim=1).tolist()
    right = [names[place] for place in by_hand]
    assert named_rightly(model, pixels, names, templates, right).all()
    right[0] = names[(by_hand[0] + 1) % 3]
    assert named_rightly(model, pixels, names, templates, right).tolist() == [False] + [True] * 4


@pytest.mark.slow
def test_metrics_are_what_the_trials_say(prepared, run_stage):
    edit_params(prepared / "params.yaml", {"scales.smoke.countclip.benchmark_per_number": 4})
    for stage in ("countbench", "train", "evaluate", "figures_countbench"):
        result = run_stage(f"countclip.{stage}")
        assert result.returncode == 0, result.stderr
    metrics = json.loads(Path("metrics/countclip.json").read_text())
    assert metrics["images"] == 36
    names = [path.stem for path in Path("models/countclip/finetuned").glob("*.safetensors")]
    assert {"last", "best"} <= set(names)
    measured = pd.read_json("plots/countclip/measures.json").set_index("weights")
    by_number = pd.read_json("plots/countclip/by_number.json")
    rows = {name: read_predictions([f"data/countclip/predictions/{name}.parquet"]) for name in ["pretrained", *names]}
    for name, these in rows.items():
        right = these["category"].astype(str) == these["response"].astype(str)
        for accuracy in (metrics["accuracy"][name], measured["accuracy"][name]):
            assert accuracy == pytest.approx(right.mean(), abs=1e-6)
        assert measured["low"][name] < right.mean() + 1e-6 < measured["high"][name] + 1e-6
        assert measured["mean_absolute_deviation"][name] == pytest.approx(
            (these["number"] - these["answered"]).abs().mean(), abs=1e-6
        )
        confusion = pd.read_json(f"plots/countclip/confusion/{name}.json")
        assert np.array_equal(
            confusion_matrix(confusion["number"], confusion["answered"]),
            confusion_matrix(these["number"], these["answered"]),
        )
        recall = by_number[by_number["weights"] == name].set_index("number")["recall"]
        assert recall.to_dict() == pytest.approx(right.groupby(these["number"]).mean().to_dict(), abs=1e-6)
        similarity = these[[f"similarity_{n}" for n in range(2, 11)]].to_numpy()
        assert (similarity.argmax(axis=1) + 2 == these["answered"]).all()
        rare = (these["answered"] >= 7).mean()
        assert measured["answered_7_to_10"][name] == pytest.approx(rare, abs=1e-6)
        named = measured["zero_shot"][name]
        assert metrics["zero_shot"][name] == named["accuracy"]
        before = measured["zero_shot"]["pretrained"]["accuracy"]
        assert named["change"] == pytest.approx(named["accuracy"] - before, abs=2e-6)
    epochs = json.loads(Path("plots/countclip/epochs.json").read_text())
    assert metrics["accuracy"]["last"] == pytest.approx(epochs[-1]["countbench"], abs=1e-6)
    assert metrics["accuracy"]["best"] == pytest.approx(max(e["countbench"] for e in epochs), abs=1e-6)
    gained = rows["last"]["correct"] & ~rows["pretrained"]["correct"]
    assert measured["gained"]["last"] == gained.sum()
    for name in ("beside_published", "confusion", "by_number", "training"):
        assert Path(f"plots/countclip/{name}.png").stat().st_size > 10_000
