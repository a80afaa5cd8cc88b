"""Frozen networks whose feature maps may hold position (posenet, Table 1), and what of the maps is read.

A backbone is extracted in variants: with trained weights and, as a control, with random ones; and with its
borders padded by zeros, as it was trained, or by its own reflection, or by its other end (circular). With the last,
a convolution cannot tell where it is; a reflection still has a border, though not one of zeros. That padding explains
position is the claim of the original paper, which the reproduction did not test.
"""

from __future__ import annotations

import difflib
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.transforms.functional import normalize, rgb_to_grayscale

from pipeline.posenet.paths import COUNTER
from pipeline.posenet.variants import PIXELS
from pipeline.stage import UserError
from pipeline.training import load_weights

# layers by the document's names (Table 1: the average ones, after the pooling that follows), and torchvision's
LAYERS = {
    "vgg16": {
        "conv1_2": "features.4",
        "conv2_2": "features.9",
        "conv3_3": "features.16",
        "conv4_3": "features.23",
        "conv5_3": "features.30",
    },
    "resnet152": {
        "conv1_x": "maxpool",
        "conv2_x": "layer1",
        "conv3_x": "layer2",
        "conv4_x": "layer3",
        "conv5_x": "layer4",
    },
    "squeezenet1_1": {
        "conv1": "features.2",
        "fire3": "features.5",
        "fire5": "features.8",
        "fire7": "features.10",
        "fire9": "features.12",
    },
    COUNTER: {
        "conv1_x": "maxpool",
        "conv2_x": "layer1",
        "conv3_x": "layer2",
        "conv4_x": "layer3",
        "conv5_x": "layer4",
    },
}
BACKBONES = (PIXELS, *LAYERS)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of torchvision's weights
SLICES = 3  # channels that the reproduction leaves of each map


def build(name: str) -> nn.Module:
    """A backbone with random weights, in evaluation mode. Raises UserError for another name."""
    if name == COUNTER:
        network = models.resnet18(num_classes=2)
        network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    elif name in LAYERS:
        network = models.get_model(name, weights=None)
    else:
        raise UserError(f"params.yaml: posenet: no backbone '{name}'; should be one of {', '.join(BACKBONES)}")
    return network.eval()


def load(name: str, weights: str) -> nn.Module:
    """A backbone with the weights of a file, or of a name in sources.yaml. Raises UserError where they do not fit."""
    from pipeline.inputs import sources

    network = build(name)
    path = Path(weights)
    if (published := sources.read_registry().get(weights)) is not None:
        path = sources.fetch(weights, published) / sources.only_file(weights)
    if not path.is_file():
        raise UserError(
            f"params.yaml: posenet.weights.{name} = '{weights}': no such file, and no name in sources.yaml; "
            f"null leaves the trained variants out"
        )
    if (stated := re.search(r"-([0-9a-f]{8})\.pth$", path.name)) and not sources.sha256(path).startswith(stated[1]):
        raise UserError(f"{path}: not what its name says: its sha256 does not begin with {stated[1]}; fetch it again")
    if path.suffix == ".safetensors":
        load_weights(path, network)
        return network
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, AttributeError, TypeError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: no weights of {name}: {reason}; set posenet.weights.{name} to a file of its"
        ) from None
    return network


def node_names(name: str, layers: list[str] | None) -> dict[str, str]:
    """{layer: torchvision's name of it}; layers: the document's names or torchvision's; None for the document's five.

    Raises UserError for an unknown layer.
    """
    known = LAYERS[name]
    if layers is None:
        return known
    with torch.device("meta"):  # its names alone: no weights are drawn
        nodes = get_graph_node_names(build(name))[1]
    modules = {node.rsplit(".", n)[0] for node in nodes for n in range(node.count(".") + 1)}  # a module's last node
    for layer in layers:
        if layer not in known and layer not in modules:
            near = difflib.get_close_matches(layer, [*known, *modules], n=3)
            raise UserError(
                f"params.yaml: posenet.layers.{name}: no layer '{layer}'"
                + (f" (did you mean {' or '.join(near)}?)" if near else "")
                + f"; {name} has {', '.join(known)}, and torchvision's {', '.join(nodes)}"
            )
    return {layer: known.get(layer, layer) for layer in layers}


def as_input(name: str, pixels: Tensor) -> Tensor:
    """What a backbone takes, of pixels uint8 [B, 3, H, W]: normalised as its training images were."""
    scaled = pixels.float() / 255
    if name == COUNTER:
        return rgb_to_grayscale(scaled)
    return normalize(scaled, list(MEAN), list(STD))


def calibrate(name: str, network: nn.Module, pixels: Tensor) -> None:
    """Give the batch normalisations of a random network the statistics of these images, as training would have.

    Without, the activations of a deep network with random weights leave the range of numbers.
    """
    normalisations = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not normalisations:
        return
    for module in normalisations:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
    network.train()
    with torch.no_grad(), _large_enough(name, pixels):
        for batch in pixels.split(16):
            network(as_input(name, batch))
    network.eval()


def read_out(maps: Tensor, how: str, size: int) -> Tensor:
    """What of a layer's maps [B, C, H, W] position is read from: 'slices' or 'channels', at size x size.

    slices: resized in three dimensions to [3, size, size], as the reproduction does (trilinear, section 2.1):
    of C channels, each of the three that are left mixes two. channels: all of them, resized in two, as the
    original paper does.
    """
    if how == "channels":
        return interpolate(maps, (size, size), mode="bilinear", align_corners=False)
    return interpolate(maps.unsqueeze(1), (SLICES, size, size), mode="trilinear", align_corners=False).squeeze(1)


def channels_of_pixels(pixels: Tensor, size: int, normalised: bool) -> Tensor:
    """[B, 3, size, size] of pixels uint8 [B, 3, H, W]: in 0..255, as the reproduction has them, or normalised."""
    resized = interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True).round()  # to grey levels
    return normalize(resized / 255, list(MEAN), list(STD)) if normalised else resized


@contextmanager
def _large_enough(name: str, pixels: Tensor) -> Iterator[None]:
    """Turn torch's error, where deep maps have no room for their padding, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "adding" not in str(error):  # padding, or padded input, and a size
            raise
        raise UserError(
            f"params.yaml: posenet image_size = {pixels.shape[-1]}: too small for {name}, whose deepest maps then have "
            f"no room for its padding ({' '.join(str(error).split())}); raise it, or take 'reflect' out of "
            f"posenet.padding_modes"
        ) from None


class Extractor(nn.Module):
    """A backbone's layers in one forward pass, read out: uint8 [B, 3, H, W] -> float32 [B, channels, size, size]."""

    def __init__(self, name: str, network: nn.Module, layers: dict[str, str], how: str, size: int) -> None:
        super().__init__()
        self.name, self.how, self.size, self.layers = name, how, size, list(layers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # its graphs in training and evaluation differ in dropout
            self.features = create_feature_extractor(network, {node: layer for layer, node in layers.items()})

    def maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Each layer's maps. Raises UserError where they are too small to be padded, or there are none."""
        with _large_enough(self.name, pixels):
            found = self.features(as_input(self.name, pixels))
        for layer in self.layers:
            if found[layer].dim() != 4:
                raise UserError(
                    f"params.yaml: posenet.layers.{self.name}: '{layer}' has no maps: its output is "
                    f"{tuple(found[layer].shape)}; choose an earlier layer"
                )
            yield found[layer].float()

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([read_out(maps, self.how, self.size) for maps in self.maps(pixels)], dim=1)

    @torch.no_grad()
    def channels(self, pixels: Tensor) -> dict[str, int]:
        """{layer: how many channels of it are read}, in the order of the output."""
        if self.how == "slices":
            return dict.fromkeys(self.layers, SLICES)
        return {layer: maps.shape[1] for layer, maps in zip(self.layers, self.maps(pixels[:1]), strict=True)}
