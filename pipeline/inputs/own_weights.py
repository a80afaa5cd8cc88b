"""Weights that a person brings, as safetensors: such a file holds tensors, and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.stage import UserError

PICKLES = (b"PK", b"\x80")  # how torch.save's files begin: an archive of pickles, or a pickle itself
CONVERT = "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW) converts one that you trust"
COUNTER = "num_batches_tracked"  # of a batch normalisation: torch counts from 0 where a file lacks it


def is_pickle(path: Path) -> bool:
    """Whether a file begins as torch.save's do."""
    with path.open("rb") as file:
        return file.read(2).startswith(PICKLES)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises UserError where there is no such file, where it is a pickle, which is never opened, and where it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; weights should be a .safetensors file")
    if is_pickle(path):
        raise UserError(f"{path}: a pickle, which can run code: refused; weights should be safetensors; {CONVERT}")
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or make it again") from None


def differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """How the tensors of a file differ from those of a network, in words; None where all fit."""
    missing = [name for name in wanted if name not in found and not name.endswith(COUNTER)]
    unknown = [name for name in found if name not in wanted]
    shaped = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    parts = [
        f"{len(names)} of its tensors {what}, first {names[0]}"
        for names, what in ((missing, "are missing"), (unknown, "are unknown"))
        if names
    ]
    if shaped:
        shapes = [tuple(tensors[shaped[0]].shape) for tensors in (found, wanted)]
        parts.append(f"{len(shaped)} have another shape, first {shaped[0]}: {shapes[0]}, should be {shapes[1]}")
    return "; ".join(parts) or None


def load_tensors(path: str | Path, network: nn.Module, name: str) -> None:
    """Read a safetensors file into a network, which messages call `name`. Raises UserError where it does not fit."""
    tensors = read_tensors(path)
    if said := differences(tensors, network.state_dict()):
        raise UserError(f"{path}: weights of another network than {name}: {said}; choose the network that they are of")
    network.load_state_dict(tensors)
