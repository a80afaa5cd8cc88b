"""params.yaml: what is wrong is named, with its key, its value and what is allowed."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY, assert_one_line_error
from ruamel.yaml import YAML

from pipeline.params import load_params
from pipeline.stage import UserError


def test_the_committed_file_is_valid():
    params = load_params(REPOSITORY / "params.yaml")
    assert params.scale == "laptop"
    assert params.source == "generated"
    assert params.densities == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_paper_scale_is_as_published():
    paper = load_params(REPOSITORY / "params.yaml").scales.paper.shapes
    assert (paper.images, paper.train_fraction, paper.resolution, paper.margin_images) == (10_000, 0.8, 256, 2000)
    training = paper.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (12, 64, 2e-4)


def test_scene_is_as_published():
    shapes = load_params(REPOSITORY / "params.yaml").shapes
    assert (shapes.scene.canvas, shapes.scene.density_sd) == (256, 3)
    assert (shapes.scene.circle_share_mean, shapes.scene.circle_share_sd) == (0.5, 0.25)
    assert (shapes.scene.circle_radius, shapes.scene.square_side) == ([2, 15], [2, 20])
    assert shapes.margin_densities == [10, 50, 100]
    assert shapes.margins == [-8, -6, -4, -2, 0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"densites": [10]}, ["'densites'", "did you mean 'densities'?", "threads"]),
        ({"shapes.taget": "soft"}, ["'shapes.taget'", "'soft'", "did you mean 'target'?"]),
        ({"shapes.scene.overlaps": True}, ["'shapes.scene.overlaps'", "did you mean 'overlap'?"]),
        ({"scales.smoke.shapes.training.epoch": 3}, ["'scales.smoke.shapes.training.epoch'", "'epochs'"]),
        ({"densities": [10, -20]}, ["densities.1 = -20", "greater than or equal to 1"]),
        ({"densities": [10, 10]}, ["densities = [10, 10]", "differ"]),
        ({"densities": []}, ["densities = []", "at least 1 item"]),
        ({"seed": "zero"}, ["seed = 'zero'", "valid integer", "found str"]),
        ({"seed": "0"}, ["seed = '0'", "valid integer", "found str"]),
        ({"threads": True}, ["threads = True", "valid integer"]),
        ({"densities": [10, 90]}, ["shapes.variants.density = 50", "[10, 90]"]),
        ({"shapes.runs": [1, 2]}, ["shapes.runs = [1, 2]", "the first should be 0"]),
        ({"shapes.runs": [0, 1, 1]}, ["shapes.runs"]),
        ({"shapes.variants.architectures": ["resnet18"]}, ["resnet18 is the paper's network", "shapes.runs"]),
        ({"scale": "huge"}, ["scale = 'huge'", "'smoke', 'laptop' or 'paper'"]),
        ({"lambda": "model"}, ["lambda = 'model'", "'one', 'norm', 'modal', 'log' or 'log_once'"]),
        ({"shapes.target": "firm"}, ["shapes.target = 'firm'", "'hard' or 'soft'"]),
        ({"shapes.scene.circle_radius": [15, 2]}, ["circle_radius = [15, 2]", "low <= high"]),
        ({"shapes.scene.density_sd": float("nan")}, ["density_sd = nan", "finite"]),
        ({"shapes.margins": [0, 3]}, ["margin 3 cannot be had with 10 shapes"]),
        ({"shapes.margins": [12]}, ["margin 12 cannot be had with 10 shapes"]),
        ({"scales.smoke.shapes.training.batch_size": 64}, ["batch_size = 64", "48 training images"]),
        ({"scales.paper.shapes.resolution": 8}, ["resolution = 8", "greater than or equal to 16"]),
    ],
)
def test_bad_values_are_named(workspace, changes, named):
    workspace(**changes)
    with pytest.raises(UserError) as error:
        load_params()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for part in ["params.yaml", *named]:
        assert part in message


def test_every_error_has_its_line(workspace):
    workspace(densities=[-1], seed=-5)
    with pytest.raises(UserError) as error:
        load_params()
    assert len(str(error.value).splitlines()) == 2


def test_numbers_as_dvc_writes_them_and_yaml_1_1_words(workspace):
    folder = workspace()
    text = (folder / "params.yaml").read_text()
    assert "learning_rate: 1e-3" in text
    (folder / "params.yaml").write_text(text.replace("learning_rate: 1e-3", "learning_rate: 1e-05"))
    assert load_params().scales.smoke.shapes.training.learning_rate == 1e-5
    (folder / "params.yaml").write_text(text.replace("target: hard", "target: off"))
    with pytest.raises(UserError, match=r"shapes.target = 'off'"):  # not False
        load_params()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("seed: [", "not YAML"), ("seed: \x01", "not YAML"), ("", "Input should be"), ("- 1", "Input should")],
)
def test_a_file_that_is_no_mapping(workspace, text, reason):
    (workspace() / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=reason):
        load_params()


def test_a_missing_key_and_a_missing_file(workspace):
    folder = workspace()
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("threads: 1", "", 1))
    with pytest.raises(UserError, match="key 'threads' is missing"):
        load_params()
    (folder / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"params.yaml: not found"):
        load_params()


def test_the_command_line_reports_in_one_line(workspace, run_stage):
    workspace(scale="big")
    assert_one_line_error(run_stage("params"), "params.yaml: scale = 'big'", "'smoke', 'laptop' or 'paper'")


@pytest.mark.parametrize("changes", [{"shapes.taget": "soft"}, {"densities": [-10]}, {"seed": "one"}])
def test_a_stage_refuses_bad_params_and_writes_nothing(workspace, run_stage, changes):
    folder = workspace(**changes)
    assert_one_line_error(run_stage("shapes.generate", "--density", 10), "params.yaml")
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]


def test_no_key_is_one_that_the_run_cache_passes_over():
    """DVC 3.67 leaves 'size' and 'nfiles' out of the key of its run cache, in parameters too: a change is not seen."""

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for item in value.values() for key in keys(item)}
        return {key for item in value for key in keys(item)} if isinstance(value, list) else set()

    for name in ("params.yaml", "sources.yaml"):
        assert not keys(YAML(typ="safe").load(REPOSITORY / name)) & {"size", "nfiles"}, name
