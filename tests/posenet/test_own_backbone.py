"""A backbone of one's own: its maps as its modules give them, its training as torch's own, mistakes said in a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import assert_one_line_error, published_inputs
from torch import nn
from torch.nn.functional import conv2d, interpolate, mse_loss
from torchvision import models
from torchvision.transforms.functional import normalize

from pipeline.posenet import score_own
from pipeline.posenet.backbones import MEAN, STD
from pipeline.posenet.network import Cell, PosENets, initial
from pipeline.posenet.own_backbone import OwnExtractor, as_maps, load_backbone
from pipeline.posenet.patterns import pattern
from pipeline.stage import UserError
from pipeline.training import save_weights

RESNET, VIT = "torchvision:resnet18", "timm:vit_tiny_patch16_224"


def pixels(images: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def extractor(backbone: str, network: nn.Module, *layers: str) -> OwnExtractor:
    return OwnExtractor(backbone, network, list(layers), MEAN, STD, 28)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images, bright at the right, one of them grey, and one that is none."""
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 60, (48, 64, 3))
        image = (noise + np.linspace(0, 190, 64)[:, None]).astype(np.uint8)
        cv2.imwrite(str(place / f"{number}.png"), image[..., 0] if number == 5 else image)
    (place / "broken.jpg").write_bytes(b"no image")
    return place


@torch.no_grad()
def test_layers_are_read_as_their_modules_give_them():
    torch.manual_seed(0)
    network, mean, std = load_backbone(RESNET, "none")
    assert (mean, std, network.training) == (MEAN, STD, False)
    x = network.conv1(normalize(pixels() / 255, list(MEAN), list(STD)))
    before = network.bn1(x)  # the ReLU after it works in place: what is read must be from before
    after = network.layer1(network.maxpool(before.relu()))
    volumes = [interpolate(maps.unsqueeze(1), (3, 28, 28), mode="trilinear").squeeze(1) for maps in (before, after)]
    found = extractor(RESNET, network, "bn1", "layer1")
    torch.testing.assert_close(found(pixels()), torch.cat(volumes, dim=1), atol=1e-5, rtol=1e-4)
    assert before.min() < 0
    assert found.channels() == {"bn1": 3, "layer1": 3}


@torch.no_grad()
def test_tokens_of_a_timm_model_are_laid_out_by_their_places():
    torch.manual_seed(0)
    network, *_ = load_backbone(VIT, "none")
    patches = network.patch_embed(normalize(pixels(1, 224) / 255, list(MEAN), list(STD)))  # [1, 196, 192]
    (maps,) = extractor(VIT, network, "patch_embed").maps(pixels(1, 224))
    assert maps.shape == (1, 192, 14, 14)
    torch.testing.assert_close(maps[0, :, 3, 5], patches[0, 3 * 14 + 5])
    (deep,) = extractor(VIT, network, "blocks.0").maps(pixels(1, 224))  # with a token of the class before
    assert deep.shape == (1, 192, 14, 14)


def test_outputs_with_and_without_places():
    first = torch.arange(2 * 5 * 3 * 3).view(2, 5, 3, 3)
    assert torch.equal(as_maps(first), first)
    assert torch.equal(as_maps(first.permute(0, 2, 3, 1)), first)  # channels last
    tokens = torch.cat([torch.zeros(2, 2, 5), first.flatten(2).transpose(1, 2)], dim=1)  # two that have no place
    assert torch.equal(as_maps(tokens), first.float())
    for nowhere in (torch.zeros(2, 5), torch.zeros(2, 5, 1, 1), torch.zeros(2, 1, 5), torch.zeros(2, 5, 3, 4)):
        assert as_maps(nowhere) is None


def test_training_is_torchs_own_of_one_convolution():
    features = torch.randn(9, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    cell = Cell("all", 3, 0, "G", 0)
    weight, bias = (part.clone().requires_grad_() for part in initial(cell, 3, score_own.SEED))
    optimizer = torch.optim.Adam([weight, bias], 1e-3, weight_decay=1e-4)  # as published, like what follows
    target = torch.from_numpy(pattern("G", 26)).expand(4, 1, 26, 26)
    for epoch in range(15):
        order = score_own.item_rng(score_own.SEED, f"posenet/epoch-{epoch}").permutation(9)
        for chosen in (order[:4], order[4:8]):
            optimizer.zero_grad()
            mse_loss(conv2d(features[chosen], weight[None], bias[None]), target).backward()
            optimizer.step()
    network = PosENets([cell, Cell("all", 3, 0, "H", 0)], {"a": 3}, score_own.SEED)
    score_own.learn(network, features)
    torch.testing.assert_close(network.weights["all-3"][0], weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.biases["all-3"][0], bias, atol=1e-5, rtol=1e-4)


def test_a_place_that_images_show_is_read(folder):
    """Grey that rises to the right is the pattern H: the least squares find it, in pixels too; V is not there."""
    seen, outcomes = score_own.load_images(folder, 32, 100)
    assert outcomes == {"cannot be decoded": 1, "mode L": 1, "mode RGB": 11}
    maps = np.float32(seen.mean(axis=1, keepdims=True))
    assert maps.shape == (12, 1, 32, 32)
    rows = score_own.read_position(maps[..., :28, :28], {"pixels": 1}, 9, ["a", "b", "c"])
    best = rows[rows["reading"] == "optimum"].groupby("pattern")["spearman"].min()
    assert best["H"] > 0.9
    assert rows[rows["pattern"] == "V"]["spearman"].abs().max() < 0.2
    assert len(rows) == (score_own.RUNS + 1) * 5 * 3


def test_from_a_folder_to_table_2(folder, tmp_path, run_stage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--backbone", RESNET, "--layers", "conv1,layer1", "--images", folder, "--out", "out", "--size", 32)
    result = run_stage("posenet.score_own", *options)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv("out/table2.csv")
    networks, images = ["pixels/raw", f"{RESNET}/random"], ["black", "held-out", "noise", "white"]
    together = table[table["inputs"] == "all"].set_index(["reading", "network", "pattern", "image"])
    assert together.index.is_unique
    assert len(together) == 2 * 2 * 5 * 4
    assert (sorted(set(table["network"])), sorted(set(table["image"]))) == (networks, images)
    assert set(table["inputs"]) == {"all", "conv1", "layer1"}
    flat = together.xs("pixels/raw", level="network").xs("white", level="image")
    assert flat["spearman"].isna().all()  # as in the published table: the map of a constant image is constant
    held = together.xs("held-out", level="image")
    assert held["spearman"].between(-1, 1).all()
    assert (held["mae_low"] <= held["mae"]).all()
    scores = json.loads(Path("out/scores.json").read_text())
    assert (scores["train"], scores["held_out"], scores["outcomes"]["cannot be decoded"]) == (10, 2, 1)
    cell = held.loc[("adam", f"{RESNET}/random", "H")]
    line = next(line for line in result.stdout.splitlines() if line.startswith(f"H    {RESNET}"))
    assert f"{cell['spearman']:.2f} [{cell['spearman_low']:.2f}, {cell['spearman_high']:.2f}]" in line
    assert f" {cell['mae']:.2f} " in line


def test_trained_weights_of_a_file(tmp_path):
    path = tmp_path / "squeezenet.safetensors"
    network = models.squeezenet1_1()
    state = torch.load(published_inputs() / "weights" / "squeezenet1_1.pth", weights_only=True)
    network.load_state_dict(state)
    save_weights(path, network)
    loaded, *_ = load_backbone("torchvision:squeezenet1_1", str(path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    with pytest.raises(UserError, match=r"pth': a file, but no safetensors: refused; should be a \.safetensors file"):
        load_backbone("torchvision:squeezenet1_1", str(published_inputs() / "weights" / "squeezenet1_1.pth"))


def test_weights_that_do_not_fit_are_said(tmp_path):
    other, pickled = tmp_path / "other.safetensors", tmp_path / "pickled.safetensors"
    save_weights(other, models.squeezenet1_1())
    with pytest.raises(UserError, match=rf"other\.safetensors: weights of another network than {RESNET}: \d+ of its"):
        load_backbone(RESNET, str(other))
    save_weights(other, models.resnet18(num_classes=10))
    with pytest.raises(UserError, match=r"2 have another shape, first fc\.weight: \(10, 512\), should be \(1000, "):
        load_backbone(RESNET, str(other))
    torch.save(models.resnet18().state_dict(), pickled)
    with pytest.raises(UserError, match="a pickle, which can run code: refused"):
        load_backbone(RESNET, str(pickled))
    with pytest.raises(UserError, match=r"nowhere\.safetensors: no such file"):
        load_backbone(RESNET, "nowhere.safetensors")
    with pytest.raises(UserError, match=r"'IMAGENET': no such tag; .*or a tag: IMAGENET1K_V1"):
        load_backbone(RESNET, "IMAGENET")


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("torchvision:resnet19", "no such model; did you mean resnet1"),
        ("timm:vit_tinny_patch16_224", "no such model; did you mean vit_tiny_patch16_224"),
        ("resnet18", r"should be torchvision:name or timm:name"),
        ("keras:resnet18", r"should be torchvision:name or timm:name"),
    ],
)
def test_a_backbone_that_is_not_there_is_named(backbone, said):
    with pytest.raises(UserError, match=rf"backbone = '{backbone}': {said}"):
        load_backbone(backbone, "none")


def test_without_timm_and_without_a_network(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(models, "get_model", no_network)
    with pytest.raises(UserError, match=r"'IMAGENET1K_V1': cannot be made: no route to host"):
        load_backbone(RESNET, "IMAGENET1K_V1")
    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(UserError, match=r"'a1_in1k': cannot be made: no route to host"):
        load_backbone("timm:resnet18", "a1_in1k")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="timm: not installed; 'pip install timm', or choose"):
        load_backbone("timm:resnet18", "none")


@torch.no_grad()
def test_layers_and_sizes_that_do_not_fit_are_said():
    network, *_ = load_backbone(RESNET, "none")
    with pytest.raises(UserError, match=r"no layer 'layer5'; did you mean layer4 .*it has conv1, bn1, relu, .* more"):
        extractor(RESNET, network, "layer5")
    with pytest.raises(UserError, match=r"'fc' of .*resnet18 has no maps: its output is \(2, 1000\)"):
        extractor(RESNET, network, "fc")(pixels())
    vit, *_ = load_backbone(VIT, "none")
    with pytest.raises(UserError, match=r"cannot look at images of 64 x 64 pixels: .*choose another --size"):
        extractor(VIT, vit, "blocks.0")(pixels())


def test_a_folder_that_is_empty_or_has_too_few(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images; should hold at least 8"):
        score_own.load_images(tmp_path / "empty", 32, 100)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        score_own.load_images(tmp_path / "nowhere", 32, 100)
    for number in range(5, 12):
        (folder / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"photos: 5 images that can be used \(.*cannot be decoded.*at least 8"):
        score_own.load_images(folder, 32, 100)


def test_mistakes_are_one_line_for_whoever_runs_it(folder, tmp_path, run_stage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--backbone", RESNET, "--images", folder, "--out", "out", "--size", 32)
    result = run_stage("posenet.score_own", *options, "--layers", "layer1,layer9")
    assert_one_line_error(result, "no layer 'layer9'", "layer4")
    result = run_stage("posenet.score_own", *options, "--layers", "layer1,layer1")
    assert_one_line_error(result, "each layer once")
    assert not Path("out").exists()
