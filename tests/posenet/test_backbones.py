"""Feature maps against those of torchvision's own modules; paddings; weights that do not fit."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from conftest import published_inputs
from torch import nn
from torch.nn.functional import interpolate
from torchvision import models

from pipeline.padding import pad_with
from pipeline.posenet import backbones
from pipeline.posenet.backbones import Extractor, as_input, build, calibrate, load, node_names, read_out
from pipeline.stage import UserError


def pixels(images: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def extractor(name: str, network: nn.Module, how: str = "slices", size: int = 28) -> Extractor:
    return Extractor(name, network, node_names(name, None), how, size)


def as_the_reproduction(modules: list[nn.Module], stops: list[int], batch: torch.Tensor) -> torch.Tensor:
    """Each prefix of the network by itself, one image at a time, its maps resized as a volume (section 2.1)."""
    images = []
    for image in batch:
        maps = [nn.Sequential(*modules[:stop])(image.unsqueeze(0)) for stop in stops]
        volumes = [interpolate(m.unsqueeze(0), size=[3, 28, 28], mode="trilinear", align_corners=False) for m in maps]
        images.append(torch.cat([volume.view(3, 28, 28) for volume in volumes]))
    return torch.stack(images)


@torch.no_grad()
def test_vgg16_features_are_those_of_its_prefixes():
    torch.manual_seed(0)
    network = build("vgg16")
    batch = pixels()
    wanted = as_the_reproduction(list(network.features), [5, 10, 17, 24, 31], as_input("vgg16", batch))
    found = extractor("vgg16", network)
    torch.testing.assert_close(found(batch), wanted, atol=1e-5, rtol=1e-4)
    assert found.channels(batch) == dict.fromkeys(["conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"], 3)


@torch.no_grad()
def test_resnet_features_are_those_of_its_prefixes():
    torch.manual_seed(0)
    network = models.resnet152().eval()
    batch = pixels(1)
    wanted = as_the_reproduction(list(network.children()), [4, 5, 6, 7, 8], as_input("resnet152", batch))
    torch.testing.assert_close(extractor("resnet152", network)(batch), wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_all_channels_can_be_read():
    network = build("squeezenet1_1")
    found = extractor("squeezenet1_1", network, "channels")
    channels = found.channels(pixels())
    assert channels == {"conv1": 64, "fire3": 128, "fire5": 256, "fire7": 384, "fire9": 512}
    features = found(pixels())
    assert features.shape == (2, sum(channels.values()), 28, 28)
    first = network.features[:3](as_input("squeezenet1_1", pixels()))
    torch.testing.assert_close(
        features[:, :64], interpolate(first, (28, 28), mode="bilinear", align_corners=False), atol=1e-6, rtol=1e-5
    )


def test_slices_mix_two_channels_each():
    """64 channels resized to 3: at (i + 1/2) 64 / 3 - 1/2 = 10 1/6, 31 1/2, 52 5/6."""
    maps = torch.arange(64.0).view(1, 64, 1, 1).expand(1, 64, 5, 5)
    assert read_out(maps, "slices", 5)[0, :, 2, 2].tolist() == pytest.approx([10 + 1 / 6, 31.5, 52 + 5 / 6], rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_only_with_circular_padding_does_a_network_not_know_where_it_is(mode):
    """An image moved round the torus by the stride of the deepest layer moves its maps by one, and nothing else."""
    torch.manual_seed(0)
    network = pad_with(build(backbones.COUNTER), mode)
    calibrate(backbones.COUNTER, network, pixels(8, 128))
    batch = as_input(backbones.COUNTER, pixels(2, 128))
    body = nn.Sequential(*list(network.children())[:-2])
    moved = body(batch.roll((32, 64), (2, 3)))
    apart = (moved - body(batch).roll((1, 2), (2, 3))).abs().max().item()
    assert (apart < 1e-4) == (mode == "circular")
    assert body(batch).abs().max() > 0.1


@torch.no_grad()
def test_reflection_changes_the_border_alone():
    torch.manual_seed(0)
    zeros, reflect = build(backbones.COUNTER), build(backbones.COUNTER)
    reflect.load_state_dict(zeros.state_dict())
    pad_with(reflect, "reflect")
    batch = as_input(backbones.COUNTER, pixels(1, 128))
    apart = (zeros.relu(zeros.conv1(batch)) - reflect.relu(reflect.conv1(batch))).abs().amax(dim=(0, 1))
    assert apart[2:-2, 2:-2].max() == 0  # 7 x 7, stride 2, padding 3: two rows reach beyond the border
    assert apart.max() > 0
    assert zeros.maxpool(torch.ones(1, 1, 8, 8)).shape == reflect.maxpool(torch.ones(1, 1, 8, 8)).shape


@torch.no_grad()
def test_a_deep_random_network_is_calibrated():
    torch.manual_seed(0)
    network = build("resnet152")
    batch = as_input("resnet152", pixels(4))
    assert nn.Sequential(*list(network.children())[:8])(batch).std() > 1e3  # 50 sums of what is not normalised
    calibrate("resnet152", network, pixels(16))
    assert not network.training
    assert 0.1 < nn.Sequential(*list(network.children())[:8])(batch).std() < 100


def test_the_counter_is_the_shapes_networks_shape(tmp_path):
    from pipeline.shapes.network import build_network  # tests may look into both rooms

    torch.manual_seed(0)
    theirs = build_network().eval()
    safetensors.torch.save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "m.safetensors")
    ours = load(backbones.COUNTER, str(tmp_path / "m.safetensors"))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_published_weights_load():
    found = load("squeezenet1_1", str(published_inputs() / "weights/squeezenet1_1.pth"))
    assert found.features[0].weight.std() > 0.1  # random ones: 0.08
    assert torch.isfinite(extractor("squeezenet1_1", found)(pixels())).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv1.weight": torch.zeros(3)}, r"no weights of squeezenet1_1: .*Missing key.*features\.0\.weight"),
        ([1, 2], "no weights of squeezenet1_1"),
    ],
)
def test_weights_of_another_architecture_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=message):
        load("squeezenet1_1", str(tmp_path / "other.pth"))


def test_files_that_are_not_what_they_say(tmp_path):
    with pytest.raises(UserError, match=r"posenet.weights.vgg16 = 'nowhere.pth': no such file"):
        load("vgg16", "nowhere.pth")
    (tmp_path / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="does not begin with b8a52dc0"):
        load("squeezenet1_1", str(tmp_path / "squeezenet1_1-b8a52dc0.pth"))
    (tmp_path / "text.pth").write_bytes(b"not weights")
    with pytest.raises(UserError, match="no weights of squeezenet1_1"):
        load("squeezenet1_1", str(tmp_path / "text.pth"))


def test_an_unknown_layer_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"no layer 'conv3_4' \(did you mean conv3_3.*vgg16 has conv1_2, .*features\.29"
    ):
        node_names("vgg16", ["conv3_4"])
    assert node_names("vgg16", ["conv3_3", "features.7"]) == {"conv3_3": "features.16", "features.7": "features.7"}
    with pytest.raises(UserError, match="no backbone 'alexnet'; should be one of pixels, vgg16"):
        build("alexnet")


def test_a_layer_without_maps_is_named():
    found = Extractor("squeezenet1_1", build("squeezenet1_1"), node_names("squeezenet1_1", ["flatten"]), "slices", 28)
    with pytest.raises(UserError, match="'flatten' has no maps"):
        found(pixels())


def test_images_too_small_to_be_reflected_are_named():
    network = pad_with(build("squeezenet1_1"), "reflect")
    with pytest.raises(UserError, match=r"image_size = 32: too small for squeezenet1_1.*'reflect'"):
        extractor("squeezenet1_1", network)(pixels(1, 32))
