"""CountCLIP with ViT-B/32 (random weights): questions of CountBench, and training steps, on the CPU.

    python -m benchmarks.counting
    python -m benchmarks.counting --precision fp32

CountBench: images and captions in batches, captions as long as they are, against one image and one caption of
77 tokens at a time in fp32, as the authors' evaluation does. The captions are CountBench's where STUDIES_MIRROR
has them (else generated ones), the pixels random.

Training: batches of 5 with 1 counting pair and 1 counterfactual, as published, against the same step written
plainly: fp32, every caption 77 tokens, torch's Adam as it comes. Both by turns; images are in memory.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import median

import numpy as np
import open_clip
import torch
from torch.nn.functional import cross_entropy, normalize

from benchmarks.common import seconds
from pipeline import training
from pipeline.countclip import clip
from pipeline.countclip.captions import nine_captions
from pipeline.countclip.counting_set import Batches, Pairs
from pipeline.countclip.scenes import caption, draw_scene
from pipeline.countclip.scores import answers, ask
from pipeline.countclip.tokens import tokenize, tokenize_nine
from pipeline.countclip.train import embed_batch, losses
from pipeline.params import load_params
from pipeline.shards import item_rng

MODEL, SIZE, CONTEXT = "ViT-B-32-quickgelu", 224, 77


def captions(number: int) -> tuple[list[str], list[int]]:
    """Captions that fit the context, and the numbers that they spell."""
    path = Path(os.environ.get("STUDIES_MIRROR", "nowhere")) / "countbench" / "CountBench.json"
    if path.exists():
        rows = [row for row in json.loads(path.read_text()) if len(row["text"]) < 200][:number]
        return [row["text"] for row in rows], [row["number"] for row in rows]
    numbers = [2 + i % 9 for i in range(number)]
    rngs = [item_rng(0, f"benchmark/{i}") for i in range(number)]
    return [caption(rng, draw_scene(rng, n, 64), "right") for rng, n in zip(rngs, numbers, strict=True)], numbers


def random_pixels(number: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (number, 3, SIZE, SIZE), dtype=np.uint8))


@torch.no_grad()
def one_at_a_time(model: torch.nn.Module, pixels: torch.Tensor, texts: list[str], numbers: list[int]) -> list[int]:
    """The reference: every image and caption by itself, in fp32."""
    tokenizer = open_clip.get_tokenizer(MODEL)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
    found = []
    for image, text, number in zip(pixels, texts, numbers, strict=True):
        embedded = normalize(model.encode_image(((image / 255 - mean) / std)[None]), dim=-1)
        scores = [
            (embedded @ normalize(model.encode_text(tokenizer([other])), dim=-1).T).item()
            for other in nine_captions(text, number)
        ]
        found.append(int(np.argmax(scores)) + 2)
    return found


def evaluation(model: torch.nn.Module, precision: str, ours: int, theirs: int) -> None:
    texts, numbers = captions(ours)
    pixels = random_pixels(ours)
    answered: list = [None, None]

    def batched() -> None:
        answered[0] = answers(ask(model, pixels, tokenize_nine(texts, numbers, CONTEXT).ids, precision))

    def alone() -> None:
        answered[1] = one_at_a_time(model, pixels[:theirs], texts[:theirs], numbers[:theirs])

    with torch.no_grad():
        ask(model, pixels[:8], tokenize_nine(texts[:8], numbers[:8], CONTEXT).ids, precision)  # warm-up
    rates = {"ours": ours / seconds(batched), "one caption at a time, fp32": theirs / seconds(alone)}
    with training.autocast(precision, pixels.device):
        images_alone = ours / seconds(lambda: clip.embed_images(model, pixels))
    same = np.mean(answered[0][:theirs] == np.array(answered[1]))
    print(f"CountBench's question, {MODEL}, {ours} images and {theirs}; {same:.0%} of answers alike")
    report(rates, "images/s", precision)
    bound = images_alone / rates["one caption at a time, fp32"]
    print(f"  the images alone: {images_alone:.2f} images/s; without captions the ratio would be {bound:.1f}x")


def plain_steps(model: torch.nn.Module, batches: Batches):
    """The reference: Eqs. 1 and 2 in fp32, every caption 77 tokens."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-6, betas=(0.9, 0.98))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
    step = 0
    while True:
        batch = batches[step]
        ids = torch.zeros(len(batch.ids), CONTEXT, dtype=torch.long)
        ids[:, : batch.ids.shape[1]] = batch.ids
        image = normalize(model.encode_image((batch.pixels / 255 - mean) / std), dim=-1)
        text = normalize(model.encode_text(ids), dim=-1)
        pairs = len(image)
        logits = model.logit_scale.exp() * image @ text[:pairs].T
        target = torch.arange(pairs)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        true, false = (image[0] @ text[0]).exp(), (image[0] @ text[pairs]).exp()
        loss = loss - torch.log(true / (true + false))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        yield loss.item()


def our_steps(model: torch.nn.Module, batches: Batches, precision: str):
    """One training step at each `next`, as the stage makes it."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-6, betas=(0.9, 0.98), fused=True)
    towers, step = clip.Towers(model), 0
    while True:
        batch = batches[step]
        values = losses(*embed_batch(towers, batch, precision), torch.ones(len(batch.counts)), 1.0)
        clip.update(model, optimizer, values["loss"])
        step += 1
        yield values["loss"].item()


def steps(precision: str, rounds: int) -> None:
    texts, numbers = captions(64)
    counting = Pairs(random_pixels(64), tokenize_nine(texts, numbers, CONTEXT).ids, np.array(numbers))
    others = Pairs(random_pixels(64), tokenize(texts, CONTEXT).ids, np.zeros(64, int))
    batches = Batches(counting, others, size=5, counting_pairs=1, counterfactuals="one", seed=0, name="benchmark")
    loops, values = {}, {}
    for name in ("ours", "plain fp32 loop"):
        torch.manual_seed(0)
        model = clip.build(MODEL).eval()
        loops[name] = our_steps(model, batches, precision) if name == "ours" else plain_steps(model, batches)
        values[name] = [next(loops[name])]  # warm-up
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name].append(seconds(lambda name=name, loop=loop: values[name].append(next(loop))))
    apart = max(abs(a - b) for a, b in zip(*values.values(), strict=True))
    print(f"training steps, {MODEL}, batches of 5, medians of {rounds}; losses at most {apart:.4f} apart")
    report({name: 1 / median(elapsed) for name, elapsed in times.items()}, "steps/s", precision)


def report(rates: dict[str, float], unit: str, precision: str) -> None:
    bf16 = precision == "bf16" or (precision == "auto" and training.multiplies_bf16(torch.device("cpu")))
    ours, theirs = rates.values()
    for name, rate in rates.items():
        print(f"  {name + (' (bf16)' if bf16 else ' (fp32)') * (name == 'ours'):<40}{rate:>9.2f} {unit}")
    print(f"  ratio {ours / theirs:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--images", type=int, default=180)
    parser.add_argument("--reference-images", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(load_params().threads)
    torch.manual_seed(0)
    evaluation(clip.build(MODEL).eval(), options.precision, options.images, options.reference_images)
    steps(options.precision, options.rounds)


if __name__ == "__main__":
    main()
