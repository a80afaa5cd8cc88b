"""Both readings of a network, against batch statistics computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.shapes.dataset import Images
from pipeline.shapes.epochs import EpochRecord, re_estimated


def network(*, normalised: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3) if normalised else nn.GroupNorm(1, 3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(3 * 6 * 6, 2))


def pixels(number: int) -> torch.Tensor:
    return torch.randint(0, 256, (number, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_statistics_are_the_mean_of_the_batches_own():
    trained = network()
    trained[1].running_mean.fill_(7)
    images = pixels(11)  # two batches of five; the last image is left out
    got = re_estimated(trained, images, batch_size=5, precision="fp32")
    with torch.no_grad():
        maps = [trained[0](batch.unsqueeze(1) / 255).transpose(0, 1).flatten(1) for batch in images[:10].split(5)]
    means = torch.stack([part.mean(1) for part in maps]).mean(0)
    variances = torch.stack([part.var(1, correction=1) for part in maps]).mean(0)
    torch.testing.assert_close(got[1].running_mean, means)
    torch.testing.assert_close(got[1].running_var, variances)
    assert torch.equal(got[0].weight, trained[0].weight)
    assert (trained[1].running_mean == 7).all()  # the network itself is as it was


def record(sets: dict[str, Images]) -> EpochRecord:
    targets = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    return EpochRecord(sets, targets, pixels(10), batch_size=5, precision="fp32")


@pytest.fixture
def sets() -> dict[str, Images]:
    images = pixels(5).numpy()
    counts = np.array([4, 9, 3, 8, 2])
    made = {}
    for name, part in {"test": slice(3), "margin": slice(3, 5)}.items():
        keys = [f"{i:06d}" for i in range(5)][part]
        made[name] = Images(keys=keys, pixels=images[part], circles=counts[part], squares=counts[part][::-1])
    return made


def test_a_table_of_every_epoch_reading_and_image(sets):
    trained, kept = network().train(), record(sets)
    trained[1].running_mean.fill_(0.3)
    found = kept.read(trained)
    trained[3].bias.data += torch.tensor([0.0, 50.0])  # from now on everything is a circle
    kept.read(trained)
    assert trained.training
    table = kept.table()
    assert len(table) == 2 * 2 * 5
    first = table[(table["epoch"] == 1) & (table["reading"] == "as saved")]
    logits = trained.eval()(torch.from_numpy(np.concatenate([s.pixels for s in sets.values()])).unsqueeze(1) / 255)
    difference = (logits[:, 1] - logits[:, 0] - 50).detach().numpy()
    np.testing.assert_allclose(first["logit_difference"], difference, rtol=2e-3, atol=1e-4)
    right = [difference[0] <= 0, difference[1] > 0, difference[2] <= 0]
    assert found["test_accuracy"] == pytest.approx(np.mean(right))
    assert (table.loc[table["epoch"] == 2, "logit_difference"] > 0).all()
    assert first["condition"].tolist() == ["test"] * 3 + ["margin"] * 2
    assert first["circles"].tolist() == [4, 9, 3, 8, 2]
    assert first["squares"].tolist() == [3, 9, 4, 2, 8]


def test_a_network_without_batch_normalisation_has_one_reading(sets):
    kept = record(sets)
    assert set(kept.read(network(normalised=False))) == {"test_loss", "test_accuracy"}
    assert set(kept.table()["reading"]) == {"as saved"}


def test_it_continues_from_its_state(sets):
    trained, whole, continued = network(), record(sets), record(sets)
    whole.read(trained)
    continued.load_state_dict(whole.state_dict())
    whole.read(trained), continued.read(trained)
    assert whole.table().equals(continued.table())
