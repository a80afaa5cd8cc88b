"""A CLIP model of one's own: any name of open_clip's, with weights of a file, of a tag, or random ones.

Images and captions go through the model's own preparation and tokens. A tag knows how its images are prepared. A file
does not: then it is what the tags of this model have in common, and CLIP's own where they differ or there are none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from open_clip.factory import load_checkpoint
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.countclip import clip
from pipeline.countclip.captions import NUMBERS, nine_captions
from pipeline.countclip.own_captions import Captioned
from pipeline.countclip.params import ClipModel
from pipeline.countclip.samples import open_image
from pipeline.countclip.scores import similarities
from pipeline.countclip.tokens import shorten
from pipeline.inputs.own_weights import differences, read_tensors
from pipeline.inputs.sources import read_registry
from pipeline.stage import UserError

RANDOM = "none"


@dataclass(frozen=True)
class OwnModel:
    """A model in evaluation mode, and its tokens. preparation: open_clip's settings for images."""

    model: nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    context: int
    preparation: dict


@dataclass(frozen=True)
class Asked:
    """similarity: float32 [N, 9], of the rows `kept`. left_out: (row, reason). cut: captions that were too long."""

    kept: list[Captioned]
    similarity: Tensor
    left_out: list[tuple[Captioned, str]]
    cut: int


def load_own(name: str, weights: str) -> OwnModel:
    """A model of open_clip's by name. weights: a .safetensors file, a tag, a name in sources.yaml, or RANDOM.

    Raises UserError for an unknown name (with near ones), an unknown tag, a pickle that is no tag's, weights that do
    not fit, and what needs a network, or a package, that is not there.
    """
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        said = f"did you mean {' or '.join(near)}?" if near else "open_clip.list_models() has them all"
        raise UserError(f"model = '{name}': no model of open_clip's; {said}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    try:
        tokenizer = open_clip.get_tokenizer(name)
        if weights == RANDOM:
            model = _empty(name, tags)
        elif weights in tags or weights in read_registry():
            model = clip.load(ClipModel(name=name, weights=weights))
        else:
            model = _of_file(name, weights, tags)
    except ImportError as error:
        raise UserError(f"model = '{name}': {error}; install that package, or choose a model without it") from None
    except OSError as error:
        raise UserError(f"model = '{name}', weights = '{weights}': cannot be fetched: {_line(error)}") from None
    return OwnModel(model.eval(), tokenizer, tokenizer.context_length, dict(model.visual.preprocess_cfg))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _empty(name: str, tags: list[str]) -> nn.Module:
    """The model with random weights, which takes images as its tags do, where these agree."""
    model = clip.build(name)
    own = model.visual.preprocess_cfg
    of_tags = [merge_preprocess_dict(own, open_clip.get_pretrained_cfg(name, tag)) for tag in tags]
    known = [{**settings, "size": own["size"]} for settings in of_tags]
    if known and all(settings == known[0] for settings in known):
        open_clip.set_model_preprocess_cfg(model, known[0])
    return model


def _of_file(name: str, weights: str, tags: list[str]) -> nn.Module:
    if not Path(weights).is_file():
        raise UserError(
            f"weights = '{weights}': no such file, and not one of open_clip's tags for {name}: "
            f"{', '.join(tags) or 'it has none'}; should be a .safetensors file, a tag, or '{RANDOM}'"
        )
    tensors = read_tensors(weights)
    if Path(weights).suffix != ".safetensors":
        raise UserError(f"{weights}: should have the ending .safetensors, by which open_clip knows it; rename it")
    model = _empty(name, tags)
    try:
        load_checkpoint(model, weights)  # as open_clip reads its own, older forms too
    except (RuntimeError, AssertionError, LookupError, AttributeError, TypeError, ValueError) as error:
        said = differences(tensors, model.state_dict()) or _line(error)
        raise UserError(
            f"{weights}: weights of another model than {name}: {said}; name the one that they are of"
        ) from None
    return model


def nine_tokens(own: OwnModel, row: Captioned) -> tuple[Tensor, bool]:
    """The caption with each of the numbers 2..10, int64 [9, context], and whether it was cut to fit.

    Raises UserError where the model's tokens do not tell the nine apart.
    """
    # CLIP's tokens say how much fits; other models' may be more
    for room in (own.context, own.context // 2, own.context // 4):
        short = shorten(row.caption, row.number, max(room, 4))
        ids = own.tokenizer(nine_captions(short, row.number))
        if len(ids.unique(dim=0)) == len(NUMBERS):
            return ids, short != row.caption
    raise UserError(f"caption '{row.caption:.80}': the model's tokens are the same for several numbers; change it")


def ask_own(own: OwnModel, rows: list[Captioned]) -> Asked:
    """Similarity of every image with its nine captions. Images that cannot be decoded are left out, with the reason."""
    kept: list[Captioned] = []
    left_out: list[tuple[Captioned, str]] = []
    tokens: list[Tensor] = []
    cut = 0
    prepare = image_transform_v2(PreprocessCfg(**own.preparation), is_train=False)
    device = own.model.logit_scale.device
    at_once = clip.AT_ONCE[device.type]

    def images() -> Iterator[Tensor]:
        nonlocal cut
        for row in tqdm(rows, "images", disable=None, leave=False):
            try:
                image = prepare(open_image({"jpg": row.read()}, clip.image_size(own.model)))
            except ValueError as error:
                left_out.append((row, str(error)))
                continue
            ids, shortened = nine_tokens(own, row)
            cut += shortened
            kept.append(row)
            tokens.append(ids)
            yield image

    def embedded() -> Iterator[Tensor]:
        batch: list[Tensor] = []
        for image in images():
            batch.append(image)
            if len(batch) == at_once:
                yield own.model.encode_image(torch.stack(batch).to(device)).float()
                batch.clear()
        if batch:
            yield own.model.encode_image(torch.stack(batch).to(device)).float()

    with torch.inference_mode():
        parts = list(embedded())
        if not parts:
            raise UserError(f"none of the {len(rows):,} images can be used: {left_out[0][0].key}: {left_out[0][1]}")
        texts = _embed_texts(own.model, torch.stack(tokens))
        return Asked(kept, similarities(torch.cat(parts), texts).cpu(), left_out, cut)


def _embed_texts(model: nn.Module, ids: Tensor) -> Tensor:
    """Embeddings float32 [N, 9, D] of tokens int64 [N, 9, L]."""
    if getattr(model, "attn_mask", None) is not None and getattr(model, "text_pool_type", None) == "argmax":
        return clip.embed_texts(model, ids)  # as OpenAI's: what follows a caption's end need not be read
    device = model.logit_scale.device
    flat = ids.flatten(end_dim=1).split(clip.AT_ONCE[device.type])
    parts = [model.encode_text(part.to(device)).float() for part in tqdm(flat, "captions", disable=None, leave=False)]
    return torch.cat(parts).view(*ids.shape[:2], -1)
