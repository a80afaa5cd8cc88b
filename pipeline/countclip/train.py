"""Teach CLIP to count: L = L_CLIP + lambda L_count (countclip, sections 2.2 to 2.4).

    python -m pipeline.countclip.train
    python -m pipeline.countclip.train --run 1     # other batches and counterfactuals, all else equal
    torchrun --nproc-per-node 8 -m pipeline.countclip.train     # each process takes its share of every batch

As published (`scale: paper`): batches of 5 with 1 counting pair, 10 epochs of the counting set, learning rate 5e-6,
warmed up over half of the steps. The document names no optimiser: Adam, its betas, its weight decay of 0.2 and its
eps of 5e-6 at that scale are of the authors' code. After torchrun, `dvc commit train_countclip@0`.

Weights are kept of the last epoch, of the one that is best on the benchmark ('early stopping' in Table 1: the
maximum is chosen on the test set, so it is no estimate of accuracy), and of the one that is best on counting
pairs held out of training, which chooses without the test set. The published run holds none out, as 20,000 steps are
ten times all 2,000 pairs; neither does `scale: paper`, which then has no such weights.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import torch
from open_clip.loss import gather_features
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from pipeline import stage, training
from pipeline.countclip import clip
from pipeline.countclip.counting_set import (
    Batch,
    Batches,
    frequencies,
    hold_out,
    load_benchmark,
    load_counting,
    load_others,
)
from pipeline.countclip.losses import balanced_lambda, clip_loss, count_loss
from pipeline.countclip.params import Counting, CountingAtScale
from pipeline.countclip.paths import BENCHMARK, FILTERED, FINETUNED, METRICS, PLOTS, PRETRAINED
from pipeline.countclip.runs import run_name
from pipeline.countclip.scores import answers, ask
from pipeline.distributed import leads, processes
from pipeline.params import load_params
from pipeline.stage import replacing, write_bytes, write_json

CHOICES = {"best": "countbench", "held_out": "held_out"}  # weights that are kept beside the last, by what chooses them


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first half of the steps, cosine to 0 over the other (countclip, section 4)."""
    half = max(steps // 2, 1)
    if step < half:
        return (step + 1) / half
    return (1 + math.cos(math.pi * (step - half) / max(steps - half, 1))) / 2


def losses(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    weights: Tensor,
    count_logit_scale: float,
    world: int = 1,
) -> dict[str, Tensor]:
    """The losses of a batch of B pairs whose first c are counting pairs; 'loss' is their sum (Eq. 1).

    image: embeddings [B, D]. text: [B + c * K, D], last the K counterfactuals of each counting pair in turn.
    weights: [c], lambda. L_CLIP is over the pairs of all processes, L_count over this one's.
    """
    pairs, counting = len(image), len(weights)
    counterfactuals = text[pairs:].unflatten(0, (counting, -1))
    all_images, all_texts = normalize(image, dim=-1), normalize(text[:pairs], dim=-1)
    if world > 1:
        all_images, all_texts = gather_features(all_images, all_texts, gather_with_grad=True, world_size=world)
    contrastive = clip_loss(all_images, all_texts, logit_scale)
    count = count_loss(image[:counting], text[:counting], counterfactuals, weights, count_logit_scale)
    return {"loss": contrastive + count, "clip": contrastive, "count": count}


def embed_batch(towers: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings float32 of a batch's images and captions, and CLIP's logit scale."""
    device = batch.pixels.device
    with training.autocast(precision, device):
        image, text, logit_scale = towers(batch.pixels, batch.ids.to(device))
    return image.float(), text.float(), logit_scale


def balanced_accuracy(true: np.ndarray, answered: np.ndarray) -> float:
    """Mean over numbers of the share answered right: the held-out pairs are as uneven as the counting set."""
    return float(np.mean([(answered[true == number] == number).mean() for number in np.unique(true)]))


def adam(model: nn.Module, scale: CountingAtScale, settings: Counting) -> torch.optim.Adam:
    """The optimiser. Its weight decay is L2: it is added to the gradient, and so divided by the gradient's size."""
    return torch.optim.Adam(
        model.parameters(),
        scale.learning_rate,
        betas=tuple(settings.betas),
        eps=scale.eps,
        weight_decay=scale.weight_decay,
        fused=True,
    )


def main(run: int = 0) -> str:
    with processes() as (rank, world):
        return train(run, rank, world)


def train(run: int, rank: int, world: int) -> str:
    params = load_params()
    settings, scale, choice = params.countclip.training, params.at_scale.countclip.training, params.inputs.clip
    name, files = f"countclip/training/run-{run}", run_name(run)
    training.configure(params.seed, name, params.threads)
    device = training.device()

    # BatchNorm, where a model has it, keeps the statistics of pre-training: a batch of five has none to speak of
    model = clip.load(choice).eval()
    size, context = clip.image_size(model), model.context_length
    counting = load_counting(FILTERED, size, context)
    learned, held = hold_out(counting.counts, scale.held_out, params.seed)
    held_out = counting[held]
    benchmark = load_benchmark(BENCHMARK, size, context)
    others, outcomes = load_others(FILTERED, size, context, settings.others)
    batches = Batches(
        counting[learned].to(device),
        others.to(device),
        size=scale.batch_size,
        counting_pairs=scale.counting_pairs,
        counterfactuals=settings.counterfactuals,
        seed=params.seed,
        name=name,
        part=rank,
        parts=world,
    )
    found = frequencies(counting.counts[learned])
    weight_of = balanced_lambda(found, params.lambda_, settings.lambda_0)

    model.to(device)
    towers: nn.Module = clip.Towers(model)
    if world > 1:
        towers = DistributedDataParallel(towers, broadcast_buffers=False)
    steps = scale.epochs * batches.epoch_steps
    optimizer = adam(model, scale, settings)
    factor = (lambda step: learning_rate_factor(step, steps)) if settings.scheduler else (lambda step: 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step(i: int) -> dict[str, Tensor]:
        batch = batches[i]
        weights = torch.tensor([weight_of[count] for count in batch.counts.tolist()], device=device)
        values = losses(*embed_batch(towers, batch, scale.precision), weights, settings.count_logit_scale, world)
        clip.update(model, optimizer, values["loss"])
        schedule.step()
        return values

    checkpoint = training.Checkpoint(
        stage=f"countclip.train.{files}",
        settings=[params.seed, params.threads, params.lambda_, params.source, world, settings, scale, choice],
        inputs=[
            BENCHMARK,
            *sorted(FILTERED.glob("*/*.tar")),
            *[path for path in (PRETRAINED, Path(choice.weights or "")) if path.is_file()],
        ],
    )
    best: dict[str, float] = {}

    def evaluate() -> dict[str, float]:
        answered = answers(ask(model, benchmark.pixels, benchmark.ids, scale.precision))
        values = {"countbench": float((answered == benchmark.numbers).mean())}
        if len(held_out):
            answered = answers(ask(model, held_out.pixels, held_out.ids, scale.precision))
            values["held_out"] = balanced_accuracy(held_out.counts, answered)
        for kept, criterion in CHOICES.items():
            if criterion in values and values[criterion] > best.get(kept, -1.0):
                best[kept] = values[criterion]
                if leads():
                    training.save_weights(checkpoint.beside(f"{kept}.safetensors"), model)
        return values

    history = training.fit(
        step,
        steps=steps,
        state={"model": model, "optimizer": optimizer, "schedule": schedule, "best": Kept(best)},
        checkpoint=checkpoint,
        evaluate=evaluate,
        evaluate_every=batches.epoch_steps,
        label=name,
    )
    unmeasured = dict.fromkeys(CHOICES.values())  # where no pairs are held out; `dvc plots` asks for the key
    epochs = [{"epoch": n, **unmeasured, **values} for n, values in enumerate(history.evaluations, start=1)]
    if leads():
        training.save_weights(FINETUNED / files / "last.safetensors", model)
        for kept in best:
            with replacing(FINETUNED / files / f"{kept}.safetensors") as partial:
                shutil.copyfile(checkpoint.beside(f"{kept}.safetensors"), partial)
        curve = training.learning_curve(history.steps)
        write_bytes(PLOTS / f"training/{files}.csv", curve.to_csv(index=False).encode())
        write_json(PLOTS / f"epochs/{files}.json", epochs)
        classes = [{"number": n, "pairs": pairs, "lambda": weight_of[n]} for n, pairs in found.items()]
        write_json(PLOTS / f"lambda/{files}.json", classes)
        best_epoch = {
            kept: next(epoch["epoch"] for epoch in epochs if epoch[CHOICES[kept]] == value)
            for kept, value in best.items()
        }
        metrics = {"steps": steps, "best_epoch": best_epoch, "pairs_beside_counting": outcomes}
        write_json(METRICS / f"training/{files}.json", metrics)
        checkpoint.discard()
    return f"{steps:,} steps of {scale.batch_size} pairs, accuracy {epochs[-1]['countbench']:.3f},"


class Kept:
    """The best values so far, as a part of the training's state."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def state_dict(self) -> dict[str, float]:
        return dict(self.values)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.values.clear()
        self.values.update(state)


if __name__ == "__main__":
    stage.run(main, run=int)
