"""The stages as a person runs them: what they write, killed and continued, and fed with what does not fit."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from conftest import assert_one_line_error, copy_params, digests, edit_params, run_killed, run_stages

from pipeline.predictions import write_predictions
from pipeline.training import save_weights

COUNTERS = ["regress", "ssd", "faster_rcnn", "segment"]
RUNS = [0, 1]
SMALL = {
    "densities": [10],
    "scales.smoke.shapes.images": 60,
    "localize.density": 10,
    "localize.counters": COUNTERS,
    "localize.runs": [*RUNS],
    "shapes.runs": [*RUNS],  # the same list would be an alias in YAML
    "localize.shifts": [1, 32],
    "localize.turns": [5, 90],
    "localize.zooms": [10],
    "shapes.margin_densities": [10],
    "shapes.margins": [-2, 2],
    "shapes.variants.density": 10,
    "posenet.counter_density": 10,
}
SHAPES = [
    ("shapes.generate", "--density", 10),
    ("shapes.margin_sets",),
    *[("shapes.train", "--density", 10, "--run", run) for run in RUNS],
    *[("shapes.predict", "--density", 10, "--run", run) for run in RUNS],
]
STAGES = [
    *[("localize.train", "--counter", name, "--run", run) for name in COUNTERS for run in RUNS],
    *[("localize.count", "--counter", name, "--run", run) for name in COUNTERS for run in RUNS],
    ("localize.compare",),
    ("localize.explain",),
    ("localize.probe",),
    ("localize.shift",),
    ("countclip.pool",),
    ("countclip.pretrain",),
    ("localize.explain_clip",),
    ("localize.figures",),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run."""
    folder = tmp_path_factory.mktemp("localize")
    copy_params(folder, **SMALL)
    (folder / "pipeline/countclip").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "pipeline/countclip/small-clip.json", folder / "pipeline/countclip")
    run_stages(folder, *SHAPES)
    # as shapes.collect does, which asks for the variants too
    shutil.copytree(folder / "data/shapes/decisions", folder / "data/shapes/predictions")
    run_stages(folder, *STAGES)
    return folder


@pytest.fixture
def copy(done: Path, work_in_copy: Callable[[Path], Path]) -> Path:
    """The current folder is a copy of it."""
    return work_in_copy(done)


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads((folder / f"plots/localize/{name}.json").read_text()))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("counter", COUNTERS)
def test_answers_follow_from_the_counts(done, counter, run):
    table = pd.read_parquet(done / f"data/localize/counted/{counter}-run{run}/answers.parquet")
    assert set(zip(table["observer"].astype(str), table["counter"], table["run"], strict=True)) == {
        (f"{counter}-run{run}", counter, run)
    }
    assert len(table) == 4 + 2 * 4  # four test images; two margins of four
    more_circles = table["counted_circles"] > table["counted_squares"]
    assert (table["response"].astype(str) == np.where(more_circles, "circle", "square")).all()
    majority = np.where(table["circles"] > table["squares"], "circle", "square")
    assert (table["category"].astype(str) == majority).all()
    assert (table["correct"] == (table["category"].astype(str) == table["response"].astype(str))).all()
    margins = table[table["condition"].astype(str) == "margins/density-10/margin-2"]
    assert (margins["circles"] - margins["squares"] == -2).all()


@pytest.mark.parametrize("counter", ["ssd", "faster_rcnn"])
def test_counts_of_detectors_are_their_boxes_above_the_threshold(done, counter):
    answers = pd.read_parquet(done / f"data/localize/counted/{counter}-run1/answers.parquet").astype({"image": str})
    boxes = pd.read_parquet(done / f"data/localize/counted/{counter}-run1/boxes.parquet").astype({"image": str})
    threshold = json.loads((done / f"metrics/localize/training/{counter}-run1.json").read_text())["threshold"]
    assert set(boxes["condition"]) <= {"test/density-10"}
    kept = boxes[boxes["score"] >= np.float32(threshold)]
    for _, row in answers[answers["condition"].astype(str) == "test/density-10"].iterrows():
        these = kept[kept["image"] == row["image"]]
        assert (these["label"] == 2).sum() == row["counted_circles"]
        assert (these["label"] == 1).sum() == row["counted_squares"]


def test_all_are_compared_on_the_same_trials(done):
    tables = {path.stem: pd.read_parquet(path) for path in (done / "data/localize/predictions").glob("*.parquet")}
    assert set(tables) == {f"{name}-run{run}" for name in ("classify", *COUNTERS) for run in RUNS}
    trials = {name: table[["condition", "image"]].astype(str) for name, table in tables.items()}
    for name in tables:
        pd.testing.assert_frame_equal(trials[name], trials["classify-run0"])
    for run in RUNS:
        theirs = pd.read_parquet(done / f"data/shapes/decisions/paper/M10-run{run}.parquet")
        keys = {"condition": str, "image": str}
        merged = tables[f"classify-run{run}"].astype(keys).merge(theirs.astype(keys), on=list(keys))
        assert (merged["response_x"].astype(str) == merged["response_y"].astype(str)).all()
    margins = read(done, "margins")
    assert set(margins["counter"]) == {"classify", *COUNTERS, "true mask"}
    row = margins[(margins["counter"] == "ssd") & (margins["margin"] == 2)].iloc[0]
    for run in RUNS:
        ssd = tables[f"ssd-run{run}"]
        ssd = ssd[ssd["condition"].astype(str) == "margins/density-10/margin+2"]
        assert row["accuracy_by_run"][run] == ssd["correct"].mean()
    assert row["accuracy"] == np.mean(row["accuracy_by_run"])
    assert len(read(done, "cost")) == 5


def test_another_run_has_other_weights(done):
    for name in COUNTERS:
        first, second = (
            safetensors.numpy.load((done / f"models/localize/{name}-run{run}.safetensors").read_bytes()) for run in RUNS
        )
        assert first.keys() == second.keys()
        assert any((first[key] != second[key]).any() for key in first if key.endswith("weight"))


def test_every_heat_map_sums_to_one_or_is_none(done):
    for name in ("heat_maps", "clip_heat_maps"):
        maps = safetensors.numpy.load((done / f"data/localize/{name}.safetensors").read_bytes())
        energies = [m for key, m in maps.items() if key.count("/") == 2]
        assert len(energies) >= 12
        for energy in energies:
            totals = energy.reshape(-1, *energy.shape[-2:]).sum(axis=(1, 2))
            assert np.all((np.abs(totals - 1) < 1e-4) | (totals == 0))


def test_shares_of_heat_are_whole(done):
    for name, chosen, columns in (
        ("explanations", "chosen", ("value", "random")),
        ("clip_explanations", "named", ("caption", "other_caption", "random_weights")),
    ):
        for column in columns:
            rows = read(done, name).pivot_table(index="method", columns="measure", values=column)
            rows = rows[[chosen, "other", "background"]].dropna().astype(float)
            np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
            assert len(rows)


def test_each_number_says_what_is_behind_it(done):
    """Two images, ten networks with random weights; LIME, which is dear, of two of them."""
    for name, control in (("explanations", "random"), ("clip_explanations", "random_weights")):
        rows = read(done, name).set_index(["method", "measure"])
        most = np.where(rows.index.get_level_values("method") == "lime", 2, 10)
        assert (rows[f"{control}_draws"] <= most).all()
        assert (rows[f"{control}_maps"] <= 2 * most).all()
        assert rows[f"{control}_draws"].max() > 3
        tested = rows[rows.index.get_level_values("measure").isin(["deletion", "insertion"])]
        assert (tested[f"{control}_maps"] <= 2).all()


def test_specificity_is_the_paired_difference(done):
    numbers = json.loads((done / "metrics/localize/explanations.json").read_text())["M10"]
    for method in numbers.values():
        mine, other, both = (method[name]["value"] for name in ("chosen_over_area", "other_over_area", "specificity"))
        if None not in (mine, other) and method["specificity"]["value_images"] == 2:
            assert both == pytest.approx(mine - other, abs=2e-6)
        assert {"value_low", "value_high", "random", "gain", "gain_low"} <= method["specificity"].keys()


def test_what_does_not_move_does_not_change(done):
    rows = read(done, "shifts")
    assert (rows.loc[rows["shift"] == 0, ["changed", "logits_apart"]] == 0).all(axis=None)
    assert set(rows["padding"]) == {"zeros", "circular"}  # at 32 pixels the deepest maps cannot be reflected
    assert (rows.loc[rows["shift"] == 0, ["pixels_apart", "shapes_lost"]] == 0).all(axis=None)
    nothing_lost = rows[(rows["way"] == "rolled") | ((rows["way"] == "turned") & (rows["shift"] == 90))]
    assert (nothing_lost[["shapes_lost", "majority_changed"]] == 0).all(axis=None)
    assert set(rows.loc[rows["way"] == "zoomed", "shift"]) == {0, 10}


def test_boxes_and_masks_are_compared_on_the_same_images(done):
    rows = read(done, "places")
    assert set(zip(rows["boxes_of"], rows["masks_of"], strict=True)) == {("ssd", "segment"), ("faster_rcnn", "segment")}
    assert set(rows["density"]) == {10, "all"}
    assert (rows["images"] == 4).all()
    assert (rows["runs"] == 2).all()
    for run in RUNS:
        masks = pd.read_parquet(done / f"data/localize/counted/segment-run{run}/answers.parquet")
        masks = masks[masks["condition"].astype(str) == "test/density-10"]
        shares = [masks[f"intersection_{kind}"] / masks[f"union_{kind}"] for kind in ("square", "circle")]
        assert rows.iloc[0]["masks_by_run"][run] == pytest.approx(np.nanmean(shares, axis=0).mean(), abs=1e-6)
    assert rows.iloc[0]["gain"] == pytest.approx(rows.iloc[0]["masks"] - rows.iloc[0]["boxes"], abs=2e-6)


def test_heat_is_measured_for_both_classes(done):
    rows = read(done, "explanations")
    both = rows[rows["measure"].isin(["follows_class", "other_class_specificity"])]
    assert set(both["method"]) == {"cam", *(f"grad-cam layer{layer}" for layer in range(1, 5))}
    assert len(both) == 2 * 5
    maps = safetensors.numpy.load((done / "data/localize/heat_maps.safetensors").read_bytes())
    assert maps["10/other class/cam"].shape == maps["10/trained/cam"].shape


def test_figures_are_there(done):
    names = {path.name for path in (done / "plots/localize/figures").glob("*.png")}
    assert names == {
        "comparison.png",
        "by_density.png",
        "found.png",
        "heat_maps_10.png",
        "heat_both_10.png",
        "explanations_M10.png",
        "clip_heat_maps.png",
        "readout.png",
        "units.png",
        "shifts.png",
    }


def test_one_counter_alone_is_compared_and_drawn(copy, run_stage):
    for name in COUNTERS[1:]:
        for run in RUNS:
            shutil.rmtree(copy / f"data/localize/counted/{name}-run{run}")
    edit_params(copy / "params.yaml", {"localize.counters": ["regress"]})
    for stage in ("compare", "figures"):
        result = run_stage(f"localize.{stage}")
        assert result.returncode == 0, result.stderr
    assert set(read(copy, "margins")["counter"]) == {"classify", "regress"}


def test_runs_that_the_classifier_lacks_are_named(copy, run_stage):
    for name in COUNTERS:
        shutil.copytree(copy / f"data/localize/counted/{name}-run1", copy / f"data/localize/counted/{name}-run5")
        path = copy / f"data/localize/counted/{name}-run5/answers.parquet"
        write_predictions(path, pd.read_parquet(path).assign(run=5, observer=f"{name}-run5"))
        shutil.copy(
            copy / f"metrics/localize/training/{name}-run1.json", copy / f"metrics/localize/training/{name}-run5.json"
        )
    edit_params(copy / "params.yaml", {"localize.runs": [0, 5]})
    result = run_stage("localize.compare")
    assert result.returncode == 0, result.stderr
    assert "runs [5] are in no pair, M10 lacks them" in result.stdout
    assert json.loads((copy / "metrics/localize.json").read_text())["runs_without_classify"] == [5]
    assert set(read(copy, "paired").query("counter == 'ssd'")["runs"]) == {1}
    assert set(read(copy, "margins").query("counter == 'ssd'")["runs"]) == {2}


@pytest.mark.parametrize("counter", ["ssd", "segment"])
def test_training_killed_at_random_moments_ends_in_the_same_bytes(copy, run_stage, counter):
    longer = {f"scales.smoke.localize.training.{counter}.epochs": 20}
    edit_params(copy / "params.yaml", longer)
    assert run_stage("localize.train", "--counter", counter).returncode == 0
    made = [
        f"models/localize/{counter}-run0.safetensors",
        *(f"{name}/localize/training/{counter}-run0" for name in ("plots", "metrics")),
    ]
    undisturbed = {name: digest for name, digest in digests(copy).items() if name.startswith(tuple(made))}
    assert len(undisturbed) == 3
    for name in undisturbed:
        (copy / name).unlink()
    moments = random.Random(0)
    for _ in range(2):
        run_killed("localize.train", "--counter", counter, wait_for=".checkpoints/*/*.pt", moments=moments, spread=0.3)
    last = run_stage("localize.train", "--counter", counter)
    assert last.returncode == 0, last.stderr
    assert "continues at step" in last.stdout
    assert {name: digests(copy)[name] for name in undisturbed} == undisturbed


def test_a_checkpoint_of_another_counter_does_not_fit(copy, run_stage):
    shutil.copy(copy / "models/localize/segment-run0.safetensors", copy / "models/localize/ssd-run0.safetensors")
    assert_one_line_error(
        run_stage("localize.count", "--counter", "ssd"), "models/localize/ssd-run0.safetensors", "does not fit"
    )


def test_a_network_of_another_architecture_does_not_fit(copy, run_stage):
    from torchvision import models

    save_weights(copy / "models/shapes/paper/M10-run0.safetensors", models.squeezenet1_1(num_classes=2))
    assert_one_line_error(run_stage("localize.shift"), "M10-run0.safetensors", "does not fit ResNet")


def test_an_unknown_counter(copy, run_stage):
    assert_one_line_error(
        run_stage("localize.train", "--counter", "guess"), "localize.counters", "'guess'", "regress, ssd"
    )


def test_a_pool_whose_things_places_are_not_known(copy, run_stage):
    import tarfile

    from pipeline.shards import read_shard, write_shard

    samples = [
        {**s, "json": json.dumps({"caption": "a dog"}).encode()} for s in read_shard("data/countclip/pool/00000.tar")
    ]
    write_shard("data/countclip/pool/00000.tar", samples)
    assert tarfile.is_tarfile("data/countclip/pool/00000.tar")
    result = run_stage("localize.explain_clip")
    assert result.returncode == 0, result.stderr
    assert json.loads((copy / "metrics/localize/clip_explanations.json").read_text()) == {
        "images": 0,
        "unknown": "where the things of this pool's images are",
    }
    assert run_stage("localize.figures").returncode == 0
