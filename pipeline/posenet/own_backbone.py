"""A backbone of one's own: any classifier of torchvision's, or model of timm's, by name, and layers of it.

A layer is a module, named as in `network.named_modules()`. Its output may be maps [B, C, H, W], maps with channels last
[B, H, W, C] (Swin), or tokens [B, N, C] (ViT), of which the last ones that fill a square are its places. Of a module
that is called several times, it is the last output.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.functional import normalize

from pipeline.inputs.own_weights import load_tensors
from pipeline.posenet.backbones import MEAN, SLICES, STD, read_out
from pipeline.stage import UserError

RANDOM = "none"
LIBRARIES = ("torchvision", "timm")
SHOWN = 40  # names in a message


def import_timm() -> ModuleType:
    """The package timm, which may not be there. Raises UserError where it is not."""
    try:
        import timm
    except ImportError:
        raise UserError("timm: not installed; 'pip install timm', or choose a backbone of torchvision's") from None
    return timm


def load_backbone(backbone: str, weights: str) -> tuple[nn.Module, tuple, tuple]:
    """A network in evaluation mode, with the mean and the standard deviation of its training images' channels.

    backbone: 'torchvision:name' or 'timm:name'. weights: a .safetensors file; RANDOM; or one of the library's tags for
    it, which is fetched. Raises UserError for what is not there, with near names, and for weights that do not fit.
    """
    library, _, name = backbone.partition(":")
    if library not in LIBRARIES or not name:
        raise UserError(f"backbone = '{backbone}': should be torchvision:name or timm:name, as torchvision:resnet18")
    try:
        build = _torchvision if library == "torchvision" else _timm
        network, mean, std = build(name, weights)
    except (OSError, RuntimeError) as error:  # a hub that cannot be reached, or sent something else
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"backbone = '{backbone}', weights = '{weights}': cannot be made: {reason}") from None
    if weights.endswith(".safetensors"):
        load_tensors(weights, network, backbone)
    return network.eval(), mean, std


def _check_name(name: str, known: list[str], library: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        said = f"did you mean {' or '.join(near)}?" if near else f"{library} has {len(known):,}, such as {known[0]}"
        raise UserError(f"backbone = '{library}:{name}': no such model; {said}")


def _check_weights(weights: str, tags: list[str]) -> bool:
    """Whether `weights` is a tag. Raises UserError where it is neither that, nor RANDOM, nor a safetensors file."""
    if weights in tags:
        return True
    if weights != RANDOM and not weights.endswith(".safetensors"):
        there = "a file, but no safetensors: refused" if Path(weights).is_file() else "no such tag"
        raise UserError(
            f"weights = '{weights}': {there}; should be a .safetensors file, '{RANDOM}', or a tag: "
            f"{', '.join(tags) or 'there is none'}"
        )
    return False


def _torchvision(name: str, weights: str) -> tuple[nn.Module, tuple, tuple]:
    _check_name(name, models.list_models(module=models), "torchvision")
    known = models.get_model_weights(name).__members__
    if not _check_weights(weights, list(known)):
        return models.get_model(name, weights=None), MEAN, STD
    prepared = known[weights].transforms()
    return models.get_model(name, weights=known[weights]), tuple(prepared.mean), tuple(prepared.std)


def _timm(name: str, weights: str) -> tuple[nn.Module, tuple, tuple]:
    timm = import_timm()
    _check_name(name, timm.list_models(), "timm")
    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{name}.*")]
    if _check_weights(weights, tags):
        network = timm.create_model(f"{name}.{weights}", pretrained=True)
    else:
        network = timm.create_model(name, pretrained=False)
    known = {"mean": MEAN, "std": STD, **(network.pretrained_cfg if weights != RANDOM else {})}
    return network, tuple(known["mean"]), tuple(known["std"])


def as_maps(output: Tensor) -> Tensor | None:
    """A layer's output as maps [B, C, S, S]; None where it has no places. Images are square, so maps are too."""
    if output.dim() == 4 and output.shape[2] == output.shape[3] > 1:
        return output
    if output.dim() == 4 and output.shape[1] == output.shape[2] > 1:  # channels last
        return output.permute(0, 3, 1, 2)
    if output.dim() == 3 and (side := math.isqrt(output.shape[1])) > 1:  # tokens; those of classes come first
        return output[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
    return None


class OwnExtractor(nn.Module):
    """Layers of a network in one forward pass, read out as the study does: uint8 [B, 3, H, W] -> float32
    [B, 3 a layer, size, size]. Raises UserError for a layer that is not there, or whose output has no places.
    """

    def __init__(
        self, backbone: str, network: nn.Module, layers: list[str], mean: tuple, std: tuple, size: int
    ) -> None:
        super().__init__()
        self.backbone, self.network, self.layers, self.size = backbone, network, layers, size
        self.mean, self.std = list(mean), list(std)
        modules = dict(network.named_modules())
        for layer in layers:
            if layer not in modules or not layer:
                raise UserError(f"layers: {backbone} has no layer '{layer}'; {_said_of(layer, list(modules)[1:])}")
            modules[layer].register_forward_hook(self._keep(layer))
        self._outputs: dict[str, object] = {}

    def _keep(self, layer: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            # what comes next may work in place, as ReLU does
            self._outputs[layer] = output.clone() if isinstance(output, Tensor) else output

        return hook

    def maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Each layer's maps [B, C, S, S], float32, of pixels uint8 [B, 3, H, W]."""
        self._outputs.clear()
        try:
            self.network(normalize(pixels.float() / 255, self.mean, self.std))
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.backbone} cannot look at images of {pixels.shape[-1]} x {pixels.shape[-1]} pixels: {reason}; "
                f"choose another --size"
            ) from None
        for layer in self.layers:
            output = self._outputs.get(layer)
            found = as_maps(output) if isinstance(output, Tensor) else None
            if found is None:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise UserError(
                    f"layers: '{layer}' of {self.backbone} has no maps: its output is {shape}; should be [B, C, S, S], "
                    f"[B, S, S, C] or [B, tokens, C]; choose an earlier layer"
                )
            yield found.float()

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([read_out(maps, "slices", self.size) for maps in self.maps(pixels)], dim=1)

    def channels(self) -> dict[str, int]:
        """{layer: how many channels of it are read}, in the order of the output."""
        return dict.fromkeys(self.layers, SLICES)


def _said_of(layer: str, there: list[str]) -> str:
    """Near names, and the layers that there are, outer ones first."""
    near = difflib.get_close_matches(layer, there, n=3)
    outer = sorted(there, key=lambda name: name.count("."))
    more = f" and {len(outer) - SHOWN:,} more within these" if len(outer) > SHOWN else ""
    return (f"did you mean {' or '.join(near)}? " if near else "") + f"it has {', '.join(outer[:SHOWN])}{more}"
