"""The network, its targets and its decisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models import get_model, resnet18

from pipeline import training
from pipeline.shapes.network import as_input, build_network, credit, for_large, majority_targets, predict_logits
from pipeline.shapes.paths import ARCHITECTURE
from pipeline.shapes.train import update
from pipeline.stage import UserError
from pipeline.training import load_weights, save_weights

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
MARGINS = np.array([-3, 0, 5])


def test_hard_targets_code_ties_as_squares():
    assert majority_targets(MARGINS, "hard").tolist() == [[1, 0], [1, 0], [0, 1]]


def test_soft_targets_code_ties_as_half_and_half():
    assert majority_targets(MARGINS, "soft").tolist() == [[1, 0], [0.5, 0.5], [0, 1]]


def test_credit_is_accuracy_with_ties_worth_half():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    assert credit(logits, torch.from_numpy(majority_targets(MARGINS, "hard"))).tolist() == [1, 0, 0]
    assert credit(logits, torch.from_numpy(majority_targets(MARGINS, "soft"))).tolist() == [1, 0.5, 0]


def test_it_is_torchvisions_resnet18_but_for_the_input_channel():
    ours, theirs = build_network().state_dict(), resnet18(num_classes=2).state_dict()
    assert list(ours) == list(theirs)
    differ = [name for name in ours if ours[name].shape != theirs[name].shape]
    assert differ == ["conv1.weight"]
    assert ours["conv1.weight"].shape == (64, 1, 7, 7)
    assert ours["conv1.weight"].std().item() == pytest.approx(theirs["conv1.weight"].std().item(), rel=0.1)


@pytest.mark.parametrize(
    "architecture", ["regnet_y_400mf", "shufflenet_v2_x1_0", "densenet121", "googlenet", "squeezenet1_1"]
)
def test_other_classifiers_of_torchvision_take_one_channel_too(architecture):
    ours = build_network(architecture).state_dict()
    theirs = get_model(architecture, num_classes=2, **({"init_weights": False} if architecture == "googlenet" else {}))
    theirs = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("aux")}
    differ = {name: ours[name].shape for name in theirs if ours[name].shape != theirs[name].shape}
    (shape,) = differ.values()
    assert shape[1] == 1
    assert build_network(architecture)(torch.rand(2, 1, 64, 64)).shape == (2, 2)


def test_an_unknown_architecture_is_named_with_its_neighbours():
    with pytest.raises(UserError, match=r"shapes.variants.architectures: 'resnet19'.*resnet18"):
        build_network("resnet19")


@pytest.mark.parametrize("resolution", [32, 64, 96])
def test_the_network_computes_what_torchvisions_does(resolution):
    torch.manual_seed(0)
    ours, theirs = build_network().eval(), resnet18(num_classes=2).eval()
    theirs.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(3, 1, resolution, resolution)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_pixels_become_floats_from_0_to_1():
    x = as_input(torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8))
    assert x.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(x.flatten(), [0, 0.2, 0.4, 1], rtol=1e-6)


def test_predictions_do_not_depend_on_batches_or_mode():
    torch.manual_seed(0)
    network = build_network()
    pixels = torch.randint(0, 256, (10, 32, 32), dtype=torch.uint8)
    whole = predict_logits(network, pixels)
    assert network.training
    assert whole.shape == (10, 2)
    torch.testing.assert_close(predict_logits(network.eval(), pixels, batch_size=3), whole, atol=1e-4, rtol=1e-4)


def warmed(architecture: str = ARCHITECTURE) -> torch.nn.Module:
    """A network whose batch normalisations have statistics and weights of their own."""
    torch.manual_seed(0)
    network = build_network(architecture)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2)
                module.bias.uniform_(-0.2, 0.2)
                module.momentum = None  # the mean over all batches
        network(as_input(images(4, 128)))
    return network


def images(number: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, size, size), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def plainly(network: torch.nn.Module, pixels: torch.Tensor, batch_size: int = 128) -> torch.Tensor:
    network.eval()
    return torch.cat([network(as_input(batch)).float() for batch in pixels.split(batch_size)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_small_images_are_answered_by_the_network_itself_bit_for_bit(precision):
    network, pixels = warmed(), images(130, 64)
    with training.autocast(precision, torch.device("cpu")):
        assert torch.equal(predict_logits(network, pixels), plainly(network, pixels))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "architecture", [ARCHITECTURE, "regnet_y_400mf", "shufflenet_v2_x1_0", "densenet121", "squeezenet1_1"]
)
def test_large_images_are_answered_as_the_plain_network_answers_them(architecture, precision):
    network, pixels = warmed(architecture), images(10, 128)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with training.autocast(precision, torch.device("cpu")):
        found, again = predict_logits(network, pixels), predict_logits(network, pixels)
    assert network.training
    assert all(module.training for module in network.modules())
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(again, found)
    with training.autocast(precision, torch.device("cpu")):
        plain = plainly(network, pixels)
    within = 1e-4 if precision == "fp32" else 2**-6 * plain.abs().max().item()  # bf16 has 8 bits
    torch.testing.assert_close(found, plain, atol=within, rtol=1e-4)


def test_a_guest_answers_large_images_itself():
    class Guest(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([1.0, -1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.weight * float(image.mean()) for image in x])

    guest, pixels = Guest(), images(9, 256)
    with training.autocast("bf16", torch.device("cpu")):
        assert for_large(guest) is guest
        torch.testing.assert_close(predict_logits(guest, pixels)[:, 0], pixels.float().mean(dim=(1, 2)) / 255)


def test_only_under_autocast_large_images_are_asked_of_a_copy_with_weights_that_are_cast():
    def precisions(network: torch.nn.Module) -> set[torch.dtype]:
        return {m.weight.dtype for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}

    network = build_network().eval()
    assert for_large(network) is network
    with training.autocast("bf16", torch.device("cpu")):
        copied = for_large(network)
    assert precisions(copied) == {torch.bfloat16}
    assert precisions(network) == {torch.float32}
    assert not copied.training


def test_weights_round_trip_and_other_architectures_are_refused(tmp_path):
    network, other = build_network(), build_network()
    save_weights(tmp_path / "w.safetensors", network)
    load_weights(tmp_path / "w.safetensors", other)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    with pytest.raises(UserError, match=r"w\.safetensors: does not fit ResNet"):
        load_weights(tmp_path / "w.safetensors", resnet18())
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"w\.safetensors: does not fit"):
        load_weights(tmp_path / "w.safetensors", other)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("cpu", "aot_eager"),
        pytest.param(
            "cuda", "inductor", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
def test_a_compiled_step_learns_as_an_eager_one_does(kind, backend):
    """What `compiled` gives on CUDA; on a CPU, where it gives the network itself, the same without code generation."""
    device = torch.device(kind)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 96, 96), dtype=torch.uint8, generator=generator).to(device)
    targets = torch.eye(2)[torch.arange(8) % 2].to(device)
    weights = []
    for compile_it in (False, True):
        torch.manual_seed(0)
        network = build_network(ARCHITECTURE).to(device)
        look = torch.compile(network, backend=backend) if compile_it else network
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        losses = [update(look, optimizer, pixels, targets, "fp32")["loss"].item() for _ in range(3)]
        weights.append((losses, network.state_dict()))
    (eager, plain), (found, kept) = weights
    assert found == pytest.approx(eager, rel=1e-3)
    assert kept.keys() == plain.keys()  # saved under the names that are read back
    assert found[0] > found[-1]
    assert training.compiled(network, torch.device("cpu")) is network
