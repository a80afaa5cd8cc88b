"""CLIP models by open_clip, and what they make of images and captions.

Beside open_clip's own there is `small-clip` (small-clip.json): CLIP's modified ResNet, the smallest that names
things in scenes of 64 x 64, and two layers of text transformer; it trains in a minute on two cores.
"""

from __future__ import annotations

import difflib
import logging
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from open_clip.transformer import text_global_pool
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from pipeline.countclip.params import ClipModel
from pipeline.countclip.paths import PRETRAINED
from pipeline.stage import UserError
from pipeline.training import load_weights

SMALL = "small-clip"
LARGEST_SCALE = math.log(100)  # of the logits, as CLIP's own training clips it
AT_ONCE = {"cpu": 32, "cuda": 512, "mps": 128}  # images, or captions, encoded together; a CPU's caches hold few

open_clip.add_model_config(Path(__file__).with_name(f"{SMALL}.json"))


def build(name: str) -> nn.Module:
    """A model of open_clip's, or SMALL, with random weights. Raises UserError for another name."""
    check_name(name)
    with _quiet():
        return _laid_out(open_clip.create_model(name))


def check_name(name: str) -> None:
    """Raises UserError unless it is SMALL or a model of open_clip's."""
    if name not in open_clip.list_models():
        guess = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        hint = f"did you mean {' or '.join(guess)}?" if guess else "open_clip.list_models() has them all"
        raise UserError(f"params.yaml: clip.name = '{name}': not '{SMALL}' and no model of open_clip's; {hint}")


def load(choice: ClipModel) -> nn.Module:
    """The pre-trained model that params.yaml names. Raises UserError where its weights are not to be had or do not fit.

    weights: a name in sources.yaml, a path or a tag. They are opened as tensors only, never as pickled code.
    """
    from pipeline.inputs.sources import resolve

    weights = resolve(choice.weights) if choice.weights else PRETRAINED if choice.name == SMALL else None
    if weights is None or Path(weights).suffix == ".safetensors":
        model = build(choice.name)
        if weights is not None:
            load_weights(weights, model)
        return model
    check_name(choice.name)
    tags = open_clip.list_pretrained_tags_by_model(choice.name)
    if weights not in tags and not Path(weights).is_file():
        raise UserError(
            f"params.yaml: clip.weights = '{weights}': no such file, and not one of open_clip's tags for "
            f"{choice.name}: {', '.join(tags) or 'it has none'}"
        )
    try:
        with _quiet():
            return _laid_out(open_clip.create_model(choice.name, pretrained=str(weights)))
    except (RuntimeError, OSError, ValueError, KeyError, AssertionError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{weights}: no weights for {choice.name}: {reason}; set clip.weights (params.yaml, sources) to a file of "
            f"this model's weights, or to a tag where there is a network"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warnings of random weights, which are wanted, and the hub's of every retry."""
    loggers = [logging.getLogger(name) for name in (None, "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _laid_out(model: nn.Module) -> nn.Module:
    model.visual.to(memory_format=torch.channels_last)  # convolutions on a CPU are faster so
    return model


def image_size(model: nn.Module) -> int:
    """Side of the square that the model sees, in pixels."""
    size = model.visual.image_size
    return size[0] if isinstance(size, tuple) else size


def image_pixels(image: Image.Image, size: int) -> Tensor:
    """An image as CLIP sees it, uint8 [3, size, size]: shorter side resized (bicubic), middle cut out, RGB."""
    return pil_to_tensor(center_crop(resize(image, size, InterpolationMode.BICUBIC), [size, size]).convert("RGB"))


def encode_images(model: nn.Module, pixels: Tensor) -> Tensor:
    """Embeddings [B, D], not normalised, of pixels uint8 [B, 3, H, W]."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(3, 1, 1) * 255
        for values in (model.visual.image_mean, model.visual.image_std)
    )
    return model.encode_image(((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last))


def encode_texts(model: nn.Module, ids: Tensor) -> Tensor:
    """Embeddings [B, D], not normalised, of tokens int64 [B, L], zero after the end; L may be less than the context.

    As `model.encode_text`, which takes no fewer tokens than the whole context: what follows a caption's end cannot
    change its embedding, since attention is causal, but would be most of the work.
    """
    x = model.token_embedding(ids)
    x = x + model.positional_embedding[: ids.shape[1]]
    x = model.transformer(x, attn_mask=model.attn_mask[: ids.shape[1], : ids.shape[1]])
    x = text_global_pool(model.ln_final(x), ids, model.text_pool_type, eos_token_id=model.text_eos_id)
    return x @ model.text_projection


def trimmed(ids: Tensor) -> Tensor:
    """Tokens [B, L] without the columns that are zero in all captions."""
    return ids[:, : int((ids != 0).sum(dim=1).max())]


@torch.no_grad()
def embed_images(model: nn.Module, pixels: Tensor) -> Tensor:
    """Embeddings float32 [N, D] of pixels uint8 [N, 3, H, W], many at a time, on the model's device."""
    device = model.logit_scale.device
    parts = pixels.split(AT_ONCE[device.type])
    return torch.cat([encode_images(model, part.to(device)).float() for part in parts])


@torch.no_grad()
def embed_texts(model: nn.Module, ids: Tensor) -> Tensor:
    """Embeddings float32 [..., D] of tokens int64 [..., L], many of about equal length at a time."""
    flat = ids.flatten(end_dim=-2)
    order = (flat != 0).sum(dim=1).argsort(stable=True)
    device = model.logit_scale.device
    parts = [encode_texts(model, trimmed(flat[part]).to(device)).float() for part in order.split(AT_ONCE[device.type])]
    embeddings = torch.empty(len(flat), parts[0].shape[1], device=device)
    embeddings[order.to(device)] = torch.cat(parts)
    return embeddings.view(*ids.shape[:-1], -1)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient; the logit scale is kept at 100 at most, as in CLIP's own training."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, LARGEST_SCALE)


class Towers(nn.Module):
    """Both encoders in one forward pass, for DistributedDataParallel: image and text embeddings, and CLIP's scale."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return encode_images(self.model, pixels), encode_texts(self.model, ids), self.model.logit_scale.exp()
