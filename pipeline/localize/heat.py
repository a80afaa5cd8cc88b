"""Heat maps of what a decision rests on, and how they lie on things whose places are known.

Grad-CAM and LIME are captum's; CAM is one sum (Zhou et al., 2016). A heat map is nowhere negative and its energies
sum to 1; where nothing speaks for the decision there is none. Source: convnets-in-vision, 'Object Detection', with
its formulas of the neuron importance weight alpha and of the heat map L.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import LayerGradCam, Lime
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from pipeline.shards import item_rng

STEPS = 10  # of the deletion and insertion curves
KERNEL_WIDTH = 0.25  # of LIME, on the cosine distance from the whole image
RIDGE = 1e-2
# One network with random weights is no control: ReLU leaves many of its maps empty, most of them of one class
RANDOM_NETWORKS = 10
RANDOM_LIME = 2  # the first of them: LIME looks at an image lime_samples times, which is most of a stage's time

Forward = Callable[[Tensor], Tensor]  # inputs [B, C, H, W] -> scores [B, classes]


def cam(maps: Tensor, weights: Tensor) -> Tensor:
    """CAM [B, h, w] of the last maps [B, K, h, w] and the weights [B, K] of a class in the dense layer."""
    return relu(torch.einsum("bkhw,bk->bhw", maps, weights))


def grad_cam(network: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """L = ReLU(sum_k alpha_k A^k), [B, h, w], alpha_k being the mean of d y / d A^k over the map, before the softmax.

    inputs: [B, C, H, W]; target: whose score y is, int64 [B]; layer: any that gives maps A, [B, K, h, w].
    """
    attribution = LayerGradCam(network, layer).attribute(inputs, target=target, relu_attributions=True)
    return attribution.squeeze(1).detach()


def lime(forward: Forward, image: Tensor, target: int, grid: int, samples: int) -> Tensor:
    """Weights [grid, grid] of the squares of an input [C, H, W] in a local linear model of a class's score.

    Squares are taken away at random (set to 0); what is closer to the whole image counts for more (exponential
    kernel), and the model has a ridge penalty. Below 0: the square speaks against the class. torch's random numbers.
    """
    places = torch.arange(grid * grid, device=image.device).view(1, 1, grid, grid).float()
    squares = interpolate(places, image.shape[-2:], mode="nearest").long()
    near = get_exp_kernel_similarity_function("cosine", KERNEL_WIDTH)
    weights = Lime(forward, SkLearnRidge(alpha=RIDGE), near).attribute(
        image[None],
        target=target,
        feature_mask=squares,
        n_samples=samples,
        perturbations_per_eval=64,
        return_input_shape=False,
    )
    return weights.view(grid, grid)


def energies(heat: Tensor, side: int, mode: str = "bilinear") -> np.ndarray:
    """Heat [B, h, w], resized to [B, side, side], what is negative left out, each map summing to 1, or all 0."""
    resized = relu(interpolate(heat[:, None].cpu().double(), (side, side), mode=mode))[:, 0].numpy()
    total = resized.sum(axis=(1, 2), keepdims=True)
    return np.divide(resized, total, out=np.zeros_like(resized), where=total > 0)


def hottest(energy: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Which are the so many hottest pixels of a map [H, W]: bool [H, W]. Of equals, any."""
    chosen = np.zeros(energy.size, bool)
    chosen[order(energy, rng)[:pixels]] = True
    return chosen.reshape(energy.shape)


def order(energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of a flattened map from the hottest to the coldest; equals in random order: int64 [H W]."""
    return np.lexsort((rng.random(energy.size), -energy.ravel()))


def location_measures(name: str) -> tuple[str, ...]:
    """What `location` measures, of things that are called so."""
    return name, "other", "background", f"{name}_over_area", "other_over_area", "specificity", "pointing", "iou"


def location(
    energy: np.ndarray, mask: np.ndarray, others: np.ndarray, name: str, rng: np.random.Generator
) -> dict[str, float]:
    """How a heat map [H, W] lies on the things that should be hot, a mask, bool [H, W], of at least one pixel.

    others: where the other things are, bool [H, W]; a pixel of both is of the first. By `location_measures(name)`:

    {name}, other, background   shares of the energy: on the mask, on the others, on neither; together 1
    {name}_over_area            share on the mask over the mask's share of the image: 1 of heat that is everywhere
    other_over_area             the same of the others; undefined where there is none
    specificity                 the first of these less the second: 0 of heat that tells things from background, and
                                not one kind from the other
    pointing                    whether the hottest pixel is on the mask, 0 or 1
    iou                         Jaccard index of the mask with as many of the hottest pixels as it has

    All are undefined (NaN) where there is no map.
    """
    names = location_measures(name)
    if not energy.any():
        return dict.fromkeys(names, np.nan)
    others = others & ~mask
    on_mask, on_others = float(energy[mask].sum()), float(energy[others].sum())
    over_area = on_mask / mask.mean()
    other_over_area = on_others / others.mean() if others.any() else np.nan
    chosen = hottest(energy, int(mask.sum()), rng)
    pointing = float(mask.flat[order(energy, rng)[0]])
    iou = float((chosen & mask).sum() / (chosen | mask).sum())
    background = float(energy[~mask & ~others].sum())
    specificity = over_area - other_over_area
    values = (on_mask, on_others, background, over_area, other_over_area, specificity, pointing, iou)
    return dict(zip(names, values, strict=True))


def untrained(build: Callable[[], nn.Module], seed: int, name: str) -> Iterator[tuple[int, nn.Module]]:
    """RANDOM_NETWORKS numbered networks that `build` makes, the weights of each by `seed`, `name` and its number."""
    for draw in range(RANDOM_NETWORKS):
        torch.manual_seed(int(item_rng(seed, f"{name}/random-{draw}").integers(2**63)))
        yield draw, build()


@torch.inference_mode()
def faithfulness(
    forward: Forward, image: Tensor, energy: np.ndarray, target: int, rng: np.random.Generator
) -> dict[str, float]:
    """Mean probability of a class while pixels of an input [C, H, W] go, or come, from the hottest to the coldest.

    A map that shows what matters has a low 'deletion' and a high 'insertion' (Petsiuk et al., 2018). What is not
    there is 0. Undefined (NaN) where there is no map.
    """
    if not energy.any():
        return {"deletion": np.nan, "insertion": np.nan}
    places = torch.from_numpy(order(energy, rng)).to(image.device)
    ranks = torch.empty_like(places).scatter_(0, places, torch.arange(len(places), device=image.device))
    ranks = ranks.view(image.shape[-2:])
    limits = [round(energy.size * step / STEPS) for step in range(STEPS + 1)]
    gone = torch.stack([ranks < limit for limit in limits])[:, None]  # [STEPS + 1, 1, H, W]
    # one curve ends where the other begins: what is whole, and what is empty, is looked at once
    seen = forward(torch.cat([image * ~gone, image * gone[1:-1]])).float().softmax(dim=1)[:, target]
    whole, empty = seen[:1], seen[STEPS : STEPS + 1]
    curves = torch.stack([seen[: STEPS + 1], torch.cat([empty, seen[STEPS + 1 :], whole])])
    deletion, insertion = torch.trapezoid(curves, dx=1 / STEPS).tolist()
    return {"deletion": deletion, "insertion": insertion}
