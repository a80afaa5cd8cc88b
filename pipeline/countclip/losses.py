"""The losses with which CLIP is taught to count (countclip, sections 2.2 to 2.4).

    L = L_CLIP + lambda L_count                                            (Eq. 1)

L_CLIP is taken over all pairs of a batch, L_count over its counting pairs only. With balanced lambda,
each counting pair is weighted by the lambda of its number's class (Eqs. 3 to 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # what needs the weights of classes only has no use for torch
    from torch import Tensor

Scheme = Literal["one", "norm", "modal", "log", "log_once"]


def clip_loss(image: Tensor, text: Tensor, logit_scale: Tensor | float) -> Tensor:
    """CLIP's contrastive loss: the mean of cross entropy over texts for each image and over images for each text.

    image, text: embeddings [B, D], row by row a pair; normalised here. logit_scale: CLIP's learned one.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    logits = logit_scale * normalize(image, dim=-1) @ normalize(text, dim=-1).T
    pairs = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def count_loss(
    image: Tensor,
    text: Tensor,
    counterfactuals: Tensor,
    weights: Tensor | None = None,
    logit_scale: Tensor | float = 1.0,
) -> Tensor:
    """Each counting image should be nearer to its caption than to that caption with another number.

    image, text: embeddings [N, D] of the counting pairs; counterfactuals: [N, K, D], of one counterfactual
    caption (K = 1, Eq. 2) or of all eight (K = 8, CountPlus, Eq. 7). All are normalised here. weights:
    [N], the lambda of each pair; None for 1. logit_scale: 1 as in the equations, which have no temperature.

    Returns the mean over pairs of weight * loss, a scalar; 0 for a batch without counting pairs.
    Raises ValueError where the shapes do not fit.
    """
    import torch
    from torch.nn.functional import normalize

    n, d = image.shape
    if text.shape != (n, d) or counterfactuals.dim() != 3 or counterfactuals.shape[::2] != (n, d):
        shapes = tuple(image.shape), tuple(text.shape), tuple(counterfactuals.shape)
        raise ValueError(f"image [N, D], text [N, D] and counterfactuals [N, K, D] are needed; found {shapes}")
    if weights is not None and weights.shape != (n,):
        raise ValueError(f"weights [{n}] are needed, one a pair; found {tuple(weights.shape)}")
    captions = torch.cat([text.unsqueeze(1), counterfactuals], dim=1)  # [N, 1 + K, D], the true one first
    logits = logit_scale * torch.einsum("nd,nkd->nk", normalize(image, dim=-1), normalize(captions, dim=-1))
    losses = logits.logsumexp(dim=1) - logits[:, 0]
    if weights is not None:
        losses = losses * weights
    return losses.sum() / max(n, 1)


def balanced_lambda(frequencies: Mapping[int, int], scheme: Scheme, lambda_0: float = 1.0) -> dict[int, float]:
    """The weight of each class of the counting set, from its frequencies {number: pairs} (Eqs. 3 to 6).

    one    lambda_0, whatever the class
    norm   (1 - n / n_total) lambda_0                                                        (Eq. 3)
    modal  (n_modal / n) lambda_0, where the modal class is the most frequent one            (Eq. 4)
    log    ((s - s_min) / s_max + 1) lambda_0, with s = log2(log2(n_total / n))         (Eqs. 5, 6)
    log_once   the same with s = log2(n_total / n), which the paper tried before          (section 2.3)

    A class without pairs has no frequency to weigh it by (modal and log would be infinite): it gets the
    weight of the rarest class that has some. log of log is undefined where one class has all pairs, and
    s_max is 0 where two classes share them equally; there, all classes weigh lambda_0.

    Raises ValueError for a negative frequency, no pairs at all, or another scheme.
    """
    if any(n < 0 for n in frequencies.values()) or not sum(frequencies.values()):
        raise ValueError(f"frequencies should be 0 or more, and not all 0; found {dict(frequencies)}")
    total = sum(frequencies.values())
    present = {number: n for number, n in frequencies.items() if n}
    match scheme:
        case "one":
            factors = dict.fromkeys(present, 1.0)
        case "norm":
            factors = {number: 1 - n / total for number, n in present.items()}
        case "modal":
            factors = {number: max(present.values()) / n for number, n in present.items()}
        case "log" | "log_once":
            factors = _log_factors(present, total, twice=scheme == "log")
        case _:
            raise ValueError(f"scheme = {scheme!r}; should be 'one', 'norm', 'modal', 'log' or 'log_once'")
    rarest = min(present, key=lambda number: present[number])
    return {number: lambda_0 * factors.get(number, factors[rarest]) for number in frequencies}


def _log_factors(present: dict[int, int], total: int, twice: bool) -> dict[int, float]:
    if len(present) == 1:
        return dict.fromkeys(present, 1.0)
    sigma = {number: math.log2(total / n) for number, n in present.items()}
    if twice:
        sigma = {number: math.log2(s) for number, s in sigma.items()}
    low, high = min(sigma.values()), max(sigma.values())
    return {number: (s - low) / high + 1 if high else 1.0 for number, s in sigma.items()}
