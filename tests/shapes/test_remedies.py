"""What may remove the bias: the recipes, and the table that compares them."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, assert_one_line_error, run_killed
from scipy.stats import ttest_rel
from torch import nn

from pipeline.params import load_params
from pipeline.shapes import remove_bias
from pipeline.shapes.dataset import Images
from pipeline.shapes.network import build_network
from pipeline.shapes.paths import margin_name, split_name
from pipeline.shapes.remedies import (
    RECIPES,
    Blur,
    antialiased,
    averaged_weights,
    balanced_margins,
    differing,
    group_normalised,
    small_margins,
    with_momentum,
)
from pipeline.stage import UserError
from pipeline.statistics.tests import holm


def images(margins: list[int]) -> Images:
    circles = 20 + np.array(margins)
    return Images(
        [str(i) for i in range(len(margins))], np.zeros((len(margins), 4, 4), np.uint8), circles, circles * 0 + 20
    )


def test_small_margins_are_within_8_and_each_as_often():
    places = small_margins(images([9, 8, -8, -20, 0]), 7, np.random.default_rng(0))
    assert sorted(places) == [1, 1, 1, 2, 2, 4, 4] or np.bincount(places, minlength=5).tolist() == [0, 2, 2, 0, 3]
    assert set(places[:3]) == set(places[3:6]) == {1, 2, 4}


def test_balanced_margins_are_as_often_positive_as_negative():
    """Margin 4 has six images and -4 two: four each are wanted; 6 has no counterpart."""
    places = balanced_margins(images([4] * 6 + [-4] * 2 + [6] * 5 + [0] * 2), 20_000, np.random.default_rng(0))
    share = np.array([np.mean(places < 6), np.mean((places >= 6) & (places < 8)), np.mean(places >= 13)])
    assert share == pytest.approx([0.4, 0.4, 0.2], abs=0.015)
    assert not np.any((places >= 8) & (places < 13))


def test_blur_is_a_triangle_and_keeps_every_second_pixel():
    x = torch.zeros(1, 2, 6, 6)
    x[0, 0, 2, 2] = 16.0
    y = Blur()(x)
    assert y.shape == (1, 2, 3, 3)
    assert y[0, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]  # 2/4 of it along either axis
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 3, 3] = 16.0
    assert Blur()(x)[0, 0, 1:, 1:].tolist() == [[1, 1], [1, 1]]  # a quarter along either axis, to either side
    assert Blur()(torch.ones(1, 3, 5, 5)).unique().tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("name", ["group_normalisation", "antialiased", "circular_padding"])
def test_changed_networks_have_the_same_layers_and_answers_of_two(name):
    torch.manual_seed(0)
    network = RECIPES[name].change(build_network()).eval()
    assert network(torch.rand(3, 1, 64, 64)).shape == (3, 2)
    convolutions = [module.weight.shape for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions == [m.weight.shape for m in build_network().modules() if isinstance(m, nn.Conv2d)]


def test_a_group_normalised_network_knows_no_other_images_of_its_batch():
    torch.manual_seed(0)
    network, x = group_normalised(build_network()), torch.rand(4, 1, 64, 64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not list(network.buffers())
    torch.testing.assert_close(network.train()(x)[:1], network.eval()(x[:1]), atol=1e-4, rtol=1e-4)


def test_the_antialiased_network_has_one_strided_convolution():
    layers = [m for m in antialiased(build_network()).modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    strided = [layer for layer in layers if layer.stride in (2, (2, 2))]
    assert [type(module).__name__ for module in strided] == ["Conv2d"]
    assert strided[0].kernel_size == (7, 7)


def test_averaged_weights_are_an_exponential_mean():
    layer = nn.Linear(1, 1, bias=False)
    mean = averaged_weights(layer)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(layer.weight, value)
        mean.update_parameters(layer)
    # the first is taken as it is; then 0.98 of the mean and 0.02 of the new
    assert mean.module.weight.item() == pytest.approx(0.98 * (0.98 * 1 + 0.02 * 2) + 0.02 * 3)
    again = averaged_weights(nn.Linear(1, 1, bias=False))
    again.load_state_dict(mean.state_dict())
    assert again.module.weight.item() == mean.module.weight.item()


def test_what_a_scale_has_anyway_is_no_recipe(workspace):
    workspace()
    assert set(RECIPES) - set(differing(load_params())) == {"one_cycle_rate"}


def answers(recipe: str, shares: list[float], correct: list[float]) -> pd.DataFrame:
    """Ten images a set. shares: of 'circle' in each run on all margin sets; correct: on all test sets."""
    tables = []
    for number, (share, right) in enumerate(zip(shares, correct, strict=True)):
        for condition in [*(split_name(of, "test") for of in (10, 50)), *(margin_name(50, m) for m in (-4, -2, 2, 4))]:
            circle = np.arange(10) < round(10 * share)
            majority = "margin-" not in condition
            tables.append(
                pd.DataFrame(
                    {
                        "condition": condition,
                        "image": [f"{i}" for i in range(10)],
                        "response": np.where(circle, "circle", "square"),
                        "correct": np.arange(10) < 10 * right if "test" in condition else circle == majority,
                        "recipe": recipe,
                        "density": 50,
                        "run": number,
                    }
                )
            )
    return pd.concat(tables)


def test_measures_and_differences_by_hand(workspace):
    workspace(densities=[10, 50], **{"shapes.margins": [-4, -2, 2, 4]})
    params = load_params()
    before = remove_bias.measure(answers("as_trained", [0.9, 0.8, 1.0], [0.8, 0.7, 0.9]), 50, params)
    after = remove_bias.measure(answers("antialiased", [0.6, 0.6, 0.9], [0.8, 0.8, 0.8]), 50, params)
    assert before["bias"].tolist() == pytest.approx([0.4, 0.3, 0.5])
    assert before["own"].tolist() == pytest.approx([0.8, 0.7, 0.9])
    assert before["small_margins"].tolist() == pytest.approx([0.5] * 3)  # 'circle' as often to either side
    assert before["pse"].isna().all()  # whose answers do not rise with the margin
    found = remove_bias.compare({"as_trained": before, "antialiased": after, "regression": before})
    expected = ttest_rel(after["bias"], before["bias"])
    difference = found["antialiased"]["bias"]["difference"]
    interval = expected.confidence_interval()
    assert [difference[key] for key in ("mean", "low", "high")] == pytest.approx(
        [(-0.3 - 0.2 - 0.1) / 3, interval.low, interval.high]
    )
    assert difference["p"] == pytest.approx(holm(np.array([expected.pvalue, 1.0]))[0])
    assert found["regression"]["bias"]["difference"]["mean"] == 0
    assert "difference" not in found["as_trained"]["bias"]
    assert found["antialiased"]["pse"]["difference"] is None


def test_recipes_of_a_recorded_table_come_out_as_they_went_in(workspace):
    """Run by run, and compared anew; what is no such table is named."""
    workspace()
    recorded = REPOSITORY / "results/laptop/shapes-remedies/remedies.json"
    before = remove_bias.on_record(str(recorded), 50, 3)
    table = json.loads(recorded.read_text())["recipes"]
    again = remove_bias.compare(before)
    assert list(again) == list(table)
    for name, of in product(table, remove_bias.MEASURES):
        np.testing.assert_allclose(again[name][of]["by_run"], np.array(table[name][of]["by_run"], dtype=float))
        if table[name][of].get("difference"):
            new, old = again[name][of]["difference"], table[name][of]["difference"]
            assert [new[key] for key in ("mean", "low_all")] == pytest.approx([old["mean"], old["low_all"]], abs=1e-3)
    assert remove_bias.on_record("", 50, 3) == {}
    with pytest.raises(UserError, match="of density 50 and 3 runs, but --density 50 and --runs 4"):
        remove_bias.on_record(str(recorded), 50, 4)
    with pytest.raises(UserError, match="not there"):
        remove_bias.on_record("nowhere.json", 50, 3)
    for content in ("", "[1, 2]", '{"density": 50}', '{"density": 50, "runs": 3, "recipes": {"regression": {}}}'):
        Path("other.json").write_text(content)
        with pytest.raises(UserError, match=r"--onto other\.json: not a table that this command wrote"):
            remove_bias.on_record("other.json", 50, 3)
    table["half_the_rate"] = table["regression"]
    Path("other.json").write_text(json.dumps({"density": 50, "runs": 3, "recipes": table}))
    with pytest.raises(UserError, match=r"--onto other\.json: has half_the_rate; allowed are as_trained, "):
        remove_bias.on_record("other.json", 50, 3)


def test_momentum_is_that_of_every_running_mean():
    network = with_momentum(build_network(), 0.5)
    norm = network.bn1.train()
    norm(torch.full((2, 64, 2, 2), 8.0))
    norm(torch.full((2, 64, 2, 2), 4.0))
    assert norm.running_mean.tolist() == [4.0] * 64  # (0 + 8) / 2, then (4 + 4) / 2
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.5}


SETTINGS = {"shapes.margin_densities": [10], "shapes.margins": [-4, -2, 2, 4]}
COMMAND = ("shapes.remove_bias", "--runs", 2, "--jobs", 1, "--density", 10, "--only", "averaged_weights")


@pytest.mark.slow
def test_killed_and_run_again_it_ends_in_the_same_table(workspace, run_stage):
    workspace(densities=[10, 50], **SETTINGS)
    one = ("shapes.remedies", "--density", 10, "--run", 0, "--recipe")
    assert_one_line_error(
        run_stage(*one, "as_trained"), "data/shapes/train/density-10.tar: not there", "generate_shapes"
    )
    assert_one_line_error(run_stage(*one, "prayer"), "--recipe prayer: not one of as_trained, ties_half_and_half")
    assert run_stage("shapes.margin_sets").returncode == 0
    for density in (10, 50):
        assert run_stage("shapes.generate", "--density", density).returncode == 0
    assert run_stage(*one, "all_densities").returncode == 0
    assert len(list(Path("report/remedies").glob("*all_densities*.parquet"))) == 1
    run_killed(*COMMAND, wait_for="report/remedies/*as_trained*.parquet", moments=random.Random(0), spread=0.5)
    done = {path: path.stat().st_mtime_ns for path in Path("report/remedies").glob("*.parquet")}
    assert run_stage(*COMMAND).returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    table = Path("report/remedies.json").read_bytes()
    recipes = json.loads(table)["recipes"]
    assert list(recipes) == ["as_trained", "averaged_weights"]
    assert all(len(recipe["bias"]["by_run"]) == 2 for recipe in recipes.values())
    assert Path("report/remedies.png").stat().st_size > 10_000
    next(Path("report").rglob("averaged_weights*.parquet")).unlink()
    assert run_stage(*COMMAND).returncode == 0  # trained again, in the same bytes
    assert Path("report/remedies.json").read_bytes() == table
    assert_one_line_error(run_stage("shapes.remove_bias", "--density", 20), "--density 20: not one of densities")
    assert_one_line_error(run_stage("shapes.remove_bias", "--runs", 1), "--runs 1: at least 2 are needed")
    other = run_stage("shapes.remove_bias", "--only", "prayer")
    assert_one_line_error(other, "--only prayer: not among as_trained, ties_half_and_half")
