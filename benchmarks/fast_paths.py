"""Every hand-made fast path against plain PyTorch, at each study's laptop sizes: none may be slower on any machine.

    python -m benchmarks.fast_paths
    python -m benchmarks.fast_paths --write    also to benchmarks/machines/, a file for each kind of machine

Ours is with the path, the reference is the same work without it; whatever else is fast stays in both. The two take
turns, and the ratio is that of the medians. Below 0.95 it is red, and the exit status is 1. Rows share `--seconds`;
one that is then below 0.95 goes on for five times its share. With one thread, as in params.yaml, the clock is the
process's CPU time, which other work on the machine disturbs least.

auto             the precision that `auto` chooses here, against the other of fp32 and bf16
tiny_maps        on maps of 2 x 2, against torch's convolution; regress is such a ResNet-18
channels_last    and tiny_maps, against plain PyTorch: NCHW
_over_memory     the fused optimiser's step, against that of the same optimiser without
batch of 128     in prediction, against other sizes
large images     predicted a few at a time by weights cast once, against all at once by a network that casts them
all layers       VGG16's five layers in one pass over a batch, against a pass for each layer and image
cells together   PosENet's position networks as one convolution, against one network after another
short captions   small-clip on captions as long as they are, in batches, against whole contexts

In bf16 are rows that `auto` allows. Where a CPU has no arithmetic in it, only the choice
of precision is measured, on two or three images.
ViT-B/32 is in benchmarks.counting.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from benchmarks import position
from benchmarks.common import SCENE, arithmetic, cpu_model, draw_scenes, kind_of_machine
from benchmarks.counting import our_steps
from pipeline import training
from pipeline.countclip import clip
from pipeline.countclip.counting_set import Batch, Batches, Pairs
from pipeline.countclip.scenes import caption, draw_scene
from pipeline.countclip.scores import ask
from pipeline.countclip.tokens import tokenize, tokenize_nine
from pipeline.localize import counters
from pipeline.localize.scenes import Scenes, parse
from pipeline.params import load_params
from pipeline.posenet import backbones
from pipeline.posenet.network import ALL, grid
from pipeline.shapes.network import as_input, build_network, majority_targets, predict_logits
from pipeline.shapes.params import ARCHITECTURE
from pipeline.shapes.scenes import render
from pipeline.shapes.train import update
from pipeline.shards import item_rng
from pipeline.tiny_maps import TinyMapConv2d, quicken

FLOOR, LEAST_ROUNDS, PATIENCE = 0.95, 3, 5
MACHINES = Path("benchmarks/machines")
PARAMS = load_params().model_copy(update={"scale": "laptop"})
STUDIES = PARAMS.at_scale
HAS_BF16 = bool({"bf16", "AMX"} & set(arithmetic()))  # else torch emulates it
CPU, SIZE, CLIP_BATCH = torch.device("cpu"), STUDIES.shapes.resolution, STUDIES.countclip.training.batch_size
WHATS = ("train", "predict")
BATCHES, FEW = {"train": STUDIES.shapes.training.batch_size, "predict": 128}, {"train": 2, "predict": 4}
NAMES = [ARCHITECTURE, *PARAMS.shapes.variants.architectures]
SIZES = [(SIZE, BATCHES), (256, FEW)]  # pixels, and images

Side = tuple[Callable[[], object], int]  # the work, and how many of the row's unit it is


@dataclass(frozen=True)
class Row:
    """ours, plain: make a side ready."""

    path: str
    what: str
    size: str
    precision: str
    ours: Callable[[], Side]
    plain: Callable[[], Side]
    unit: str = "images/s"


@cache
def draw(number: int, size: int) -> tuple[Tensor, Tensor, list]:
    """Pixels uint8 [N, size, size], targets [N, 2], and the shapes as the counters on purpose take them."""
    scenes = draw_scenes(number)
    pixels = np.stack([render(shapes, size, SCENE) for shapes in scenes])
    targets = majority_targets(np.array([shapes.circles - shapes.squares for shapes in scenes]), "hard")
    return torch.from_numpy(pixels), torch.from_numpy(targets), [parse(s.record(), SCENE.canvas) for s in scenes]


def without_tiny_maps(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, TinyMapConv2d):
            module.__class__ = nn.Conv2d
    return network


def in_nchw(network: nn.Module) -> nn.Module:
    return without_tiny_maps(network).to(memory_format=torch.contiguous_format)


def classify(
    what: str,
    architecture: str,
    images: int,
    size: int,
    precision: str,
    change: Callable = lambda network: network,
    batch: int = 128,
) -> Side:
    """A network of the shapes study: one training step on so many images, or their prediction."""
    network = change(build_network(architecture))
    pixels, targets, _ = draw(images, size)
    if what == "train":
        optimizer, _ = training.build_optimizer(network.parameters(), STUDIES.shapes.training, 1000)
        return lambda: update(network, optimizer, pixels, targets, precision), images
    return training.autocast(precision, CPU)(lambda: predict_logits(network, pixels, batch)), images


def answer_at_once(images: int, precision: str) -> Side:
    """ResNet-18 on images of 256 x 256, as `scale: paper` has them, in one batch."""
    network, (pixels, _, _) = build_network(ARCHITECTURE).eval(), draw(images, 256)
    answer = torch.inference_mode()(lambda: network(as_input(pixels)).float())
    return training.autocast(precision, CPU)(answer), images


def count(what: str, counter: str, precision: str, change: Callable = lambda network: network) -> Side:
    """A counter on purpose, 8 images: a training step as in localize.train, or what it finds."""
    network = change(quicken(counters.build(counter, PARAMS)))
    pixels, _, shapes = draw(8, SIZE)
    scenes, computing = Scenes([""] * 8, pixels.numpy(), shapes), training.autocast(precision, CPU)
    optimizer, _ = training.build_optimizer(network.parameters(), STUDIES.localize.training[counter], 1000)

    def step() -> None:
        loss = computing(network.loss)(pixels, shapes)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return (step if what == "train" else computing(lambda: counters.find(network, scenes, CPU))), 8


def optimise(architecture: str, ours: bool) -> Side:
    """The optimiser's step alone, with gradients given."""
    settings, parameters = STUDIES.shapes.training, list(build_network(architecture).parameters())
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    options = {"lr": settings.learning_rate, "betas": tuple(settings.betas), "weight_decay": settings.weight_decay}
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, **options, fused=True)
    if ours:
        optimizer, _ = training.build_optimizer(parameters, settings, 1000)

    def step() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step, 1


def extract(images: int, precision: str, ours: bool = True) -> Side:
    """VGG16's five layers, as PosENet reads them."""
    network, size, computing = backbones.build("vgg16"), STUDIES.posenet.image_size, training.autocast(precision, CPU)
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    if not ours:
        return computing(lambda: position.layer_by_layer(network, pixels)), images
    network, layers = network.to(memory_format=torch.channels_last), backbones.node_names("vgg16", None)
    extractor = backbones.Extractor("vgg16", network, layers, PARAMS.posenet.readout, PARAMS.posenet.map_size)
    return computing(lambda: position.at_once(extractor, pixels)), images


def learn_position(ours: bool) -> Side:
    """An epoch of 40 images for all cells of the grid; plainly, for those of one pattern."""
    settings, scale = PARAMS.posenet, STUDIES.posenet
    features = torch.rand(40, len(backbones.LAYERS["vgg16"]) * backbones.SLICES, settings.map_size, settings.map_size)
    cells = grid(["conv1"], settings.patterns, settings.kernel_sizes, settings.paddings, runs=1)
    options = {"features": features, "epochs": 1, "batch_size": scale.batch_size, "rate": scale.learning_rate}
    if ours:
        return lambda: position.together(cells, **options), len(cells)
    some = [cell for cell in cells if cell.pattern == "H" and cell.inputs == ALL]
    return lambda: [position.alone(cell, **options) for cell in some], len(some)


@cache
def small_clip() -> tuple[nn.Module, Pairs, Pairs]:
    """The model; 64 counting pairs, with nine captions each, and others."""
    model, counts = clip.build(clip.SMALL).eval(), [2 + i % 9 for i in range(64)]
    size, context = clip.image_size(model), model.context_length
    rngs = [item_rng(0, f"benchmark/{i}") for i in range(64)]
    texts = [caption(rng, draw_scene(rng, n, size), "right") for rng, n in zip(rngs, counts, strict=True)]
    pixels = torch.randint(0, 256, (64, 3, size, size), dtype=torch.uint8)
    counting = Pairs(pixels, tokenize_nine(texts, counts, context).ids, np.array(counts))
    return model, counting, Pairs(pixels, tokenize(texts, context).ids, np.zeros(64, int))


def question(images: int, precision: str, at_once: int | None = None) -> Side:
    """small-clip asked for numbers. at_once: so many captions of the whole context, by open_clip's own encoder."""
    model, counting, _ = small_clip()
    pixels, ids = counting.pixels[:images], counting.ids[:images]

    @torch.no_grad()
    def plain() -> None:
        for part in pixels.split(at_once):
            clip.encode_images(model, part)
        for part in ids.flatten(end_dim=-2).split(at_once):
            model.encode_text(part)

    work = training.autocast(precision, CPU)(plain) if at_once else lambda: ask(model, pixels, ids, precision)
    return work, images


class WholeContexts(Batches):
    def __getitem__(self, step: int) -> Batch:
        batch = super().__getitem__(step)
        return replace(batch, ids=pad(batch.ids, (0, self.others.ids.shape[1] - batch.ids.shape[1])))


def learn_counting(size: int, precision: str, batches: type[Batches] = Batches) -> Side:
    """small-clip's training step on a batch of so many pairs."""
    model, *pairs = small_clip()
    counting = size * STUDIES.countclip.training.counting_pairs // CLIP_BATCH
    drawn = batches(*pairs, size=size, counting_pairs=counting, counterfactuals="one", seed=0, name="benchmark")
    steps = our_steps(model, drawn, precision)
    return lambda: next(steps), 1


def networks(what: str) -> Iterator[tuple[str, Callable[..., Side]]]:
    """Those that look at images of shapes, by name; what makes a side takes the precision. ResNet-18 is the first."""
    for name in NAMES:
        for size, images in SIZES if name == "resnet18" else SIZES[:1]:
            yield f"{name}, {size} px, {images[what]}", partial(classify, what, name, images[what], size)
    for name in ("ssd", "segment"):
        yield f"{name}, {SIZE} px, 8", partial(count, what, name)


def rules() -> Iterator[Row]:
    """The precisions that are chosen. Where the CPU has no arithmetic in bf16, with few images."""
    for what in WHATS:
        emulated = f"resnet18, {SIZE} px, 2", partial(classify, what, "resnet18", 2, SIZE)
        for name, work in networks(what) if HAS_BF16 else [emulated]:
            architecture = name.partition(",")[0]
            chosen, other = choice(build_network(architecture) if what == "train" and architecture in NAMES else None)
            yield Row("auto", what, name, f"{chosen}, not {other}", partial(work, chosen), partial(work, other))
        images = {"train": CLIP_BATCH, "predict": 60}[what] if HAS_BF16 else 3
        work = partial(learn_counting if what == "train" else question, images)
        unit = "steps/s" if what == "train" else "images/s"
        chosen, other = choice()
        sides = partial(work, chosen), partial(work, other)
        yield Row("auto", what, f"small-clip, {images}", f"{chosen}, not {other}", *sides, unit)


def choice(learner: nn.Module | None = None) -> tuple[str, str]:
    """The precision that `auto` is here, and the other. learner: the network that takes training steps in it."""
    rule = training.learning_precision("auto", learner, CPU) if learner else "auto"
    chosen = "bf16" if rule == "auto" and training.multiplies_bf16(CPU) else "fp32"
    return chosen, "fp32" if chosen == "bf16" else "bf16"


def in_either_precision(precision: str) -> Iterator[Row]:
    for what in WHATS:
        for name, work in networks(what):
            ours = partial(work, precision)
            plain, nchw = (partial(ours, change=change) for change in (without_tiny_maps, in_nchw))
            if name.startswith(f"resnet18, {SIZE} px"):  # larger images have no tiny maps
                yield Row("tiny_maps", what, name, precision, ours, plain)
            yield Row("channels_last", what, name, precision, ours, nchw)
    ours = partial(classify, "predict", "resnet18", 128, SIZE, precision)
    for batch in (32, 512):
        name = f"resnet18, {SIZE} px, not {batch}"
        plain = partial(classify, "predict", "resnet18", max(batch, 128), SIZE, precision, batch=batch)
        yield Row("batch of 128", "predict", name, precision, ours, plain)
    ours, plain = partial(classify, "predict", ARCHITECTURE, 32, 256, precision), partial(answer_at_once, 32, precision)
    yield Row("large images", "predict", "resnet18, 256 px, 32", precision, ours, plain)
    name, plain = f"vgg16, {STUDIES.posenet.image_size} px, 16", partial(extract, 2, precision, ours=False)
    yield Row("all layers", "predict", name, precision, partial(extract, 16, precision), plain)


def in_one_precision() -> Iterator[Row]:
    for name in NAMES:
        ours, plain = (partial(optimise, name, ours=ours) for ours in (True, False))
        yield Row("_over_memory", "step", name, "fp32", ours, plain, "steps/s")
    ours, plain = (partial(learn_position, ours=ours) for ours in (True, False))
    yield Row("cells together", "train", f"15 channels, {STUDIES.posenet.batch_size}", "fp32", ours, plain, "cells/s")
    own = STUDIES.countclip.training.precision
    ours, plain = (partial(learn_counting, CLIP_BATCH, own, batches) for batches in (Batches, WholeContexts))
    yield Row("short captions", "train", f"small-clip, {CLIP_BATCH}", own, ours, plain, "steps/s")
    for at_once in (1, clip.AT_ONCE["cpu"]):
        ours, plain = partial(question, 60, own), partial(question, 60 if at_once > 1 else 4, own, at_once)
        yield Row("short captions", "predict", f"small-clip, not {at_once} at a time", own, ours, plain)


def measure(row: Row, seconds: float) -> tuple[float, float]:
    """What ours and the reference make of the row's unit in a second."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    sides = row.ours(), row.plain()
    for work, _ in sides:  # a warm-up
        work()
    times: tuple[list[float], list[float]] = [], []
    began = time.perf_counter()
    for patience in (1, PATIENCE):
        while len(times[0]) < LEAST_ROUNDS * patience or time.perf_counter() - began < seconds * patience:
            for (work, _), taken in list(zip(sides, times, strict=True))[:: 1 if len(times[0]) % 2 else -1]:
                start = clock()
                work()
                taken.append(clock() - start)
        ours, plain = (amount / median(taken) for (_, amount), taken in zip(sides, times, strict=True))
        if ours >= FLOOR * plain:
            break
    return ours, plain


HEAD = ("path", "what", "network, size, images", "precision", "ours", "plain", "unit", "ratio")
WIDTHS = (-14, -7, -31, -14, 8, 8, -8, 5)


def line(cells: tuple[str, ...]) -> str:
    return "  ".join(f"{c:<{-w}}" if w < 0 else f"{c:>{w}}" for c, w in zip(cells, WIDTHS, strict=True)).rstrip()


def number(rate: float) -> str:
    return f"{rate:,.{2 if rate < 10 else 1 if rate < 100 else 0}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="also a file of this kind of machine")
    parser.add_argument("--seconds", type=float, default=30, help="of measuring, shared by all rows")
    options = parser.parse_args()
    training.configure(PARAMS.seed, "benchmarks/fast_paths", PARAMS.threads)
    bf16, began = list(in_either_precision("bf16")), time.perf_counter()
    planned = [*rules(), *in_either_precision("fp32"), *in_one_precision()]
    skipped = [] if training.multiplies_bf16(CPU) else list(dict.fromkeys((row.path, row.what) for row in bf16))
    planned += [] if skipped else bf16
    table, slower = [HEAD], 0
    print(about := f"{cpu_model()}, {', '.join(arithmetic())}; torch {torch.__version__}, threads: {PARAMS.threads}")
    print(line(HEAD))
    for row in planned:
        ours, plain = measure(row, options.seconds / len(planned))
        slow = ours < FLOOR * plain
        ratio = f"{ours / plain:.2f}" + " SLOWER" * slow
        table.append((row.path, row.what, row.size, row.precision, number(ours), number(plain), row.unit, ratio))
        slower += slow
        red = slow and sys.stdout.isatty()
        print(f"\033[31m{line(table[-1])}\033[0m" if red else line(table[-1]), flush=True)
    for path, what in skipped:
        table.append((path, what, "", "bf16", "", "", "", "skipped: here auto is fp32"))
        print(line(table[-1]))
    print(end := f"{len(planned)} rows in {time.perf_counter() - began:.0f} s, {slower} below {FLOOR}")
    if options.write:
        table.insert(1, ("---",) * 4 + ("---:",) * 2 + ("---",) * 2)
        lines = [f"# {kind_of_machine()}", "", "    python -m benchmarks.fast_paths --write", "", about, ""]
        lines += [f"| {' | '.join(cells)} |" for cells in table]
        MACHINES.mkdir(exist_ok=True)
        (MACHINES / f"{kind_of_machine()}.md").write_text("\n".join([*lines, "", f"{end}.", ""]))
    sys.exit(slower > 0)


if __name__ == "__main__":
    main()
