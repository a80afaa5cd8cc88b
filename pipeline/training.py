"""Device, precision, seeding, and a training loop that can be killed at any moment.

Killed and run again, `fit` ends in the same bytes as if it had been left alone: it continues from a
checkpoint that is valid only for the same parameters, inputs, code, versions and device. The environment
variable CHECKPOINT_FOLDER says where it lies (default: `.checkpoints`), and CHECKPOINT_SECONDS how often it is
saved (default: 30).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.distributed import from_the_first, leads
from pipeline.section import Training
from pipeline.shards import item_rng
from pipeline.stage import UserError, write_bytes

if TYPE_CHECKING:
    import pandas as pd

FLUSH = 25  # steps between reads of the loss off the device
CPU_INFO = Path("/proc/cpuinfo")
ABANDONED = 2 * 24 * 3600  # seconds after which nobody continues a run
CURVE_POINTS = 40  # of a learning curve, each the mean of about as many steps


def device() -> torch.device:
    """CUDA where there is one, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def configure(seed: int, purpose: str, threads: int) -> None:
    """Make torch repeatable: its random numbers depend on `seed` and `purpose`, its sums on `threads`."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # cuDNN has no deterministic kernel for some layers: there the best is a warning.
    # As torch.use_deterministic_algorithms, which would also import torch's compiler, two seconds of every stage
    torch.set_deterministic_debug_mode("error" if device().type == "cpu" else "warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # its NaNs would cost time and show nothing here
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(threads)
    torch.manual_seed(int(item_rng(seed, purpose).integers(2**63)))


def multiplies_bf16(on: torch.device) -> bool:
    """Whether bf16 is faster than fp32 here; where the hardware has no arithmetic in it, it is many times slower.

    Intel's AVX-512 bf16 without AMX is no faster either: training ResNet-18 on a Xeon, 0.80 of fp32's images/s
    at 64 x 64, 0.96 at 256 x 256. AMD's is (docs/reference/machines.md, 'Speed').
    """
    if on.type == "cuda":
        return torch.cuda.get_device_capability(on) >= (8, 0)
    # torch.cpu has no public question for these (2.11)
    if on.type != "cpu" or torch.cpu._is_amx_tile_supported():
        return on.type == "cpu"
    return torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in CPU_INFO.read_text()


def autocast(precision: str, on: torch.device) -> AbstractContextManager:
    """Forward passes in bf16 where `precision` ('auto', 'fp32' or 'bf16') and the device ask for it."""
    bf16 = precision == "bf16" or (precision == "auto" and multiplies_bf16(on))
    return torch.autocast(on.type, torch.bfloat16, enabled=bf16)


def learning_precision(precision: str, network: nn.Module, on: torch.device) -> str:
    """The precision of this network's training steps; prediction has `precision` itself.

    On a CPU 'auto' is 'fp32' for networks with depthwise convolutions: their gradients in bf16 take several times
    as long (ShuffleNet V2 at 64 x 64 on an AMD EPYC with bf16: 0.63 of fp32's images/s; benchmarks.fast_paths).
    """
    depthwise = any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in network.modules())
    return "fp32" if precision == "auto" and on.type == "cpu" and depthwise else precision


def compiled(network: nn.Module, on: torch.device) -> nn.Module:
    """The network for training steps, compiled where that pays: on CUDA. Its weights and buffers are the network's.

    On a CPU compiling takes longer than a laptop's run, and MPS has no compiler to speak of.
    """
    return torch.compile(network) if on.type == "cuda" else network


def build_optimizer(
    parameters: Iterable[nn.Parameter], training: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimiser and learning-rate schedule that params.yaml names, for a run of `steps` steps."""
    options: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay, "fused": True}
    adam = {"betas": tuple(training.betas), **options}
    match training.optimizer:
        case "adam":
            build: Callable[..., torch.optim.Optimizer] = partial(torch.optim.Adam, **adam)
        case "adamw":
            build = partial(torch.optim.AdamW, **adam)
        case "sgd":
            build = partial(torch.optim.SGD, momentum=training.betas[0], nesterov=True, **options)
    optimizer = _over_memory(list(parameters), build)
    if training.schedule == "one_cycle":
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=steps)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _over_memory(
    parameters: list[nn.Parameter], build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    """An optimiser that has channels_last weights in the order in which memory holds them.

    On the CPU, PyTorch's fused optimisers copy what is in another order, which takes as long as the step itself.
    A gradient moves from the parameter, whose `grad` is None thereafter, to the optimiser's view of it.
    """
    held = {
        parameter: nn.Parameter(parameter.detach().permute(0, 2, 3, 1))
        for parameter in parameters
        if parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()  # as 1 x 1 kernels are either way
    }
    optimizer = build([held.get(parameter, parameter) for parameter in parameters])

    def move_gradients(*_: Any) -> None:
        for parameter, view in held.items():
            if parameter.grad is not None:
                view.grad, parameter.grad = parameter.grad.permute(0, 2, 3, 1), None

    if held:
        optimizer.register_step_pre_hook(move_gradients)
    return optimizer


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class History:
    """What a run went through. steps: one dict of floats a step; evaluations: one an evaluation."""

    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """The last state of one training run, in a folder of its own: runs of one stage side by side keep theirs.

    A folder that no run has touched for two days is removed by the next run of its stage. Of several processes under
    torchrun, the first writes and reads it and all continue from it, so that other machines need no copy.
    """

    def __init__(self, stage: str, settings: Iterable[BaseModel | str | int], inputs: Iterable[Path]) -> None:
        digest = hashlib.sha256(f"{sys.version} {torch.__version__} {device().type}".encode())
        for setting in settings:
            text = setting.model_dump_json() if isinstance(setting, BaseModel) else str(setting)
            digest.update(text.encode() + b"\0")
        code = sorted(m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "pipeline" and m.__file__)
        for path in [*map(Path, code), Path(sys.argv[0]), *inputs]:
            if path.is_file():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        where = os.environ.get("CHECKPOINT_FOLDER") or Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints"
        self.stage = stage
        self.folder = Path(where) / f"{stage}.{digest.hexdigest()[:32]}"
        self.path = self.folder / "state.pt"
        self.seconds = float(os.environ.get("CHECKPOINT_SECONDS", 30))
        self.last_save = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last save, or the start, is long enough ago."""
        return time.monotonic() - self.last_save > self.seconds

    def load(self) -> dict[str, Any] | None:
        """The state last saved by a run like this one; None where there is none that can be read."""
        return from_the_first(self._load)

    def _load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            print(f"{self.path}: cannot be read ({error}); the stage starts afresh", flush=True)
            return None

    def save(self, state: dict[str, Any]) -> None:
        if leads():
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_bytes(self.path, buffer.getbuffer())
            for folder in self.folder.parent.glob(f"{self.stage}.{'?' * 32}"):
                if time.time() - folder.stat().st_mtime > ABANDONED:
                    shutil.rmtree(folder, ignore_errors=True)
        self.last_save = time.monotonic()

    def beside(self, name: str) -> Path:
        """Where this run may keep a file of its own until its end."""
        return self.folder / name

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        if self.due:
            self.save(state())

    def discard(self) -> None:
        """Forget the run: call once its results are on disk."""
        if leads():
            shutil.rmtree(self.folder, ignore_errors=True)


def fit(
    step: Callable[[int], dict[str, Tensor]],
    *,
    steps: int,
    state: dict[str, Stateful],
    checkpoint: Checkpoint,
    evaluate: Callable[[], dict[str, float]],
    evaluate_every: int,
    label: str,
) -> History:
    """Call `step(0)` .. `step(steps - 1)`, continuing where a killed run of the same kind left off.

    `step(i)` makes update i and returns scalar tensors, 'loss' among them; it may depend on i, on
    what is in `state` (model, optimiser, schedule) and on torch's CPU random numbers, and on nothing
    else that changes. Raises UserError where the loss is not finite, naming the step.
    """
    history, first = History(), 0
    if (saved := checkpoint.load()) is not None:
        for name, part in state.items():
            part.load_state_dict(saved["state"][name])
        torch.set_rng_state(saved["random"])
        history, first = History(saved["steps"], saved["evaluations"]), saved["next"]
        print(f"{label}: continues at step {first:,} of {steps:,}", flush=True)

    unread: list[dict[str, Tensor]] = []
    for i in tqdm(range(first, steps), label, steps, initial=first, unit="step", disable=None, leave=False):
        unread.append({name: value.detach() for name, value in step(i).items()})
        evaluation_due = (i + 1) % evaluate_every == 0 or i + 1 == steps
        if evaluation_due or checkpoint.due or len(unread) == FLUSH:
            _read(unread, history, checkpoint)
        if evaluation_due:
            history.evaluations.append({"step": i + 1, **evaluate()})
        if not unread:
            checkpoint.save_if_due(partial(_snapshot, state, history))
    return history


def _snapshot(state: dict[str, Stateful], history: History) -> dict[str, Any]:
    return {
        "state": {name: part.state_dict() for name, part in state.items()},
        "random": torch.get_rng_state(),
        "next": len(history.steps),
        **asdict(history),
    }


def _read(unread: list[dict[str, Tensor]], history: History, checkpoint: Checkpoint) -> None:
    """Move the values of the latest steps off the device into the history."""
    names = list(unread[0])
    for row in torch.stack([torch.stack([values[n].float() for n in names]) for values in unread]).tolist():
        history.steps.append(dict(zip(names, row, strict=True)))
        if not math.isfinite(history.steps[-1]["loss"]):
            kept = f"; the last good state is kept in {checkpoint.path}" if checkpoint.path.exists() else ""
            raise UserError(
                f"the loss is {history.steps[-1]['loss']} at step {len(history.steps) - 1}: training diverged; "
                f"lower the learning rate{kept}"
            )
    unread.clear()


def learning_curve(steps: list[dict[str, float]]) -> pd.DataFrame:
    """Every value of a history's steps, averaged over stretches of about equal length; 'step' is a stretch's last."""
    import pandas as pd  # half a second, which a first step need not wait for

    stretches = np.array_split(np.arange(len(steps)), min(CURVE_POINTS, len(steps)))
    rows = [
        {"step": int(stretch[-1] + 1), **{name: np.mean([steps[i][name] for i in stretch]) for name in steps[0]}}
        for stretch in stretches
    ]
    return pd.DataFrame(rows).round(6)


def save_weights(path: str | Path, network: nn.Module) -> None:
    """Write a network's weights as safetensors, whole or not at all."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))


def load_weights(path: str | Path, network: nn.Module) -> None:
    """Read weights into a network. Raises UserError where they are damaged or another architecture's."""
    try:
        network.load_state_dict(safetensors.torch.load(Path(path).read_bytes()))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: does not fit {type(network).__name__}: {reason}; 'dvc repro' makes it anew") from None
