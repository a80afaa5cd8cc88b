"""What a network answers at the end of every epoch of its training, in two readings.

    as saved        with batch normalisation's running statistics as training left them
    re-estimated    the same weights, with those statistics estimated anew on some training images

The first is what the paper reports, at the last epoch. The running statistics follow the training batches with a
short memory, so they may lag behind the weights; the second reading shows what of an answer is theirs. It is
torch.optim.swa_utils.update_bn: forward passes only, each batch with the same weight.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from pipeline import training
from pipeline.shapes.dataset import Images
from pipeline.shapes.network import as_input, credit, predict_logits
from pipeline.stage import write_bytes

AS_SAVED, RE_ESTIMATED = READINGS = ("as saved", "re-estimated")


def re_estimated(network: nn.Module, pixels: Tensor, *, batch_size: int, precision: str) -> nn.Module:
    """A copy of the network whose batch normalisations have the mean statistics of these images' batches.

    pixels: uint8 [N, H, W]; a last, smaller batch is left out. Other layers are as they were; a network without batch
    normalisation comes back as a mere copy.
    """
    copied = copy.deepcopy(network)
    where = next(copied.parameters()).device
    batches = pixels[: len(pixels) // batch_size * batch_size].split(batch_size)
    with training.autocast(precision, where):
        update_bn((as_input(batch.to(where)) for batch in batches), copied)
    return copied


class EpochRecord:
    """Both readings of a network, epoch by epoch, on a test set and on others. Part of a training run's checkpoint."""

    def __init__(
        self, sets: dict[str, Images], targets: Tensor, statistics: Tensor, *, batch_size: int, precision: str
    ) -> None:
        """sets: images by condition, the test set first. targets: class probabilities [N, 2] of the test set.

        statistics: uint8 [M, H, W], the images that the second reading estimates its statistics on.
        """
        self.sets, self.targets, self.statistics = sets, targets, statistics
        self.batch_size, self.precision = batch_size, precision
        self.pixels = torch.from_numpy(np.concatenate([images.pixels for images in sets.values()]))
        self.differences: list[Tensor] = []  # an epoch each: [readings, images of all sets]

    def read(self, network: nn.Module) -> dict[str, float]:
        """Add an epoch. Returns loss and accuracy on the test set: 'test_loss', 'test_loss_re_estimated' and so on."""
        versions = {"": network}
        if any(isinstance(module, _BatchNorm) for module in network.modules()):
            versions["_re_estimated"] = re_estimated(
                network, self.statistics, batch_size=self.batch_size, precision=self.precision
            )
        found, differences = {}, []
        for suffix, version in versions.items():
            with training.autocast(self.precision, next(version.parameters()).device):
                logits = predict_logits(version, self.pixels)
            tests = logits[: len(self.targets)]
            found[f"test_loss{suffix}"] = cross_entropy(tests, self.targets).item()
            found[f"test_accuracy{suffix}"] = credit(tests, self.targets).mean().item()
            differences.append((logits[:, 1] - logits[:, 0]).half().float())  # three digits: a third of the file
        self.differences.append(torch.stack(differences))
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"differences": self.differences}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.differences = state["differences"]

    def table(self) -> pd.DataFrame:
        """One row an epoch (from 1), reading and image: condition, image, circles, squares, logit_difference.

        logit_difference: logit of 'circle' minus logit of 'square', to three digits; 'circle' is the answer if > 0.
        """
        images = pd.concat(
            pd.DataFrame(
                {
                    "condition": condition,
                    "image": images.keys,
                    "circles": images.circles.astype(np.int16),
                    "squares": images.squares.astype(np.int16),
                }
            )
            for condition, images in self.sets.items()
        )
        parts = [
            images.assign(epoch=np.int16(epoch), reading=reading, logit_difference=values)
            for epoch, readings in enumerate(self.differences, start=1)
            for reading, values in zip(READINGS, readings.numpy(), strict=False)
        ]
        table = pd.concat(parts, ignore_index=True)
        text = ["reading", "condition", "image"]
        table[text] = table[text].astype("category")
        return table[["epoch", "reading", "condition", "image", "circles", "squares", "logit_difference"]]

    def write(self, path: Any) -> None:
        """The table as Parquet, whole or not at all."""
        buffer = io.BytesIO()
        self.table().to_parquet(buffer, index=False, compression="zstd")
        write_bytes(path, buffer.getvalue())
