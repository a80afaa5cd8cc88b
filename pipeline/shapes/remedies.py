"""Ways to train one density's network that may remove its bias (implicit-counting, Discussion and last questions).

    python -m pipeline.shapes.remedies --recipe antialiased --density 50 --run 0

Each is the paper's training with one thing changed; run r of each begins with the same weights and the same order of
images as run r of the others, as far as the change allows.

as_trained            the paper's
ties_half_and_half    a tie's targets are one half each, not 'square'
small_margins         only images whose margin is within 8, each as often as it takes for as many steps
balanced_margins      images drawn such that margins m and -m are equally frequent
averaged_weights      an exponential mean of the weights over steps; batch normalisation's statistics of that mean
constant_rate         the learning rate stays
one_cycle_rate        the learning rate rises, then falls to nearly 0
statistics_anew       after training, batch normalisation's statistics estimated anew on training images
group_normalisation   in groups of 32 channels of one image, in place of batch normalisation (Wu and He, 2018)
antialiased           maps are blurred before they are thinned out (Zhang, 2019)
circular_padding      maps are padded with their other end, not with zeros
all_densities         as many images, of all densities in equal parts
regression            two numbers out, squares and circles over the density; squared error; the larger is the answer
momentum_0.02         of batch normalisation's running statistics, in place of PyTorch's 0.1: the mean of more batches
momentum_0.5          the mean of hardly more than the last two batches; no weight differs, as with 0.02
third_of_the_rate     a third of the scale's learning rate
thrice_the_rate       the scale's learning rate times three
half_the_batch        half as many images a batch as the scale says, so twice the steps
twice_the_batch       twice as many, so half the steps
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, mse_loss, pad
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from pipeline import stage, training
from pipeline.padding import pad_with
from pipeline.params import Params, load_params
from pipeline.predictions import write_predictions
from pipeline.shapes.dataset import Images, load_images
from pipeline.shapes.epochs import re_estimated
from pipeline.shapes.network import as_input, build_network, majority_targets, predict_logits
from pipeline.shapes.paths import Network, shard_path, split_name
from pipeline.shapes.predict import conditions, trials
from pipeline.shards import item_rng
from pipeline.stage import UserError

KEPT = Path("report/remedies")  # the decisions of every network
BASELINE = "as_trained"
SMALL = 8  # the widest of the paper's margin sets
EMA = 0.98  # of the mean of weights, a step
CHANNELS = 32  # of a group
BLUR = (1, 2, 1)  # along either axis; Zhang's triangle


@dataclass(frozen=True)
class Recipe:
    """What differs from the paper's training."""

    change: Callable[[nn.Module], nn.Module] = field(default=lambda network: network)
    choose: Callable[[Images, int, np.random.Generator], np.ndarray] | None = None  # which images: places of so many
    all_densities: bool = False
    target: str | None = None  # as shapes.target
    schedule: str | None = None  # as training.schedule
    regression: bool = False
    averaged: bool = False
    statistics_anew: bool = False
    rate: float = 1  # times training.learning_rate
    batch: float = 1  # times training.batch_size


def small_margins(images: Images, number: int, rng: np.random.Generator) -> np.ndarray:
    """Places of `number` images whose margin is within 8: all in turn, in another order each time."""
    places = np.flatnonzero(np.abs(images.margins) <= SMALL)
    return np.concatenate([rng.permutation(places) for _ in range(-(-number // len(places)))])[:number]


def balanced_margins(images: Images, number: int, rng: np.random.Generator) -> np.ndarray:
    """Places of `number` images, drawn with replacement: m and -m are equally frequent, where there are both."""
    values, which, count = np.unique(images.margins, return_inverse=True, return_counts=True)
    frequency = dict(zip(values.tolist(), count.tolist(), strict=True))
    wanted = np.array([(frequency[m] + frequency[-m]) / 2 if -m in frequency else 0 for m in values.tolist()])
    weights = (wanted / count)[which]
    return rng.choice(len(weights), size=number, p=weights / weights.sum())


def every_density(images: Images, number: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(len(images.margins))[:number]


def group_normalised(network: nn.Module) -> nn.Module:
    """Every batch normalisation replaced by group normalisation."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            channels = module.num_features
            setattr(network.get_submodule(parent), child, nn.GroupNorm(channels // CHANNELS, channels))
    return network


def with_momentum(network: nn.Module, momentum: float) -> nn.Module:
    """The weight of the newest batch in every batch normalisation's running statistics, 0..1, is `momentum`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    return network


class Blur(nn.Module):
    """Each channel of a map [B, C, H, W] blurred by a 3 x 3 triangle, and every second pixel of either axis kept."""

    def forward(self, x: Tensor) -> Tensor:
        line = torch.tensor(BLUR, dtype=x.dtype, device=x.device) / sum(BLUR)
        kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
        return conv2d(pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def antialiased(network: nn.Module) -> nn.Module:
    """Strided convolutions, but the first, and strided pooling take every pixel; Blur thins their maps out."""
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    for name, module in list(network.named_modules()):
        strided = isinstance(module, nn.Conv2d | nn.MaxPool2d) and module.stride in (2, (2, 2))
        if not strided or name == convolutions[0]:
            continue
        module.stride = 1 if isinstance(module, nn.MaxPool2d) else (1, 1)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Sequential(module, Blur()))
    return network


RECIPES = {
    "as_trained": Recipe(),
    "ties_half_and_half": Recipe(target="soft"),
    "small_margins": Recipe(choose=small_margins),
    "balanced_margins": Recipe(choose=balanced_margins),
    "averaged_weights": Recipe(averaged=True),
    "constant_rate": Recipe(schedule="constant"),
    "one_cycle_rate": Recipe(schedule="one_cycle"),
    "statistics_anew": Recipe(statistics_anew=True),
    "group_normalisation": Recipe(change=group_normalised),
    "antialiased": Recipe(change=antialiased),
    "circular_padding": Recipe(change=partial(pad_with, mode="circular")),
    "all_densities": Recipe(choose=every_density, all_densities=True),
    "regression": Recipe(regression=True),
    "momentum_0.02": Recipe(change=partial(with_momentum, momentum=0.02)),
    "momentum_0.5": Recipe(change=partial(with_momentum, momentum=0.5)),
    "third_of_the_rate": Recipe(rate=1 / 3),
    "thrice_the_rate": Recipe(rate=3),
    "half_the_batch": Recipe(batch=1 / 2),
    "twice_the_batch": Recipe(batch=2),
}


def differing(params: Params) -> list[str]:
    """The recipes that are not as the paper's network is trained at this scale anyway."""
    settings, same = params.at_scale.shapes.training, []
    for name, recipe in RECIPES.items():
        if name != BASELINE and (recipe.schedule == settings.schedule or recipe.target == params.shapes.target):
            same.append(name)
    return [name for name in RECIPES if name not in same]


def averaged_weights(network: nn.Module) -> AveragedModel:
    """An exponential mean of a network's weights, over the steps at which it is updated."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA))


def train(
    name: str, density: int, run: int, images: Images, params: Params, checkpoint: training.Checkpoint
) -> nn.Module:
    """A network trained by the recipe of this name. images: the density's training images, or those of all densities.

    The caller discards the checkpoint. Raises UserError where training diverges.
    """
    recipe, device = RECIPES[name], training.device()
    settings = params.at_scale.shapes.training
    settings = settings.model_copy(
        update={
            "schedule": recipe.schedule or settings.schedule,
            "learning_rate": settings.learning_rate * recipe.rate,
            "batch_size": round(settings.batch_size * recipe.batch),
        }
    )
    # as in pipeline/shapes/train.py, so that runs begin alike
    purpose = f"shapes/train/M{density}-run{run}"
    training.configure(params.seed, purpose, params.threads)
    network = recipe.change(build_network()).to(device, memory_format=torch.channels_last)
    precision = training.learning_precision(params.precision, network, device)
    number = params.at_scale.shapes.train_images
    places = np.arange(number)
    if recipe.choose:
        places = recipe.choose(images, number, item_rng(params.seed, f"shapes/remedies/{name}/{density}/{run}"))
    pixels = torch.from_numpy(images.pixels[places]).to(device)
    if recipe.regression:
        targets = torch.from_numpy(np.stack([images.squares, images.circles], axis=1)[places] / density).float()
    else:
        targets = torch.from_numpy(majority_targets(images.margins[places], recipe.target or params.shapes.target))
    targets = targets.to(device)
    loss_of = mse_loss if recipe.regression else cross_entropy
    epoch_steps = number // settings.batch_size
    steps = settings.epochs * epoch_steps
    optimizer, schedule = training.build_optimizer(network.parameters(), settings, steps)
    state: dict[str, training.Stateful] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    mean = averaged_weights(network) if recipe.averaged else None
    if mean:
        state["mean"] = mean

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return torch.from_numpy(item_rng(params.seed, f"{purpose}/epoch-{epoch}").permutation(number)).to(device)

    def step(i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, epoch_steps)
        batch = order(epoch)[place * settings.batch_size :][: settings.batch_size]
        with training.autocast(precision, device):
            loss = loss_of(network(as_input(pixels[batch])).float(), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if mean:
            mean.update_parameters(network)
        return {"loss": loss}

    training.fit(
        step,
        steps=steps,
        state=state,
        checkpoint=checkpoint,
        evaluate=dict,
        evaluate_every=steps,
        label=f"{name}, run {run}",
    )
    chosen = item_rng(params.seed, f"{purpose}/statistics").permutation(number)
    some = pixels[chosen[: params.at_scale.shapes.readings.statistics_images]]
    if recipe.statistics_anew:
        return re_estimated(network, some, batch_size=settings.batch_size, precision=params.precision)
    if mean:
        batches = some[: len(some) // settings.batch_size * settings.batch_size].split(settings.batch_size)
        with training.autocast(params.precision, device):
            update_bn((as_input(batch) for batch in batches), mean)
        return mean.module
    return network


def training_images(name: str, density: int, params: Params) -> Images:
    """What a recipe trains on: the density's images, or the first of every density's, as many in all."""
    if not RECIPES[name].all_densities:
        return load_images(split_name(density, "train"))
    each = -(-params.at_scale.shapes.train_images // len(params.densities))
    parts = [load_images(split_name(of, "train"), first=each) for of in params.densities]
    first, *_ = parts
    return replace(
        first,
        keys=[key for part in parts for key in part.keys],
        **{of: np.concatenate([getattr(part, of) for part in parts]) for of in ("pixels", "circles", "squares")},
    )


def inputs_of(name: str, density: int, params: Params) -> list[Path]:
    """The shards that a recipe reads. Raises UserError where one is missing."""
    trained_on = params.densities if RECIPES[name].all_densities else [density]
    shards = [
        shard_path(of)
        for of in [*(split_name(of, "train") for of in trained_on), *conditions(Network(density), params)]
    ]
    if missing := [path for path in shards if not path.exists()]:
        raise UserError(f"{missing[0]}: not there; 'dvc repro generate_shapes margin_sets' draws it")
    return shards


def settings_of(name: str, params: Params) -> list:
    return [name, params.seed, params.threads, params.precision, params.shapes, params.at_scale.shapes]


@lru_cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept(name: str, density: int, number: int, params: Params) -> Path:
    """Where the decisions of a network are kept: another file for other settings, images or recipes."""
    made_of = [str(setting) for setting in settings_of(name, params)]
    made_of += [_digest(path) for path in [Path(__file__), *inputs_of(name, density, params)]]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    return KEPT / f"{name}-{density}-run{number}.{digest}.parquet"


def main(recipe: str, density: int, run: int) -> str:
    """Train by a recipe, unless that is done, and put the network before all test and margin sets."""
    if recipe not in RECIPES:
        raise UserError(f"--recipe {recipe}: not one of {', '.join(RECIPES)}")
    params = load_params()
    path = kept(recipe, density, run, params)
    if path.exists():
        return f"{path} is there already,"
    checkpoint = training.Checkpoint(
        stage=f"shapes.remedies.{recipe}-{density}-run{run}",
        settings=settings_of(recipe, params),
        inputs=inputs_of(recipe, density, params),
    )
    network = train(recipe, density, run, training_images(recipe, density, params), params, checkpoint)
    tables = []
    for condition in conditions(Network(density), params):
        images = load_images(condition)
        with training.autocast(params.precision, training.device()):
            logits = predict_logits(network, torch.from_numpy(images.pixels)).numpy()
        tables.append(trials(f"{recipe}-run{run}", condition, images, logits, params.shapes.target))
    write_predictions(path, pd.concat(tables, ignore_index=True).assign(recipe=recipe, density=density, run=run))
    checkpoint.discard()
    return f"{sum(map(len, tables)):,} decisions in {path},"


if __name__ == "__main__":
    stage.run(main, recipe=str, density=int, run=int)
