"""How well embeddings tell how many: CountBench's question and its measures (countclip, section 3).

For each image there are nine captions, the same but for the number; the one most similar to the image
is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline import training
from pipeline.countclip import clip
from pipeline.countclip.captions import NUMBERS


def similarities(image: Tensor, captions: Tensor) -> Tensor:
    """Cosine similarity [N, 9] of images [N, D] with their nine captions [N, 9, D], in the order of NUMBERS."""
    if captions.shape != (len(image), len(NUMBERS), image.shape[-1]):
        raise ValueError(
            f"captions [{len(image)}, {len(NUMBERS)}, {image.shape[-1]}] are needed; found {tuple(captions.shape)}"
        )
    return (normalize(captions, dim=-1) @ normalize(image, dim=-1).unsqueeze(-1)).squeeze(-1)


def ask(model: nn.Module, pixels: Tensor, ids: Tensor, precision: str) -> Tensor:
    """Similarity [N, 9] of images [N, 3, S, S] with their nine captions [N, 9, L]."""
    with training.autocast(precision, model.logit_scale.device):
        image, captions = clip.embed_images(model, pixels), clip.embed_texts(model, ids)
    return similarities(image, captions)


def answers(similarity: Tensor) -> np.ndarray:
    """The number [N], 2..10, whose caption is most similar; the smallest of several."""
    return np.array(NUMBERS)[similarity.argmax(dim=1).cpu().numpy()]


def accuracy(right: int, images: int) -> dict[str, float]:
    """Share of images answered right, with Wilson's 95% interval."""
    from scipy.stats import binomtest  # training asks without it

    wilson = binomtest(right, images).proportion_ci(method="wilson")
    return {"images": images, "accuracy": right / images, "low": float(wilson.low), "high": float(wilson.high)}


def measures(true: Sequence[int] | np.ndarray, answered: Sequence[int] | np.ndarray) -> dict:
    """Measures of answers [N] against true numbers [N], both 2..10.

    accuracy with Wilson's 95% interval; mean absolute deviation; by class, precision, recall and F1, None
    where undefined (a class that was never answered has no precision, one without images no recall);
    confusion: [9, 9] counts, rows true, columns answered, in the order of NUMBERS.

    Raises ValueError for none at all, different lengths, or a number that is not 2..10.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # training asks without it

    true, answered = np.asarray(true), np.asarray(answered)
    if true.shape != answered.shape or true.ndim != 1 or not len(true):
        raise ValueError(
            f"as many answers as true numbers are needed, at least one; found {answered.shape}, {true.shape}"
        )
    if not np.isin([*true, *answered], NUMBERS).all():
        raise ValueError(
            f"numbers should be 2..10; found {sorted({*true.tolist(), *answered.tolist()} - set(NUMBERS))}"
        )
    right = int((true == answered).sum())
    by_class = precision_recall_fscore_support(true, answered, labels=NUMBERS, zero_division=np.nan)
    names = ("precision", "recall", "f1", "images")
    return {
        **accuracy(right, len(true)),
        "mean_absolute_deviation": float(np.abs(true - answered).mean()),
        "by_class": {
            str(number): {
                name: None if np.isnan(value) else (int(value) if name == "images" else float(value))
                for name, value in zip(names, values, strict=True)
            }
            for number, values in zip(NUMBERS, zip(*by_class, strict=True), strict=True)
        },
        "confusion": confusion_matrix(true, answered, labels=NUMBERS).tolist(),
    }
