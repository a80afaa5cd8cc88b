"""CLIP models: open_clip's by name, path and random weights, ours, and what they make of images and captions."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline.countclip import clip
from pipeline.countclip.params import ClipModel
from pipeline.countclip.tokens import tokenize
from pipeline.stage import UserError
from pipeline.training import save_weights

VIT = "ViT-B-32-quickgelu"
CAPTIONS = ["three cats", "seven dogs and a very long walk in the park on a rainy day in autumn", "a", ""]


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return clip.build(clip.SMALL).eval()


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return clip.build(VIT).eval()


def save(model, path) -> None:
    save_weights(path, model) if path.suffix == ".safetensors" else torch.save(model.state_dict(), path)


def test_the_published_model_is_open_clips(vit):
    theirs = {name: tensor.shape for name, tensor in open_clip.create_model(VIT).state_dict().items()}
    assert {name: tensor.shape for name, tensor in vit.state_dict().items()} == theirs
    # as published (Radford et al. 2021, ViT-B/32): 151 million parameters, 224 pixels, 77 tokens, 512 dimensions
    assert sum(parameter.numel() for parameter in vit.parameters()) == 151_277_313
    assert (clip.image_size(vit), vit.context_length, vit.text_projection.shape[1]) == (224, 77, 512)


def test_ours_is_small_and_reads_the_longest_generated_captions(small):
    assert sum(parameter.numel() for parameter in small.parameters()) < 10e6
    longest = "Group of seven yellow crosses on a white background, high angle view"
    assert tokenize([longest], small.context_length).cut == 0


def test_captions_need_not_fill_the_context(vit):
    ids = tokenize(CAPTIONS, vit.context_length).ids
    with torch.no_grad():
        theirs = vit.encode_text(ids)
        ours = clip.encode_texts(vit, clip.trimmed(ids))
    assert clip.trimmed(ids).shape[1] < 77
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_embeddings_do_not_depend_on_their_neighbours(small, monkeypatch):
    ids = tokenize(CAPTIONS * 3, small.context_length).ids.view(3, 4, -1)
    pixels = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8)
    texts, images = clip.embed_texts(small, ids), clip.embed_images(small, pixels)
    monkeypatch.setitem(clip.AT_ONCE, "cpu", 2)
    torch.testing.assert_close(clip.embed_texts(small, ids), texts, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clip.embed_images(small, pixels), images, atol=1e-5, rtol=1e-4)
    alone = torch.stack([clip.embed_texts(small, row[None])[0] for row in ids.flatten(end_dim=1)])
    torch.testing.assert_close(alone.view(texts.shape), texts, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(90, 50), (50, 90), (64, 64), (300, 31)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_images_are_seen_as_open_clip_shows_them(small, size, mode):
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else size[::-1]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)
    theirs = open_clip.image_transform(64, is_train=False)(image)
    pixels = clip.image_pixels(image, 64)
    assert pixels.dtype == torch.uint8
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    torch.testing.assert_close((pixels / 255 - mean) / std, theirs)
    with torch.no_grad():
        torch.testing.assert_close(
            clip.encode_images(small, pixels[None]), small.encode_image(theirs[None]), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_may_be_a_path(small, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save(small, path)
    loaded = clip.load(ClipModel(name=clip.SMALL, weights=str(path)))
    for name, tensor in small.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_another_architecture_are_named(small, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save(small, path)
    with pytest.raises(UserError, match=r"weights\.") as error:
        clip.load(ClipModel(name="RN50", weights=str(path)))
    assert "RN50" in str(error.value) or "visual." in str(error.value)


def test_a_damaged_file_of_weights_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        clip.load(ClipModel(name=clip.SMALL, weights=str(path)))


@pytest.mark.parametrize(
    ("name", "weights", "parts"),
    [
        ("ViT-B-32-quickgel", None, ["clip.name = 'ViT-B-32-quickgel'", "did you mean", VIT]),
        (VIT, "open-ai", ["clip.weights = 'open-ai'", "no such file", "openai"]),
        (clip.SMALL, "models/none.pt", ["no such file", "it has none"]),
    ],
)
def test_unknown_models_and_weights_are_named(name, weights, parts):
    with pytest.raises(UserError) as error:
        clip.load(ClipModel(name=name, weights=weights))
    for part in parts:
        assert part in str(error.value)
