"""Read-outs and units, on activity with a planted relation to the counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from pipeline.localize import probe
from pipeline.localize.network import resnet18


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def counts() -> np.ndarray:
    return rng().integers(0, 40, size=(300, 2))


def test_targets():
    assert probe.targets(np.array([[3, 5]])).tolist() == [[3, 5, 2, 8]]


def test_r2_is_scikit_learns():
    true, predicted = rng().normal(size=(50, 3)), rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(probe.r2(true, predicted), r2_score(true, predicted, multioutput="raw_values"))
    assert np.isnan(probe.r2(np.ones((4, 1)), np.zeros((4, 1)))).all()


def test_what_is_there_is_read_and_what_is_not_is_not(counts):
    noise = rng(1).normal(size=(300, 20))
    circles = counts[:, 1] * 0.1
    features = np.column_stack([noise, circles + rng(2).normal(0, 0.01, 300)])
    value, low, high, error = probe.read_out(features, probe.targets(counts), rng())
    assert error[1] < 0.2  # shapes
    assert error[3] == pytest.approx(counts[:, 0].std(), rel=0.1)  # of the total, the squares are unknown
    squares, circles, difference, total = value
    assert circles > 0.99
    assert squares < 0.05
    assert 0.35 < difference < 0.65  # half of its variance is the circles'
    assert 0.35 < total < 0.65
    assert (low <= value).all()
    assert (value <= high).all()


def test_partial_correlations_hold_the_other_count(counts):
    squares, circles = counts.T.astype(float)
    units = np.column_stack([circles, -squares, circles + squares, np.zeros(300), rng(3).normal(size=300)])
    found = probe.partial_correlations(units, counts)
    np.testing.assert_allclose(found[0], [0, 1], atol=1e-6)
    np.testing.assert_allclose(found[1], [-1, 0], atol=1e-6)
    np.testing.assert_allclose(found[2], [1, 1], atol=1e-6)
    assert np.isnan(found[3]).all()  # a silent unit follows nothing
    assert (np.abs(found[4]) < 0.2).all()
    # with counts that go together, a unit of one is still not one of the other
    together = np.column_stack([counts[:, 0], counts[:, 0] + rng(4).integers(-3, 4, 300)])
    np.testing.assert_allclose(
        probe.partial_correlations(together[:, [1]].astype(float), together)[0], [0, 1], atol=1e-6
    )


def test_selective_units_follow_one_count_and_not_the_other():
    correlations = np.array([[0.9, 0.9], [0.1, -0.8], [np.nan, np.nan], [0.7, 0.0]])
    assert probe.selective(correlations, 1).tolist() == [1, 0, 3, 2]
    assert probe.selective(correlations, 0)[0] == 3


def test_ablation_by_hand():
    torch.manual_seed(0)  # where 2 of 3 images change, a mean of many 2/3 is not 2/3 to the last bit
    dense = torch.nn.Linear(2, 2)
    dense.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # square by the first unit, circle by the second
    dense.bias.data = torch.zeros(2)
    units = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]])  # means 2 and 3
    assert probe.ablate(units, np.array([], int), dense).tolist() == [True, False, True]
    assert probe.ablate(units, np.array([1]), dense).tolist() == [True, False, True]
    assert probe.ablate(units, np.array([0]), dense).tolist() == [False, False, True]
    rows = probe.ablations(units[:, [0, 1] * 32], np.array([[1, 2], [2, 1], [1, 2]]), {"circle": np.arange(64)},
                           torch.nn.Linear(64, 2), rng())  # fmt: skip
    assert [row["units"] for row in rows] == list(probe.ABLATED)
    assert rows[-1]["changed"] == rows[-1]["changed_by_chance"]  # all of them, chosen or not


def test_channel_means_are_of_what_each_block_gives():
    torch.manual_seed(0)
    network = resnet18().eval()
    pixels = rng().integers(0, 256, size=(3, 32, 32), dtype=np.uint8)
    means = probe.channel_means(network, pixels, torch.device("cpu"))
    assert [means[layer].shape[1] for layer in probe.LAYERS] == [64, 64, 64, 128, 128, 256, 256, 512, 512]
    with torch.no_grad():
        images = torch.from_numpy(pixels)[:, None].float() / 255
        logits = network(images).numpy()
        # the last block's means are what the dense layer decides from
        ours = network.fc(torch.from_numpy(means[probe.UNITS]).float()).numpy()
    np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-5)
