"""Teaching CLIP to count: schedule and losses by hand; the stage killed, resumed, shared, and fed with bad input."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import REPOSITORY, assert_one_line_error, digests, edit_params, run_killed, stage_environment

from pipeline.countclip.paths import FINETUNED, PRETRAINED
from pipeline.countclip.runs import run_name
from pipeline.countclip.train import adam, balanced_accuracy, learning_rate_factor, losses
from pipeline.params import load_params

FIRST = FINETUNED / run_name(0)


def test_the_schedule_by_hand():
    factors = [learning_rate_factor(step, 10) for step in range(10)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # linear over the first half
    cosine = [1, (1 + math.cos(0.2 * math.pi)) / 2, 0.654508, 0.345492, 0.095492]
    assert factors[5:] == pytest.approx(cosine, abs=1e-6)
    assert learning_rate_factor(0, 1) == 1


def test_the_losses_by_hand():
    # embeddings along axes: similarities are 0 or 1. Two counting pairs, one other, one counterfactual each
    image = torch.eye(4)[[0, 1, 2]] * 3
    text = torch.eye(4)[[0, 1, 2, 3, 1]] * 2  # the second counterfactual is as near as its caption
    values = losses(image, text, torch.tensor(1.0), torch.tensor([1.0, 3.0]), 1.0)
    contrastive = math.log(math.e + 2) - 1  # each row and column: one 1, two 0
    assert values["clip"].item() == pytest.approx(contrastive, abs=1e-6)
    count = (1 * (math.log(math.e + 1) - 1) + 3 * math.log(2)) / 2
    assert values["count"].item() == pytest.approx(count, abs=1e-6)
    assert values["loss"].item() == pytest.approx(contrastive + count, abs=1e-6)


def test_the_contrastive_loss_is_open_clips():
    torch.manual_seed(0)
    image, text, scale = torch.randn(6, 8), torch.randn(6 + 2 * 8, 8), torch.tensor(14.3)
    values = losses(image, text, scale, torch.ones(2), 1.0)
    normalize = torch.nn.functional.normalize
    theirs = open_clip.ClipLoss()(normalize(image, dim=-1), normalize(text[:6], dim=-1), scale)
    assert values["clip"].item() == pytest.approx(theirs.item(), rel=1e-5)


def test_the_first_step_of_the_authors_optimiser_by_hand():
    """Adam's first step is lr g / (|g| + eps), where g is the gradient plus weight decay times the weight."""
    params = load_params(REPOSITORY / "params.yaml")
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[0.5, -0.1]])
    layer.weight.grad = torch.tensor([[1e-5, 0.02004]])
    paper = params.scales.paper.countclip.training
    adam(layer, paper.model_copy(update={"learning_rate": 0.1}), params.countclip.training).step()
    # 0.00001 + 0.2 x 0.5 = 0.10001 and 0.02004 - 0.2 x 0.1 = 0.00004, which is only eight times eps
    expected = [0.5 - 0.1 * 0.10001 / (0.10001 + 5e-6), -0.1 - 0.1 * 4e-5 / (4e-5 + 5e-6)]
    assert layer.weight.tolist()[0] == pytest.approx(expected, abs=1e-5)
    layer.weight.data = torch.tensor([[0.5, -0.1]])
    laptop = params.scales.laptop.countclip.training
    adam(layer, laptop.model_copy(update={"learning_rate": 0.1}), params.countclip.training).step()
    assert layer.weight.tolist()[0] == pytest.approx([0.4, -0.2], abs=1e-3)  # no weight decay: whole steps


def test_accuracy_of_uneven_pairs():
    true, answered = np.array([2, 2, 2, 2, 5, 9, 9]), np.array([2, 2, 2, 3, 5, 9, 2])
    assert balanced_accuracy(true, answered) == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)


@pytest.mark.slow
def test_weights_metrics_and_curves_are_there(prepared, run_stage):
    result = run_stage("countclip.train")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(Path("metrics/countclip/training/run0.json").read_text())
    classes = pd.read_json("plots/countclip/lambda/run0.json")
    assert classes["number"].tolist() == list(range(2, 11))
    assert (classes["lambda"] == 1).all()
    pairs = classes["pairs"].sum()
    epochs = json.loads(Path("plots/countclip/epochs/run0.json").read_text())
    assert metrics["steps"] == 2 * (pairs // 2)
    assert [row["epoch"] for row in epochs] == [1, 2]
    best = max(row["countbench"] for row in epochs)
    assert epochs[metrics["best_epoch"]["best"] - 1]["countbench"] == best
    curve = pd.read_csv("plots/countclip/training/run0.csv")
    assert curve["loss"].to_numpy() == pytest.approx((curve["clip"] + curve["count"]).to_numpy(), abs=3e-6)

    before = safetensors.torch.load_file(PRETRAINED)
    after = {path.stem: safetensors.torch.load_file(path) for path in FIRST.glob("*.safetensors")}
    assert {"last", "best"} <= after.keys()
    assert after["last"].keys() == before.keys()
    assert not torch.equal(after["last"]["visual.conv1.weight"], before["visual.conv1.weight"])
    # statistics of BatchNorm stay those of pre-training
    assert torch.equal(after["last"]["visual.bn1.running_mean"], before["visual.bn1.running_mean"])
    assert not list(Path(".checkpoints").glob("countclip.train*"))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bytes(prepared, run_stage):
    edit_params(prepared / "params.yaml", {"scales.smoke.countclip.training.epochs": 6})
    assert run_stage("countclip.train").returncode == 0
    undisturbed = digests(prepared)
    for name in ("models/countclip/finetuned", "plots/countclip", "metrics/countclip/training"):
        shutil.rmtree(name, ignore_errors=True)
        Path(name).unlink(missing_ok=True)
    moments = random.Random(0)
    for _ in range(2):
        run_killed("countclip.train", wait_for=".checkpoints/countclip.train.*/*.pt", moments=moments, spread=0.5)
    last = run_stage("countclip.train", CHECKPOINT_SECONDS="0")
    assert last.returncode == 0, last.stderr
    assert "continues at step" in last.stdout
    assert digests(prepared) == undisturbed
    assert not list(Path(".checkpoints").glob("countclip.train*"))


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(prepared, run_stage):
    training = {"batch_size": 6, "counting_pairs": 2, "learning_rate": 1e-4}
    edit_params(prepared / "params.yaml", {f"scales.smoke.countclip.training.{k}": v for k, v in training.items()})
    assert run_stage("countclip.train").returncode == 0
    alone = safetensors.torch.load_file(FIRST / "last.safetensors")
    curve = pd.read_csv("plots/countclip/training/run0.csv")
    shutil.rmtree(FINETUNED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*command, "-m", "pipeline.countclip.train"], env=stage_environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("countclip.train 0: ") == 1  # one of them speaks
    together = safetensors.torch.load_file(FIRST / "last.safetensors")
    start = safetensors.torch.load_file(PRETRAINED)
    moved = max((alone[name] - start[name]).abs().max().item() for name in alone)
    assert moved > 0
    for name, tensor in alone.items():
        # Adam divides by the gradient's size: where that is next to nothing, so is what its sign rests on
        assert (together[name] - tensor).float().abs().mean().item() < 0.02 * moved, name
    np.testing.assert_allclose(pd.read_csv("plots/countclip/training/run0.csv")["clip"], curve["clip"], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"lambda": "model"}, ["lambda = 'model'", "'one', 'norm', 'modal', 'log' or 'log_once'"]),
        (
            {"scales.smoke.countclip.training.batch_size": 1},
            ["batch_size = 1 is smaller than counting_pairs = 2", "scales.smoke.countclip.training"],
        ),
        ({"scales.smoke.countclip.training.counting_pairs": 5000}, ["counting_pairs = 5000"]),
        ({"sources.generated.clip.name": "RN50"}, ["does not fit", "visual."]),
    ],
)
def test_bad_settings_are_named(prepared, run_stage, changes, parts):
    if "sources.generated.clip.name" in changes:  # a checkpoint of another architecture
        changes |= {"sources.generated.clip.weights": str(PRETRAINED)}
    edit_params(prepared / "params.yaml", changes)
    assert_one_line_error(run_stage("countclip.train"), *parts)
    assert not FINETUNED.exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_good_state(prepared, run_stage):
    changes = {"learning_rate": 1e20, "epochs": 30}
    edit_params(prepared / "params.yaml", {f"scales.smoke.countclip.training.{k}": v for k, v in changes.items()})
    edit_params(prepared / "params.yaml", {"countclip.training.scheduler": False})
    result = run_stage("countclip.train", CHECKPOINT_SECONDS="0")
    assert_one_line_error(
        result, "the loss is nan at step", "lower the learning rate", "the last good state is kept in"
    )
    assert not FINETUNED.exists()
    kept = torch.load(next(Path(".checkpoints").glob("countclip.train.*/*.pt")))
    assert all(math.isfinite(values["loss"]) for values in kept["steps"])


@pytest.mark.slow
def test_the_published_model_trains_and_is_asked(prepared, run_stage):
    """ViT-B/32 with random weights, as its own are not at hand here: build, step, checkpoint, evaluate."""
    torch.manual_seed(0)
    safetensors.torch.save_file(open_clip.create_model("ViT-B-32-quickgelu").state_dict(), "random.safetensors")
    edit_params(
        prepared / "params.yaml",
        {
            "sources.generated.clip": {"name": "ViT-B-32-quickgelu", "weights": "random.safetensors"},
            "scales.smoke.countclip.training.epochs": 1,
            "scales.smoke.countclip.training.counting_pairs": 4,
            "countclip.training.counterfactuals": "all",
            "countclip.runs": [0],
            "scales.smoke.countclip.training.held_out": 0,
        },
    )
    result = run_stage("countclip.train", CHECKPOINT_SECONDS="600")
    assert result.returncode == 0, result.stderr
    trained = safetensors.torch.load_file(FIRST / "last.safetensors")
    theirs = open_clip.create_model("ViT-B-32-quickgelu").state_dict()
    assert {name: tensor.shape for name, tensor in trained.items()} == {n: t.shape for n, t in theirs.items()}
    assert not (FIRST / "held_out.safetensors").exists()
    assert [epoch["held_out"] for epoch in json.loads(Path("plots/countclip/epochs/run0.json").read_text())] == [None]
    for stage in ("evaluate", "figures_countbench"):
        result = run_stage(f"countclip.{stage}")
        assert result.returncode == 0, result.stderr
    assert json.loads(Path("metrics/countclip.json").read_text())["images"] == 18
