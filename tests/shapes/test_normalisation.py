"""Other statistics in batch normalisation: what networks answer then, and what they gain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import assert_one_line_error
from safetensors.torch import load_file
from scipy.stats import ttest_1samp
from torch.optim.swa_utils import update_bn

from pipeline.params import load_params
from pipeline.shapes.answers import rates_over_runs
from pipeline.shapes.dataset import load_images
from pipeline.shapes.network import as_input, build_network
from pipeline.shapes.normalisation import AS_SAVED, summary
from pipeline.shapes.paths import margin_name, split_name
from pipeline.shapes.readings import OWN, TESTED, renormalised

DENSITIES = [10, 50, 90]


def decisions(right: dict[tuple[int, int], float], circle: dict[int, float]) -> pd.DataFrame:
    """Ten images a set, one run. right: share by network and test set; circle: share of each network on margin sets."""
    tables = []
    for network in DENSITIES:
        sets = {split_name(test, "test"): right[network, test] for test in DENSITIES}
        for condition, share in sets.items():
            correct = np.arange(10) < round(10 * share)
            tables.append(pd.DataFrame({"condition": condition, "correct": correct, "response": "square"}))
        for margin in (-2, 2):
            response = np.where(np.arange(10) < round(10 * circle[network]), "circle", "square")
            tables.append(pd.DataFrame({"condition": margin_name(10, margin), "correct": False, "response": response}))
        for table in tables[-5:]:
            table["density"], table["run"], table["image"] = network, 0, [str(i) for i in range(10)]
    return pd.concat(tables)


def test_what_a_reading_gains_by_hand(workspace):
    workspace(densities=DENSITIES, **{"shapes.margin_densities": [10, 100], "shapes.margins": [-2, 2]})
    cells = [(network, test) for network in DENSITIES for test in DENSITIES]
    before = dict(zip(cells, (0.9, 0.7, 0.5, 0.6, 0.9, 0.8, 0.5, 0.6, 0.9), strict=True))
    after = dict(zip(cells, (0.9, 0.8, 0.7, 0.8, 0.9, 0.8, 0.8, 0.6, 0.9), strict=True))
    rates = {
        AS_SAVED: rates_over_runs(decisions(before, {10: 1.0, 50: 0.0, 90: 0.7})),
        OWN: rates_over_runs(decisions(before, {10: 1.0, 50: 0.0, 90: 0.7})),
        TESTED: rates_over_runs(decisions(after, {10: 0.6, 50: 0.5, 90: 0.7})),
    }
    found = summary(rates, load_params())
    assert found["as_saved"]["other_sets"]["mean"] == pytest.approx((0.6 + 0.7 + 0.55) / 3)
    assert found["as_saved"]["own_over_other_sets"]["mean"] == pytest.approx((0.3 + 0.2 + 0.35) / 3)
    assert found["as_saved"]["bias"]["mean"] == pytest.approx((0.5 + 0.5 + 0.2) / 3)  # 100 has no training images
    # sparser on denser minus denser on sparser: 0.7 - 0.6, 0.5 - 0.5, 0.8 - 0.6; then 0.8 - 0.8, 0.7 - 0.8, 0.8 - 0.6
    assert found["as_saved"]["sparser_generalise_better"]["value"] == pytest.approx(0.1)
    gain = found["gain_with_tested_density"]
    assert gain["sparser_generalise_better"]["value"] == pytest.approx((0 - 0.1 + 0.2) / 3 - 0.1)
    gains = [0.75 - 0.6, 0.8 - 0.7, 0.7 - 0.55]
    expected = ttest_1samp(gains, 0).confidence_interval()
    assert gain["other_sets"] == {
        "mean": pytest.approx(np.mean(gains)),
        "low": pytest.approx(expected.low),
        "high": pytest.approx(expected.high),
        "networks": 3,
    }
    assert gain["bias"]["mean"] == pytest.approx((0.1 + 0.0 + 0.2) / 3 - 0.4)
    assert gain["cells"] == {"rise": 4, "fall": 0, "of": 6}
    unmoved = found["gain_with_own_density"]
    assert (unmoved["other_sets"]["mean"], unmoved["cells"]["rise"], unmoved["cells"]["fall"]) == (0, 0, 0)


@pytest.mark.slow
def test_answers_are_those_of_the_same_weights_with_other_statistics(workspace, run_stage):
    settings = {"shapes.margin_densities": [10], "shapes.margins": [-2, 2], "shapes.runs": [0]}
    folder = workspace(densities=[10, 50], **settings)
    assert run_stage("shapes.margin_sets").returncode == 0
    for density in (10, 50):
        assert run_stage("shapes.generate", "--density", density).returncode == 0
    missing = run_stage("shapes.renormalise", "--density", 50)
    assert_one_line_error(missing, "models/shapes/paper/M50-run0.safetensors")
    assert run_stage("shapes.train", "--density", 50).returncode == 0
    assert run_stage("shapes.renormalise", "--density", 50).returncode == 0
    found = pd.read_parquet(folder / renormalised(50)).astype({"condition": str, "response": str, "reading": str})
    sets = {"test/density-10", "test/density-50", margin_name(10, -2), margin_name(10, 2)}
    assert set(found["condition"]) == sets
    assert found.groupby("reading").size().to_dict() == {OWN: 2 * 12 + 2 * 4, TESTED: 2 * 12 + 2 * 4}

    weights = load_file(Path("models/shapes/paper/M50-run0.safetensors"))
    for reading, statistics in ((OWN, 50), (TESTED, 10)):
        network = build_network()
        network.load_state_dict(weights)
        pixels = torch.from_numpy(load_images(split_name(statistics, "train"), first=32).pixels)
        update_bn((as_input(batch) for batch in pixels.split(16)), network)
        with torch.inference_mode():
            logits = network.eval()(as_input(torch.from_numpy(load_images("test/density-10").pixels)))
        rows = found[(found["reading"] == reading) & (found["condition"] == "test/density-10")]
        clear = (logits[:, 0] - logits[:, 1]).abs() > 0.02  # whatever the precision of the stage
        expected = np.array(["square", "circle"])[logits.argmax(dim=1)]
        assert clear.any()
        assert (rows["response"].to_numpy() == expected)[clear.numpy()].all()
