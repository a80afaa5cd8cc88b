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
from pipeline.countclip.evaluate import named_rightly, of_number, paired, trials
from pipeline.countclip.shares import youden
from pipeline.countclip.tokens import tokenize
from pipeline.predictions import read_predictions
from pipeline.statistics.intervals import agresti_min


def test_a_paired_test_by_hand():
    before = np.array([True] * 10 + [False] * 10 + [True, False])
    after = np.array([True] * 10 + [True] * 8 + [False] * 2 + [False, False])
    # 8 gained, 1 lost: two-sided p = 2 (1 + 9) / 2^9
    found = paired(before, after[None])
    assert (found["gained"], found["lost"], found["log10_p"]) == (8, 1, pytest.approx(np.log10(20 / 512)))
    # Agresti and Min: half a trial more in each of four cells: (8.5 - 1.5) / 24 +- 1.96 sqrt(10 - 49 / 24) / 24
    assert found["change"] == pytest.approx(7 / 22)
    spread = 1.959964 * np.sqrt(10 - 49 / 24) / 24
    assert (found["change_low"], found["change_high"]) == pytest.approx((7 / 24 - spread, 7 / 24 + spread))
    same = paired(before, before[None])
    assert (same["gained"], same["lost"], same["log10_p"], same["change"]) == (0, 0, 0.0, 0.0)
    assert same["change_low"] < 0 < same["change_high"]  # that nothing differs in 22 images is not that nothing would


def test_a_paired_change_over_runs_by_hand():
    """Agresti and Min's reach over images, mean of the runs, and Student's t of their two changes together."""
    before = np.array([False] * 20)
    runs = np.array([[True] * 4 + [False] * 16, [True] * 8 + [False] * 12])
    found = paired(before, runs)
    assert (found["gained"], found["lost"], found["change"]) == (6, 0, pytest.approx(0.3))
    assert found["log10_p"] == pytest.approx(np.log10(2 / 2**4))  # the larger p: four images of four
    lows, highs = zip(*(agresti_min(gained, 0, 20) for gained in (4, 8)), strict=True)
    over_runs = 12.7062 * np.std([0.2, 0.4], ddof=1) / 2**0.5
    low = np.hypot(0.3 - np.mean(lows), over_runs)
    high = np.hypot(np.mean(highs) - 0.3, over_runs)
    assert (found["change_low"], found["change_high"]) == pytest.approx((0.3 - low, 0.3 + high), abs=1e-5)


def test_measures_of_a_number_over_runs_by_hand():
    true = np.array([2, 2, 3, 3])
    runs = [pd.DataFrame({"number": true, "answered": answered}) for answered in ([2, 2, 3, 3], [3, 3, 2, 3])]
    two, three = (of_number(number, runs) for number in (2, 3))
    assert two["recall_by_run"] == [1, 0]
    assert (two["recall"], two["precision_by_run"], two["images"]) == (0.5, [1, 0], 2)
    assert three["recall"] == 0.75
    assert three["precision"] == pytest.approx((1 + 1 / 3) / 2)
    assert two["youden"] == pytest.approx((1 - 0.5) / 2)  # recall minus false alarms: 1 - 0 and 0 - 1/2
    assert two["youden_low"] < two["youden"] < two["youden_high"]
    absent = of_number(7, runs)
    assert (absent["youden"], absent["recall"], absent["precision_by_run"]) == (None, None, [None, None])


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
    rows = trials("last", 2, benchmark, similarity)
    assert rows[["observer", "category", "response", "correct"]].to_numpy().tolist() == [
        ["clip-last-run2", "three", "three", True],
        ["clip-last-run2", "nine", "two", False],
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
    changes = {"scales.smoke.countclip.benchmark_per_number": 4, "countclip.runs": [0, 1]}
    edit_params(prepared / "params.yaml", changes)
    for stage in (["countbench"], ["train"], ["train", "--run", "1"], ["evaluate"], ["figures_countbench"]):
        result = run_stage(f"countclip.{stage[0]}", *stage[1:])
        assert result.returncode == 0, result.stderr
    metrics = json.loads(Path("metrics/countclip.json").read_text())
    assert metrics["images"] == 36
    names = [path.stem for path in Path("models/countclip/finetuned/run1").glob("*.safetensors")]
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
    epochs = [json.loads(Path(f"plots/countclip/epochs/run{run}.json").read_text()) for run in (0, 1)]
    by_run = [run[-1]["countbench"] for run in epochs]
    assert measured["accuracy_by_run"]["last"] == pytest.approx(by_run, abs=1e-6)
    assert metrics["accuracy"]["last"] == pytest.approx(np.mean(by_run), abs=1e-6)
    best = [max(epoch["countbench"] for epoch in run) for run in epochs]
    assert metrics["accuracy"]["best"] == pytest.approx(np.mean(best), abs=1e-6)
    drawn = json.loads(Path("plots/countclip/accuracy_by_epoch.json").read_text())
    assert [row["countbench"] for row in drawn] == pytest.approx(
        [np.mean([run[place]["countbench"] for run in epochs]) for place in range(2)], abs=1e-6
    )
    before = rows["pretrained"]["correct"].to_numpy(bool)
    after = rows["last"]["correct"].to_numpy(bool).reshape(2, -1)
    assert measured["gained"]["last"] == (after & ~before).sum() / 2
    assert set(rows["last"]["run"]) == {0, 1}
    for name in ("beside_published", "confusion", "by_number", "training"):
        assert Path(f"plots/countclip/{name}.png").stat().st_size > 10_000
