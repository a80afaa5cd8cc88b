"""The stages as a person runs them: what they write is what torch and scipy say; killed; fed with bad settings."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import assert_one_line_error, copy_params, digests, edit_params, run_killed, run_stages
from scipy.stats import spearmanr
from torch.nn.functional import conv2d

from pipeline.posenet import backbones
from pipeline.posenet.patterns import pattern
from pipeline.training import save_weights

SMALL = {"posenet.backbones": ["pixels", "squeezenet1_1"], "posenet.padding_modes": ["zeros", "circular"]}
EXTRACT = [("posenet.extract", "--backbone", name) for name in [*SMALL["posenet.backbones"], backbones.COUNTER]]
VARIANTS = {
    "pixels": ["normalised", "raw"],
    "squeezenet1_1": ["random-circular", "random-zeros"],
    "counter": ["random-circular", "random-zeros", "trained-circular", "trained-zeros"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run, on two backbones."""
    folder = tmp_path_factory.mktemp("posenet")
    copy_params(folder, **SMALL)
    torch.manual_seed(0)
    save_weights(folder / "models/shapes/paper/M50-run0.safetensors", backbones.build(backbones.COUNTER))
    run_stages(folder, ("posenet.images",), *EXTRACT, ("posenet.train",), ("posenet.evaluate",), ("posenet.figures",))
    return folder


@pytest.fixture
def copy(done: Path, work_in_copy: Callable[[Path], Path]) -> Path:
    """The current folder is a copy of it."""
    return work_in_copy(done)


def test_features_are_of_every_image_in_order(done):
    parts = ("train", "held_out", "smooth", "test")
    pixels = np.concatenate([np.load(done / f"data/posenet/images/{part}.npy") for part in parts])
    assert pixels.shape == (8 + 3 + 3 + 4, 3, 64, 64)
    for backbone, variants in VARIANTS.items():
        folder = done / "data/posenet/features" / backbone
        assert sorted(path.stem for path in folder.glob("*.npy")) == variants
        channels = json.loads((folder / "layers.json").read_text())
        for variant in variants:
            assert np.load(folder / f"{variant}.npy").shape == (18, sum(channels.values()), 28, 28)
    raw = np.load(done / "data/posenet/features/pixels/raw.npy")
    assert raw[-3].max() == 0  # the black image
    assert raw[-2].min() == 255
    resized = backbones.channels_of_pixels(torch.from_numpy(pixels), 28, normalised=False)
    np.testing.assert_allclose(raw, resized.numpy(), atol=1e-4)


def test_one_score_by_hand(done):
    """A cell's weights put to its features by torch alone, its map scored by scipy: what the table of scores has."""
    weights = safetensors.torch.load_file(done / "models/posenet/adam/squeezenet1_1/random-zeros.safetensors")
    features = torch.from_numpy(np.load(done / "data/posenet/features/squeezenet1_1/random-zeros.npy"))
    scores = pd.read_parquet(done / "data/posenet/scores.parquet")
    # cells of one convolution are sorted by padding, pattern, run; patterns by name: G H HS V VS
    place = 2 * 5 * 2 + 1 * 2 + 1  # padding 2, H, run 1
    drawn = conv2d(features, weights["weights.all-3"][[place]], weights["biases.all-3"][[place]], padding=2)[:, 0]
    these = scores[
        (scores["reading"] == "adam") & (scores["backbone"] == "squeezenet1_1") & (scores["variant"] == "random-zeros")
        & (scores["inputs"] == "all") & (scores["kernel"] == 3) & (scores["padding"] == 2)
        & (scores["pattern"] == "H") & (scores["run"] == 1)
    ].set_index("image")  # fmt: skip
    assert len(these) == 3 + 3 + 4
    places = {8: "held-out/00000", 10: "held-out/00002", 11: "smooth/00000", 14: "natural", 17: "noise"}
    for row, image in places.items():
        target = pattern("H", 30)
        assert these.loc[image, "spearman"] == pytest.approx(
            spearmanr(drawn[row].numpy().ravel(), target.ravel()).statistic, abs=1e-5
        )
        assert these.loc[image, "mae"] == pytest.approx(np.abs(drawn[row].numpy() - target).mean(), abs=1e-5)


def test_a_constant_map_is_undefined_and_counted(done):
    table = pd.DataFrame(json.loads((done / "plots/posenet/table2.json").read_text()))
    pixels = table[(table["network"] == "pixels/raw") & table["image"].isin(["black", "white"])]
    assert pixels["spearman"].isna().all()  # the optimum's too
    black = pixels[pixels["reading"] == "adam"]
    assert len(black) == 2 * 5
    assert black["spearman"].isna().all()
    assert (black["undefined"] == 2).all()  # both runs
    assert black["mae"].notna().all()
    assert black["published_spearman"].isna().all()
    published = dict(zip(zip(black["pattern"], black["image"], strict=True), black["published_mae"], strict=True))
    assert [published[name, "black"] for name in ("H", "V", "G", "HS", "VS")] == [0.251, 0.254, 0.196, 0.208, 0.308]
    assert [published[name, "white"] for name in ("H", "V", "G", "HS", "VS")] == [0.323, 0.276, 0.257, 0.330, 0.330]
    metrics = json.loads((done / "metrics/posenet.json").read_text())
    assert metrics["undefined"] >= 20


def test_the_table_has_every_cell_and_the_published_beside_it(done):
    table = pd.DataFrame(json.loads((done / "plots/posenet/table2.json").read_text()))
    assert len(table) == 2 * 8 * 5 * 6  # readings, networks, patterns, images
    assert set(table.loc[table["in_table"], "reading"]) == {"adam"}
    assert table["in_table"].sum() == 5 * 4  # of PosENet alone: VGG16 and ResNet152 are not here
    means = table.dropna(subset=["spearman", "spearman_low"])  # no interval of one run and one image
    assert set(means.loc[means["image"] == "held-out", "reading"]) == {"adam", "optimum"}
    assert (means["spearman_low"] <= means["spearman"] + 1e-6).all()
    assert (means["spearman"] <= means["spearman_high"] + 1e-6).all()


def test_every_statement_that_can_be_measured_has_a_verdict(done):
    compared = pd.DataFrame(json.loads((done / "plots/posenet/comparisons.json").read_text()))
    assert set(compared["claim"]) == {
        "position is read", "trained - pixels", "random - pixels", "trained - random", "larger kernels",
        "more padding", "natural - black", "natural - white",
        "natural - noise", "test image - black", "test image - white", "test image - noise", "zeros - circular",
        "natural - smooth", "test image - natural",
    }  # fmt: skip
    # one of them from the scores themselves
    scores = pd.read_parquet(done / "data/posenet/scores.parquet").astype({"image": str, "inputs": str})
    usual = scores[(scores["inputs"] == "all") & (scores["kernel"] == 3) & (scores["padding"] == 0)]
    usual = usual[(usual["reading"] == "adam") & (usual["pattern"] == "V") & usual["image"].str.startswith("held-out")]
    means = usual.groupby(["backbone", "variant"], observed=True)["spearman"].mean()
    row = compared[
        (compared["claim"] == "random - pixels") & (compared["pattern"] == "V") & (compared["reading"] == "adam")
        & compared["larger"].str.startswith("squeezenet")
    ].iloc[0]  # fmt: skip
    wanted = means["squeezenet1_1", "random-zeros"] - means["pixels", "raw"]
    assert row["difference"] == pytest.approx(wanted, abs=1e-6)
    assert set(compared.loc[compared["low"].isna(), "verdict"]) <= {"undefined"}
    assert (compared.groupby("reading")["claim"].nunique() == 15).all()
    metrics = json.loads((done / "metrics/posenet.json").read_text())["claims"]
    assert set(metrics) == {"adam", "optimum"}
    assert sum(metrics["adam"]["zeros - circular"].values()) == 3


def test_descent_is_beside_adam_from_the_same_first_weights(done):
    rows = pd.DataFrame(json.loads((done / "plots/posenet/optimizers.json").read_text()))
    networks = {
        "pixels/normalised",
        "pixels/raw",
        "squeezenet1_1/random-zeros",
        "counter/random-zeros",
        "counter/trained-zeros",
    }
    assert set(rows["network"]) == {*networks, "all"}
    assert set(rows["optimizer"]) == {"adam", "sgd", "sgd-original"}
    alone = rows[rows["network"] != "all"]
    assert (alone["trainings"] == 5 * 2).all()  # patterns, runs
    assert (rows.loc[rows["network"] == "all", "trainings"] == 5 * 5 * 2).all()
    # of grey levels of 0 to 255 the curvature is far above 2 / 1e-3
    raw = alone[(alone["network"] == "pixels/raw") & (alone["optimizer"] != "adam")]
    assert (raw["stable"] == 0).all()
    # one correlation from the scores themselves
    scores = pd.read_parquet(done / "data/posenet/scores.parquet").astype({"image": str, "inputs": str})
    usual = scores[(scores["inputs"] == "all") & (scores["kernel"] == 3) & (scores["padding"] == 0)]
    usual = usual[(usual["reading"] == "adam") & usual["image"].str.startswith("held-out/")]
    usual = usual[(usual["backbone"] == "squeezenet1_1") & (usual["variant"] == "random-zeros")]
    row = alone[(alone["network"] == "squeezenet1_1/random-zeros") & (alone["optimizer"] == "adam")].iloc[0]
    assert row["spearman"] == pytest.approx(usual["spearman"].mean(), abs=1e-5)


def test_figures_are_there(done):
    names = {str(path.relative_to(done / "plots/posenet")) for path in (done / "plots/posenet").rglob("*.png")}
    each = ("table2", "maps", "kernel_maps_H", "kernel_maps_G", "kernels", "layers", "padding_modes")
    assert names == {"patterns.png"} | {f"{reading}/{n}.png" for reading in ("adam", "optimum") for n in each}


def test_the_same_again_gives_the_same_bytes(copy, run_stage):
    before = digests(copy)
    for name in ("models/posenet", "plots", "metrics", "data/posenet/features"):
        shutil.rmtree(name)
    for stage in [*EXTRACT, ("posenet.train",), ("posenet.evaluate",), ("posenet.figures",)]:
        assert run_stage(*stage).returncode == 0
    after = digests(copy)
    before.pop("metrics/posenet/images.json")
    assert after == before


@pytest.mark.parametrize(
    ("stage", "outputs"),
    [(EXTRACT[1], ["data/posenet/features/squeezenet1_1"]), (("posenet.train",), ["models/posenet"])],
)
def test_killed_at_random_moments_it_ends_in_the_same_bytes(copy, run_stage, stage, outputs):
    before = digests(copy)
    moments = random.Random(1)
    name = ".".join(stage[0:1] + stage[2:3])
    for _ in range(2):
        for output in outputs:
            shutil.rmtree(output, ignore_errors=True)  # as DVC does before it runs a stage
        run_killed(*stage, wait_for=f".checkpoints/{name}.*/*.pt", moments=moments, spread=0.05)
    for output in outputs:
        shutil.rmtree(output, ignore_errors=True)
    assert run_stage(*stage, CHECKPOINT_SECONDS="0").returncode == 0
    assert digests(copy) == before
    assert not list(Path(".checkpoints").glob("posenet*"))


def test_all_channels_are_read_where_asked(copy, run_stage):
    edit_params(
        copy / "params.yaml",
        {"posenet.readout": "channels", "posenet.layers": {"squeezenet1_1": ["fire3", "features.7"]}},
    )
    for stage in [EXTRACT[1], ("posenet.train",), ("posenet.evaluate",)]:
        result = run_stage(*stage)
        assert result.returncode == 0, result.stderr
    features = np.load("data/posenet/features/squeezenet1_1/random-zeros.npy")
    assert features.shape == (18, 128 + 256, 28, 28)
    assert features.dtype == np.float16
    scores = pd.read_parquet("data/posenet/scores.parquet")
    squeezenet = scores[scores["backbone"] == "squeezenet1_1"].astype({"inputs": str})
    assert set(squeezenet["inputs"]) == {"all", "fire3", "features.7"}
    # what is solved has 2,500 inputs at most: 384 channels by 1 x 1, and 128 or 256 by 3 x 3
    solved = squeezenet[(squeezenet["reading"] == "optimum") & (squeezenet["variant"] == "random-zeros")]
    assert set(zip(solved["inputs"], solved["kernel"], strict=True)) == {("all", 1), ("fire3", 3), ("features.7", 3)}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"posenet.layers": {"squeezenet1_1": ["fire12"]}}, ["no layer 'fire12'", "fire3", "features.12"]),
        ({"posenet.kernel_sizes": [1, 40]}, ["kernel_sizes = [1, 40]", "map_size = 28"]),
        ({"posenet.backbones": ["alexnet"]}, ["posenet.backbones", "'alexnet'", "'squeezenet1_1'"]),
        ({"posenet.counter_density": 55}, ["counter_density = 55", "densities"]),
        ({"sources.generated.posenet.weights": {"squeezenet1_1": "none.pth"}}, ["'none.pth': no such file"]),
    ],
)
def test_bad_settings_are_named(copy, run_stage, changes, parts):
    edit_params(copy / "params.yaml", changes)
    assert_one_line_error(run_stage(*EXTRACT[1]), *parts)


def test_weights_of_another_backbone_stop_extraction(copy, run_stage):
    torch.save(backbones.build(backbones.COUNTER).state_dict(), "counter.pth")
    edit_params(copy / "params.yaml", {"sources.generated.posenet.weights": {"squeezenet1_1": "counter.pth"}})
    assert_one_line_error(run_stage(*EXTRACT[1]), "counter.pth: no weights of squeezenet1_1", "features.0.weight")


def test_killed_while_handing_over_it_starts_afresh(copy, run_stage):
    """The checkpoint is still there, a file that it counts on is not."""
    before = digests(copy)
    process = run_stage(*EXTRACT[1], CHECKPOINT_SECONDS="0")
    assert process.returncode == 0
    shutil.rmtree("data/posenet/features/squeezenet1_1")
    run_killed(
        *EXTRACT[1], wait_for=".checkpoints/posenet.extract.squeezenet1_1.*/*.pt", moments=random.Random(0), spread=0
    )
    for kept in Path(".checkpoints").rglob("*.npy"):
        kept.unlink()
    assert run_stage(*EXTRACT[1]).returncode == 0
    assert digests(copy) == before
