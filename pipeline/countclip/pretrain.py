"""Pre-train our own small CLIP on scenes whose captions hold no numbers: it knows things and colours, and cannot count.

    python -m pipeline.countclip.pretrain

What 400 million pairs are for OpenAI's CLIP, `source: generated` makes up here: CLIP's contrastive loss over
scenes of one to ten things, with captions such as 'stock photo of red balls on a table'.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline import training
from pipeline.countclip import clip
from pipeline.countclip.losses import clip_loss
from pipeline.countclip.paths import METRICS, PRETRAINED
from pipeline.countclip.scenes import caption, draw_scene
from pipeline.countclip.tokens import tokenize
from pipeline.params import load_params
from pipeline.shards import item_rng, process_pool
from pipeline.stage import run, write_json

MOST_THINGS = 10
BETAS, WEIGHT_DECAY = (0.9, 0.98), 0.05


def scene_pair(number: int, *, seed: int, resolution: int, size: int) -> tuple[np.ndarray, str]:
    """Scene `number` as the model sees it, uint8 [3, size, size], and its caption; 1 to 10 things equally often."""
    rng = item_rng(seed, f"countclip/pretraining/{number}")
    scene = draw_scene(rng, number % MOST_THINGS + 1, resolution)
    return clip.image_pixels(Image.fromarray(scene.pixels), size).numpy(), caption(rng, scene, "none")


def main() -> str:
    params = load_params()
    scale = params.at_scale.countclip
    settings = scale.pretraining
    training.configure(params.seed, "countclip/pretraining", params.threads)
    device = training.device()
    model = clip.build(clip.SMALL)

    draw = partial(scene_pair, seed=params.seed, resolution=scale.resolution, size=clip.image_size(model))
    with process_pool() as parallel_map:
        images, captions = zip(*parallel_map(draw, range(settings.scenes)), strict=True)
    pixels = torch.from_numpy(np.stack(images)).to(device)
    ids = tokenize(list(captions), model.context_length).ids

    model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps)
    epoch_steps = settings.scenes // settings.batch_size

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return item_rng(params.seed, f"countclip/pretraining/epoch-{epoch}").permutation(settings.scenes)

    def step(i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, epoch_steps)
        batch = order(epoch)[place * settings.batch_size :][: settings.batch_size]
        with training.autocast(scale.training.precision, device):
            image = clip.encode_images(model, pixels[batch])
            text = clip.encode_texts(model, clip.trimmed(ids[batch]).to(device))
        loss = clip_loss(image.float(), text.float(), model.logit_scale.exp())
        clip.update(model, optimizer, loss)
        schedule.step()
        return {"loss": loss}

    checkpoint = training.Checkpoint(
        stage="countclip.pretrain",
        settings=[params.seed, params.threads, scale.training.precision, scale.resolution, settings],
        inputs=[],
    )
    history = training.fit(
        step,
        steps=settings.steps,
        state={"model": model, "optimizer": optimizer, "schedule": schedule},
        checkpoint=checkpoint,
        evaluate=dict,
        evaluate_every=settings.steps,
        label="countclip/pretrain",
    )
    last = np.mean([values["loss"] for values in history.steps[-20:]])
    training.save_weights(PRETRAINED, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_json(METRICS / "pretraining.json", {"parameters": parameters, "steps": settings.steps, "loss": last})
    checkpoint.discard()
    return f"{settings.steps:,} steps of {settings.batch_size} pairs, loss {last:.3f},"


if __name__ == "__main__":
    run(main)
