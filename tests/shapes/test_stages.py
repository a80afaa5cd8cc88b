"""The stages as processes: killed at random moments, they end in the same bytes as when left alone."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import assert_one_line_error, digests, edit_params, run_killed

from pipeline.params import load_params
from pipeline.shapes.dataset import load_images
from pipeline.shapes.paths import shard_path
from pipeline.shapes.scenes import Shapes, render
from pipeline.shards import read_shard


def test_generation_killed_at_random_moments(workspace, run_stage):
    size = {"scales.smoke.shapes.images": 6000}
    undisturbed = workspace("undisturbed", **size)
    assert run_stage("shapes.generate", "--density", 50).returncode == 0
    assert sorted(digests(undisturbed)) == [f"data/shapes/{split}/density-50.tar" for split in ("test", "train")]

    killed = workspace("killed", **size)
    moments = random.Random(0)
    for _ in range(3):
        run_killed("shapes.generate", "--density", 50, wait_for=".*.partial", moments=moments, spread=0.6)
        # what is there under a final name is whole
        for name, digest in digests(killed).items():
            if not name.endswith(".partial"):
                assert digest == digests(undisturbed)[name]
    assert run_stage("shapes.generate", "--density", 50).returncode == 0
    assert digests(killed) == digests(undisturbed)


def test_no_worker_outlives_a_killed_stage(workspace):
    folder = workspace(**{"scales.smoke.shapes.images": 20_000})
    run_killed("shapes.generate", "--density", 90, wait_for=".*.partial", moments=random.Random(1), spread=0.2)
    for _ in range(50):
        workers = [
            process
            for process in psutil.process_iter(["cwd"])  # None for what ends while it is asked
            if process.info["cwd"] == str(folder.resolve()) and process.pid != os.getpid()
        ]
        if not workers:
            return
        time.sleep(0.1)
    pytest.fail(f"workers {workers} still run")


@pytest.mark.slow
def test_training_killed_at_random_moments(workspace, run_stage):
    size = {"scales.smoke.shapes.images": 160, "scales.smoke.shapes.training.epochs": 3}  # 24 steps
    undisturbed = workspace("undisturbed", **size)
    assert run_stage("shapes.generate", "--density", 10).returncode == 0
    assert run_stage("shapes.margin_sets").returncode == 0
    assert run_stage("shapes.train", "--density", 10).returncode == 0
    assert not list(Path(".checkpoints").glob("*"))

    killed = workspace("killed", **size)
    assert run_stage("shapes.generate", "--density", 10).returncode == 0
    assert run_stage("shapes.margin_sets").returncode == 0
    moments = random.Random(0)
    for _ in range(2):
        run_killed("shapes.train", "--density", 10, wait_for=".checkpoints/*/*.pt", moments=moments, spread=1.5)
    last = run_stage("shapes.train", "--density", 10, CHECKPOINT_SECONDS="0")
    assert last.returncode == 0, last.stderr
    assert "continues at step" in last.stdout
    assert digests(killed) == digests(undisturbed)
    assert not list(Path(".checkpoints").glob("*"))


@pytest.fixture
def generated(workspace, run_stage):
    folder = workspace()
    assert run_stage("shapes.generate", "--density", 10).returncode == 0
    return folder


def test_images_are_those_of_their_records(generated):
    params = load_params()
    for split, number in {"train": 48, "test": 12}.items():
        images = load_images(f"{split}/density-10")
        assert images.pixels.shape == (number, 32, 32)
        for i, sample in enumerate(read_shard(shard_path(f"{split}/density-10"))):
            shapes = Shapes.from_record(pd.io.json.ujson_loads(sample["json"]))
            assert np.array_equal(render(shapes, 32, params.shapes.scene), images.pixels[i])
            assert images.margins[i] == shapes.circles - shapes.squares


def test_train_and_test_images_differ(generated):
    train, test = load_images("train/density-10"), load_images("test/density-10")
    assert not {image.tobytes() for image in train.pixels} & {image.tobytes() for image in test.pixels}


def test_the_first_images_are_the_same_however_many_follow(workspace, run_stage):
    first = []
    for name, images in {"few": 40, "more": 80}.items():
        workspace(name, **{"scales.smoke.shapes.images": images})
        assert run_stage("shapes.generate", "--density", 10).returncode == 0
        first.append(list(read_shard(shard_path("train/density-10")))[:32])
    assert first[0] == first[1]


def test_only_small_margins_to_train_on_but_all_to_test_on(workspace, run_stage):
    workspace(**{"shapes.max_train_margin": 2, "scales.smoke.shapes.images": 400})
    assert run_stage("shapes.generate", "--density", 50).returncode == 0
    assert np.abs(load_images("train/density-50").margins).max() == 2
    assert np.abs(load_images("test/density-50").margins).max() > 8


def test_margin_sets_hold_what_their_names_say(workspace, run_stage):
    workspace()
    assert run_stage("shapes.margin_sets").returncode == 0
    for density in (10, 50, 100):
        for margin in range(-8, 9, 2):
            images = load_images(f"margins/density-{density}/margin{margin:+d}")
            assert len(images.keys) == 4
            assert (images.margins == margin).all()
            assert (images.circles + images.squares == density).all()


def test_a_truncated_shard_stops_training(generated, run_stage):
    path = shard_path("train/density-10")
    path.write_bytes(path.read_bytes()[:20_480])
    result = run_stage("shapes.train", "--density", 10)
    assert_one_line_error(result, "data/shapes/train/density-10.tar: not a whole shard", "run 'dvc repro'")
    assert not [name for name in digests(generated) if not name.startswith("data/")]


def test_a_damaged_image_is_named(generated, run_stage):
    path = shard_path("train/density-10")
    content = bytearray(path.read_bytes())
    place = content.index(b"\x89PNG")
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    assert_one_line_error(run_stage("shapes.train", "--density", 10), "sample 000000 lacks a readable .png")


@pytest.fixture
def trained(workspace, run_stage):
    """Two networks of a few steps each, and all that they are tested on."""
    folder = workspace(
        densities=[10, 50], **{"shapes.margin_densities": [10], "shapes.runs": [0], "shapes.variants.runs": [1]}
    )
    assert run_stage("shapes.margin_sets").returncode == 0
    for density in (10, 50):
        assert run_stage("shapes.generate", "--density", density).returncode == 0
        assert run_stage("shapes.train", "--density", density).returncode == 0
    return folder


@pytest.mark.slow
def test_predictions_killed_between_sets(trained, run_stage):
    assert run_stage("shapes.predict", "--density", 50).returncode == 0
    undisturbed = digests(trained)
    assert "data/shapes/decisions/paper/M50-run0.parquet" in undisturbed
    shutil.rmtree("data/shapes/decisions")
    run_killed("shapes.predict", "--density", 50, wait_for=".checkpoints/*/*.pt", moments=random.Random(0), spread=0)
    (kept,) = Path(".checkpoints").glob("shapes.predict.M50-run0.*/*.pt")
    assert 0 < len(torch.load(kept)) < 2 + 9  # sets
    shutil.rmtree("data/shapes/decisions", ignore_errors=True)  # as DVC does before it runs a stage
    assert run_stage("shapes.predict", "--density", 50).returncode == 0
    assert digests(trained) == undisturbed
    assert not list(Path(".checkpoints").glob("*"))


@pytest.mark.slow
def test_only_the_networks_that_params_names_are_collected(trained, run_stage):
    edit_params(Path("params.yaml"), {"shapes.variants.architectures": ["shufflenet_v2_x1_0"]})
    variant = ("--density", 50, "--architecture", "shufflenet_v2_x1_0", "--run", 1)
    assert run_stage("shapes.train", *variant).returncode == 0
    assert run_stage("shapes.predict", *variant).returncode == 0
    for density in (10, 50):
        assert run_stage("shapes.predict", "--density", density).returncode == 0
    assert run_stage("shapes.collect").returncode == 0
    folder = Path("data/shapes/predictions")
    assert {path.stem for path in folder.glob("*/*")} == {"M10-run0", "M50-run0", "shufflenet_v2_x1_0-50-run1"}
    variant = pd.read_parquet(folder / "variants/shufflenet_v2_x1_0-50-run1.parquet")
    assert set(variant["condition"]) == {"test/density-50"} | {
        f"margins/density-10/margin{m:+d}" for m in range(-8, 9, 2)
    }

    edit_params(Path("params.yaml"), {"densities": [50], "localize.explained": [50]})
    assert run_stage("shapes.collect").returncode == 0
    assert {path.stem for path in folder.glob("*/*")} == {"M50-run0", "shufflenet_v2_x1_0-50-run1"}


@pytest.mark.slow
def test_weights_of_another_architecture_stop_prediction(trained, run_stage):
    from torchvision.models import resnet34

    from pipeline.training import save_weights

    save_weights("models/shapes/paper/M50-run0.safetensors", resnet34())
    result = run_stage("shapes.predict", "--density", 50)
    assert_one_line_error(result, "models/shapes/paper/M50-run0.safetensors: does not fit ResNet")


@pytest.mark.slow
def test_the_last_epoch_as_saved_is_what_the_saved_network_answers(trained, run_stage):
    """Training's record of its last epoch, and predictions from the weights on disk: the same answers."""
    assert run_stage("shapes.predict", "--density", 50).returncode == 0
    epochs = pd.read_parquet("data/shapes/epochs/paper/M50-run0.parquet").astype({"condition": str, "image": str})
    decisions = pd.read_parquet("data/shapes/decisions/paper/M50-run0.parquet").astype({"condition": str, "image": str})
    assert set(epochs["reading"]) == {"as saved", "re-estimated"}
    assert set(epochs["epoch"]) == {1}
    last = epochs[epochs["reading"] == "as saved"]
    assert last["condition"].value_counts().to_dict() == {
        "test/density-50": 12,
        **{f"margins/density-10/margin{margin:+d}": 2 for margin in range(-8, 9, 2)},
    }
    both = last.merge(decisions, on=["condition", "image"], validate="one_to_one")
    assert len(both) == len(last)
    np.testing.assert_allclose(
        both["logit_difference"], both["logit_circle"] - both["logit_square"], rtol=2e-3, atol=1e-5
    )
    assert (both["circles_x"] == both["circles_y"]).all()


def test_another_seed_is_another_result(workspace, run_stage):
    seen = set()
    for seed in (0, 1):
        folder = workspace(f"seed-{seed}", seed=seed)
        assert run_stage("shapes.generate", "--density", 10).returncode == 0
        seen.add(tuple(sorted(digests(folder).items())))
    assert len(seen) == 2
