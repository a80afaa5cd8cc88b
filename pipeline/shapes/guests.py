"""A guest: a network of the user's own that takes the test beside the paper's nine (params.yaml, shapes.guests).

`build` says where it comes from:

    FILE.py:CALLABLE      a file, by its path from the repository's root
    MODULE:CALLABLE       a module that Python can import
    torchvision:NAME      a classifier of torchvision's, of one input channel and two classes
    timm:NAME             likewise of timm's

The callable takes no arguments and returns a torch module: float [B, 1, H, W] in 0..1 -> logits [B, 2], (square,
circle). What goes wrong in code that is not ours is told in one line, which names the guest's build.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchvision import models

from pipeline import training
from pipeline.inputs.own_weights import is_pickle
from pipeline.params import Params
from pipeline.shapes.network import as_input, build_network
from pipeline.shapes.params import Guest
from pipeline.shapes.paths import DATA, METRICS, PLOTS
from pipeline.shapes.scenes import KINDS
from pipeline.stage import UserError, replacing

LIBRARIES = ("torchvision", "timm")
WANTED = f"expected is a torch module: float [B, 1, H, W] in 0..1 -> logits [B, 2] ({', '.join(KINDS)})"


@dataclass(frozen=True)
class Places:
    """Where the files of a guest of this name lie (dvc.yaml declares the same places)."""

    name: str

    @property
    def found(self) -> Path:
        """What it is: its entry in params.yaml, and the digests of its code and weights."""
        return DATA / f"guests/{self.name}/found.json"

    @property
    def training(self) -> Path:
        """Its accuracy after each epoch of training here; none of a guest that comes as it is."""
        return DATA / f"guests/{self.name}/training.json"

    @property
    def weights(self) -> Path:
        return Path(f"models/shapes/guests/{self.name}.safetensors")

    @property
    def decisions(self) -> Path:
        return DATA / f"guests/{self.name}/decisions.parquet"

    @property
    def metrics(self) -> Path:
        return METRICS / f"guests/{self.name}.json"

    @property
    def plots(self) -> Path:
        return PLOTS / f"guests/{self.name}"


def named(params: Params, name: str) -> Guest:
    """The guest of this name in params.yaml. Raises UserError where there is none."""
    for guest in params.shapes.guests:
        if guest.name == name:
            return guest
    known = ", ".join(guest.name for guest in params.shapes.guests) or "none"
    raise UserError(f"params.yaml: shapes.guests: no guest is called '{name}'; there: {known}")


class Seated(nn.Module):
    """A guest's network where one of ours would be: the form of its answers is checked, and it has a device.

    Without parameters of its own a network would have none.
    """

    def __init__(self, network: nn.Module, build: str) -> None:
        super().__init__()
        self.device_marker = nn.Parameter(torch.zeros(1), requires_grad=False)  # the first of its parameters
        self.network, self.build = network, build

    def forward(self, images: Tensor) -> Tensor:
        """float [B, 1, H, W] -> logits [B, 2]. Raises UserError where the network makes something else of them."""
        logits = self.network(images)
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            kind = f"{logits.dtype} values" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(f"{self.build}: makes {kind} of images {list(images.shape)}; {WANTED}")
        if logits.shape != (len(images), len(KINDS)):
            raise UserError(f"{self.build}: makes logits {list(logits.shape)} of images {list(images.shape)}; {WANTED}")
        return logits


@contextmanager
def blamed(build: str, doing: str) -> Iterator[None]:
    """What a guest's code raises becomes a UserError of one line: kind, words, and place in the guest's file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_own(Path(frame.filename))]
        where = f" (in {frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        words = " ".join(str(error).split())[:300]
        raise UserError(f"{build}: {doing} raises {type(error).__name__}: {words}{where}; {WANTED}") from error


def is_own(path: Path) -> bool:
    """Whether a file of code is the user's own: not ours, not Python's, not an installed package's."""
    path = path.resolve()
    ours = Path(__file__).resolve().parent.parent
    installed = [*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["stdlib"]]
    elsewhere = [ours, *(Path(place).resolve() for place in installed)]
    return path.suffix == ".py" and path.is_file() and not any(path.is_relative_to(place) for place in elsewhere)


def build_guest(guest: Guest) -> Seated:
    """The guest's network, its weights as `build` leaves them. Raises UserError where there is none to be had."""
    where, _, what = guest.build.rpartition(":")
    build = BUILDERS[where] if where in LIBRARIES else called(guest.build, load_module(guest.build, where))
    with blamed(guest.build, f"{what}()"):
        network = build(what) if where in LIBRARIES else build()
    if not isinstance(network, nn.Module):
        raise UserError(f"{guest.build}: {what}() returns a {type(network).__name__}; {WANTED}")
    if any(map(is_lazy, network.parameters())):
        raise UserError(f"{guest.build}: has lazy modules, whose weights have no size yet; give every layer its sizes")
    return Seated(network, guest.build)


def _of_torchvision(name: str) -> nn.Module:
    if name not in models.list_models(module=models):
        raise UserError(
            f"torchvision:{name}: torchvision has no classifier of this name; "
            "'python -c \"import torchvision as t; print(t.models.list_models(module=t.models))\"' lists them"
        )
    return build_network(name)


def _of_timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise UserError(f"timm:{name}: timm is not installed; 'pip install timm' does it") from None
    if not timm.is_model(name):
        raise UserError(
            f"timm:{name}: timm {timm.__version__} has no model of this name; timm.list_models() lists them"
        )
    return timm.create_model(name, pretrained=False, in_chans=1, num_classes=len(KINDS))


BUILDERS: dict[str, Callable[[str], nn.Module]] = {"torchvision": _of_torchvision, "timm": _of_timm}


def load_module(build: str, where: str) -> ModuleType:
    """The file or module that `build` names, run. Raises UserError where it is not there or fails."""
    if not where.endswith(".py"):
        try:
            there = importlib.util.find_spec(where)
        except (ModuleNotFoundError, ValueError):  # a package on the way to it is not there
            there = None
        if there is None:
            raise UserError(
                f"{build}: no module '{where}' that Python can import; expected is FILE.py:CALLABLE with a path from "
                "the repository's root, MODULE:CALLABLE, torchvision:NAME or timm:NAME"
            )
        with blamed(build, f"importing {where}"):
            return importlib.import_module(where)
    path = Path(where)
    if not path.is_file():
        raise UserError(f"{build}: no file '{where}'; expected is its path from the repository's root")
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # for what it imports from beside it
    found = importlib.util.spec_from_file_location(f"guest_{path.stem}", path)
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    with blamed(build, f"running {where}"):
        found.loader.exec_module(module)
    return module


def called(build: str, module: ModuleType) -> Callable[[], Any]:
    """The callable that `build` names in its module. Raises UserError where there is none."""
    where, _, what = build.rpartition(":")
    made = getattr(module, what, None)
    if not callable(made):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        there = ", ".join(name for name in own if callable(getattr(module, name))) or "nothing that can be called"
        raise UserError(f"{build}: no callable '{what}' in {where}; it has {there}")
    return made


def load_weights(path: str | Path, seated: Seated) -> None:
    """Read safetensors into a guest's network. Raises UserError for pickles, damage, another architecture's weights."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected is a safetensors file, by its path from the repository's root")
    try:
        safetensors.torch.load_model(seated.network, path)
    except safetensors.SafetensorError as error:
        if is_pickle(path):
            raise UserError(
                f"{path}: a pickle, as torch.save writes it; refused, since it can run any code; expected is a "
                "safetensors file, as safetensors.torch.save_model(network, path) writes it"
            ) from None
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    except RuntimeError as error:
        words = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: weights of another architecture than {seated.build} builds: {words}") from None


def save_weights(path: Path, seated: Seated) -> None:
    """Write a guest's weights, whole or not at all; tensors that share memory are written once."""
    with replacing(path) as partial:
        safetensors.torch.save_model(seated.network.cpu(), str(partial))


def check(seated: Seated, pixels: Tensor, train: bool) -> None:
    """Ask the network about images, uint8 [N, H, W]. Its weights may change.

    Raises UserError where it cannot be tested; or cannot be trained, if it is to be.
    """
    images = as_input(pixels)
    with blamed(seated.build, "its network"):
        with torch.inference_mode():
            finite(seated.build, seated.eval()(images), "images of noise, of black and of white")
        if not train:
            return
        logits = seated.train()(images)
        if not logits.requires_grad:
            raise UserError(f"{seated.build}: train: true, but its logits depend on no weights that can be trained")
        logits.float().sum().backward()


def finite(build: str, logits: Tensor, of: str) -> None:
    """Raises UserError where a logit [N, 2] is NaN or infinite."""
    bad = (~torch.isfinite(logits)).any(dim=1)
    if bad.any():
        raise UserError(
            f"{build}: logits are NaN or infinite for {int(bad.sum())} of {len(bad)} {of}, first for image "
            f"{int(bad.nonzero()[0])}; expected are finite numbers for all images"
        )


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_of(guest: Guest) -> dict[str, str]:
    """sha256 of every file of the user's own code that Python has loaded; or a library's version, if it is of one.

    Files in the repository are named by their path in it. Call it once the network has answered: code may come late.
    """
    where, _, _ = guest.build.rpartition(":")
    if where in LIBRARIES:
        return {where: importlib.import_module(where).__version__}
    root = Path.cwd().resolve()
    main = Path(where if where.endswith(".py") else sys.modules[where].__file__).resolve()
    files = {Path(m.__file__).resolve() for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    beside = {path for path in files if path.is_relative_to(root) or path.is_relative_to(main.parent)}
    own = {main, *filter(is_own, beside)}
    return {(p.relative_to(root) if p.is_relative_to(root) else p).as_posix(): digest(p) for p in sorted(own)}


def open_guest(name: str, params: Params, device: torch.device) -> tuple[Guest, Seated, dict[str, Any]]:
    """A guest as find_guest found it, on this device: its entry, its network as built, and what was found of it.

    torch's random numbers are those of this guest, whatever the stage. Raises UserError where its files have changed
    since.
    """
    found = json.loads(Places(name).found.read_text())
    guest = Guest.model_validate(found["guest"])
    for path, sha256 in {**found["code"], **found["weights"]}.items():
        if path.endswith((".py", ".safetensors")) and (not Path(path).is_file() or digest(Path(path)) != sha256):
            raise UserError(f"{path}: has changed since find_guest looked at it; run 'dvc repro'")
    training.configure(params.seed, f"shapes/guests/{name}", params.threads)
    return guest, build_guest(guest).to(device), found
