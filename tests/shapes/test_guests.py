"""Guests: a network of the user's own takes the test as ours do, and what is wrong with one is told in a line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import REPOSITORY, assert_one_line_error, edit_params, run_stages
from dvc.repo import Repo
from scipy.ndimage import label
from sklearn.metrics import cohen_kappa_score
from torch import nn

from pipeline.claims.guests import guests_html
from pipeline.params import load_params
from pipeline.predictions import read_predictions, write_predictions
from pipeline.shapes.compare_guest import kappa_with_interval
from pipeline.shapes.dataset import load_images
from pipeline.shapes.guests import Places, build_guest, check, code_of, finite, load_weights, save_weights
from pipeline.shapes.params import Guest
from pipeline.shapes.paths import Network, margin_name, split_name
from pipeline.stage import UserError

BLOB = {"name": "blob", "build": "guest.py:build", "weights": None}
SMALL = {"densities": [50], "shapes.runs": [0], "shapes.margin_densities": [10], "shapes.margins": [-4, -2, 2, 4]}
SMALL["localize.explained"] = [50]
NOISE = torch.arange(4 * 32 * 32, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(4, 32, 32)
GUEST = """
import torch
from torch import nn
from beside import SIDE

class Whiteness(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, images):
        white = images.mean(dim=(1, 2, 3)) * SIDE
        return torch.stack([1 - white, white], dim=1) * self.scale

def build():
    return Whiteness()

def number():
    return 7

def three():
    return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 3))

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

def pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()

def of_white():
    class OfWhite(nn.Module):
        def forward(self, images):
            logits = images.mean(dim=(2, 3)).expand(-1, 2)
            return logits / (1 - logits)
    return OfWhite()

def at_64():
    class At64(nn.Module):
        def forward(self, images):
            raise ValueError("images of 64 x 64 are needed")
    return At64()

def fails():
    raise KeyError("cannot be built")

def always_square():
    class Always(nn.Module):
        def forward(self, images):
            return torch.tensor([1.0, 0.0]).expand(len(images), 2)
    return Always()
"""


@pytest.fixture
def guests(workspace, monkeypatch):
    """guests(*entries, **changes): the current folder has these in params.yaml, and a guest.py."""

    def make(*entries: dict, **changes: object) -> Path:
        folder = workspace(**{"shapes.guests": list(entries), **SMALL, **changes})
        Path("guest.py").write_text(GUEST)
        Path("beside.py").write_text("SIDE = 1\n")
        return folder

    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("guest_guest", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield make
    for name in ("guest_guest", "beside", "guest_own", "broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("M50", "the paper's networks are called so"),
        ("m50-run0", "the paper's networks are called so"),
        ("regnet_y_400mf-50", "shapes.variants trains regnet_y_400mf-50"),
        ("BLOB", "another guest is called blob"),
        ("../blob", "letters, digits"),
        ("a b", "letters, digits"),
        ("", "letters, digits"),
    ],
)
def test_a_name_is_of_one_network_and_fits_a_file(guests, name, told):
    guests(BLOB, {**BLOB, "name": name})
    with pytest.raises(UserError) as error:
        load_params()
    assert "shapes" in str(error.value) and told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"build": "guest.py"}, ["shapes.guests.1.build = 'guest.py'", "FILE.py:CALLABLE", "torchvision:NAME"]),
        ({"wieghts": None}, ["unknown key 'shapes.guests.1.wieghts'", "did you mean 'weights'"]),
        ({"train": "yes"}, ["shapes.guests.1.train = 'yes'"]),
    ],
)
def test_an_entry_says_what_is_allowed(guests, entry, parts):
    guests(BLOB, {"name": "other", "build": "guest.py:build", **entry})
    with pytest.raises(UserError) as error:
        load_params()
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        ("guest.py:biuld", ["no callable 'biuld' in guest.py", "it has Whiteness, build, number"]),
        ("geust.py:build", ["no file 'geust.py'", "path from the repository's root"]),
        ("no.such.module:build", ["no module 'no.such.module'", "MODULE:CALLABLE"]),
        ("guest.py:number", ["number() returns a int", "[B, 1, H, W] in 0..1 -> logits [B, 2]"]),
        ("guest.py:fails", ["fails() raises KeyError", "cannot be built", "guest.py, line"]),
        ("broken.py:build", ["running broken.py raises SyntaxError"]),
        ("guest.py:three", ["makes logits [4, 3] of images [4, 1, 32, 32]", "logits [B, 2] (square, circle)"]),
        ("guest.py:lazy", ["has lazy modules", "give every layer its sizes"]),
        ("guest.py:pair", ["makes a tuple of images"]),
        ("guest.py:at_64", ["its network raises ValueError: images of 64 x 64 are needed", "guest.py, line"]),
        ("torchvision:resnet81", ["torchvision has no classifier of this name"]),
    ],
)
def test_what_is_wrong_with_a_guest_is_told_in_a_line(guests, build, parts):
    guests()
    Path("broken.py").write_text("def build(:\n")
    with pytest.raises(UserError) as error:
        check(build_guest(Guest(name="blob", build=build)), NOISE, train=False)
    assert build in str(error.value)
    assert all(part in str(error.value) for part in parts), error.value
    assert "\n" not in str(error.value)


def test_logits_that_are_not_numbers_name_the_image(guests):
    guests()
    pixels = torch.stack([torch.full((32, 32), grey, dtype=torch.uint8) for grey in (0, 128, 255)])
    with pytest.raises(UserError, match=r"guest.py:of_white: logits are NaN or infinite for 1 of 3 .* image 2;"):
        check(build_guest(Guest(name="blob", build="guest.py:of_white")), pixels, train=False)
    finite("guest.py:build", torch.zeros(3, 2), "images")


def test_what_cannot_be_trained_is_told(guests):
    guests()
    seated = build_guest(Guest(name="blob", build="guest.py:always_square", train=True))
    check(seated, NOISE, train=False)
    with pytest.raises(UserError, match="train: true, but its logits depend on no weights"):
        check(seated, NOISE, train=True)


def test_without_timm_a_line_says_how_to_get_it(guests, monkeypatch):
    guests()
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python has it where it is not installed
    with pytest.raises(UserError, match="timm:resnet10t: timm is not installed; 'pip install timm'"):
        build_guest(Guest(name="t", build="timm:resnet10t"))


def test_a_network_of_timm(guests):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    guests()
    guest = Guest(name="t", build="timm:resnet10t")
    check(build_guest(guest), NOISE, train=True)
    assert code_of(guest) == {"timm": timm.__version__}
    with pytest.raises(UserError, match="has no model of this name"):
        build_guest(Guest(name="t", build="timm:resnet10tt"))


def test_weights_are_read_back_though_tensors_share_memory(tmp_path):
    def build() -> nn.Module:
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2))
        network[2].weight = network[1].weight
        return network

    from pipeline.shapes.guests import Seated

    saved, read = Seated(build(), "shared"), Seated(build(), "shared")
    save_weights(tmp_path / "shared.safetensors", saved)
    load_weights(tmp_path / "shared.safetensors", read)
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(saved(images), read(images))
    empty = Seated(nn.Flatten(), "empty")
    save_weights(tmp_path / "empty.safetensors", empty)
    load_weights(tmp_path / "empty.safetensors", empty)


def test_pickles_and_other_weights_are_refused(guests):
    guests()
    seated = build_guest(Guest(name="blob", build="guest.py:build"))
    torch.save({"scale": torch.ones(2)}, "zipped.pt")
    torch.save({"scale": torch.ones(2)}, "bare.pt", _use_new_zipfile_serialization=False)
    Path("cut.safetensors").write_bytes(safetensors.torch.save({"scale": torch.ones(2)})[:-3])
    safetensors.torch.save_file({"scale": torch.ones(3)}, "three.safetensors")
    safetensors.torch.save_file({"bias": torch.ones(2)}, "bias.safetensors")
    for name, told in {
        "zipped.pt": "a pickle.*refused.*expected is a safetensors file",
        "bare.pt": "a pickle.*refused",
        "cut.safetensors": "not a whole safetensors file",
        "three.safetensors": "weights of another architecture than guest.py:build builds.*scale",
        "bias.safetensors": "weights of another architecture than guest.py:build builds.*bias",
        "none.safetensors": "no such file",
    }.items():
        with pytest.raises(UserError, match=f"^{name}: {told}") as error:
            load_weights(name, seated)
        assert "\n" not in str(error.value)


def test_code_is_known_by_its_file_and_what_that_imports(guests):
    guests()
    guest = Guest(name="blob", build="guest.py:build")
    build_guest(guest)
    assert sorted(code_of(guest)) == ["beside.py", "guest.py"]


def test_kappa_with_interval_holds_kappa_and_is_as_wide_as_its_standard_error():
    rng = np.random.default_rng(0)
    a = (rng.random(500) < 0.7).astype(float)
    b = np.where(rng.random(500) < 0.5, a, rng.random(500) < 0.6).astype(float)
    value, low, high = kappa_with_interval(a, b, 400, rng)
    assert value == pytest.approx(cohen_kappa_score(a, b))
    assert low < value < high
    assert 0.1 < high - low < 0.25
    assert np.isnan(kappa_with_interval(np.ones(4), np.ones(4), 50, rng)).all()


def test_the_example_goes_by_area(guests):
    """Of one patch of area A, 'circle' where A is above the mean of 278 and 151 pixels of 256 x 256."""
    guests()
    shutil.copy(REPOSITORY / "docs/examples/guest.py", "own.py")
    small, large = torch.zeros(1, 1, 256, 256), torch.zeros(1, 1, 256, 256)
    small[..., :14, :15], large[..., :14, :16] = 1, 1  # 210 and 224 pixels; the middle is 214.5
    large[..., 100:114, 100:116] = 1  # twice, which changes no mean
    assert label(large[0, 0].numpy())[1] == 2
    logits = build_guest(Guest(name="area", build="own.py:build"))(torch.cat([small, large]))
    assert logits.argmax(dim=1).tolist() == [0, 1]


def test_stages_come_and_go_with_guests(tmp_path, monkeypatch):
    """dvc.yaml, as DVC reads it: no guest, no stage; of one, four that nothing else depends on but the report."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    monkeypatch.chdir(tmp_path)  # DVC names stages by their place from here
    Repo.init(tmp_path, no_scm=True).close()

    def stages() -> dict[str, list[str]]:
        with Repo(tmp_path) as repo:
            graph = repo.index.graph
            return {stage.addressing: [found.addressing for found in graph.predecessors(stage)] for stage in graph}

    edit_params(tmp_path / "params.yaml", {"shapes.guests": []})
    without = stages()
    edit_params(tmp_path / "params.yaml", {"shapes.guests": [BLOB]})
    found = stages()
    ours = ["find_guest", "train_guest", "predict_guest", "compare_guest"]
    assert set(found) - set(without) == {f"{name}@guest0" for name in ours}
    assert set(found["find_guest@guest0"]) == {f"{name}@guest0" for name in ours[1:]}
    assert found["compare_guest@guest0"] == ["report"]


def planted(name: str, responses: dict[str, list[str]]) -> pd.DataFrame:
    """Trials on the sets of SMALL: four images each, answered so; the margin sets are of ten shapes."""
    rows = []
    for condition, answers in responses.items():
        margin = 2 if condition.startswith("test/") else int(condition.rpartition("margin")[2])
        for i, response in enumerate(answers):
            category = "circle" if margin > 0 else "square"
            circles = 5 + margin // 2
            row = {"observer": name, "condition": condition, "image": f"{i:06d}", "category": category}
            row |= {"response": response, "correct": response == category, "circles": circles, "squares": 10 - circles}
            rows.append(row)
    return pd.DataFrame(rows)


def test_a_guest_beside_a_network(guests, run_stage):
    """A network right on three of four images of each set, and a guest that errs on the same ones: kappa is 1."""
    guests(BLOB, {**BLOB, "name": "opposite"})
    sets = [split_name(50, "test"), *(margin_name(10, margin) for margin in (-4, -2, 2, 4))]
    right = {one: "square" if "margin-" in one else "circle" for one in sets}
    wrong = {one: "circle" if right[one] == "square" else "square" for one in sets}
    mine = {one: [right[one]] * 3 + [wrong[one]] for one in sets}
    network = planted("M50-run0", mine).assign(density=50, architecture="resnet18", run=0)
    write_predictions(Network(50).predictions, network)
    write_predictions(Places("blob").decisions, planted("blob", mine))
    write_predictions(Places("opposite").decisions, planted("opposite", {one: [wrong[one]] * 4 for one in sets}))
    for name in ("blob", "opposite"):
        Places(name).found.write_text(json.dumps({"guest": {**BLOB, "train": False}, "parameters": 0}))
        done = run_stage("shapes.compare_guest", "--name", name)
        assert done.returncode == 0, done.stderr
    found = json.loads(Path("metrics/shapes/guests/blob.json").read_text())
    assert found["kappa"]["M50"] == {"kappa": 1, "low": 1, "high": 1, "observed": 1, "runs": 1, "trials": 16}
    # Wilson's interval of 3 of 4, as in Brown, Cai and DasGupta (2001): 0.3006 to 0.9544
    accuracy = found["accuracy"]["test_50"]
    assert (accuracy["accuracy"], accuracy["networks_lowest"]) == (0.75, 0.75)
    assert (accuracy["low"], accuracy["high"]) == (pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4))
    assert found["bias"]["density_10"]["pse"] is None or abs(found["bias"]["density_10"]["pse"]) < 0.1
    opposite = json.loads(Path("metrics/shapes/guests/opposite.json").read_text())
    # always wrong beside 3 of 4 right: they agree on a fourth, as chance would have them
    assert opposite["kappa"]["M50"]["observed"] == 0.25
    assert opposite["kappa"]["M50"]["kappa"] == pytest.approx(0)
    page = guests_html()
    assert "<h3>blob</h3>" in page and "<h3>opposite</h3>" in page and "0.750 [0.301, 0.954]" in page
    assert "data:image/png;base64," in page
    edit_params(Path("params.yaml"), {"shapes.guests": []})
    assert guests_html() == ""  # files of guests that are not wanted any more stay where they are


@pytest.mark.slow
def test_guests_take_the_test(guests, run_stage):
    blob = {**BLOB, "weights": "blob.safetensors"}
    trained = {"name": "trained", "build": "torchvision:resnet18", "train": True}
    always = {"name": "always", "build": "guest.py:always_square"}
    folder = guests(blob, trained, always)
    safetensors.torch.save_file({"scale": torch.tensor([2.0, 2.0])}, "blob.safetensors")
    run_stages(folder, ("shapes.generate", "--density", 50), ("shapes.margin_sets",))
    for name in ("blob", "trained", "always"):
        for stage in ("find_guest", "train_guest", "predict_guest"):
            done = run_stage(f"shapes.{stage}", "--name", name)
            assert done.returncode == 0, done.stderr
    assert "warning: always: answers 'square' to all" in done.stdout

    # the guest says 2 (1 - white) and 2 white, of its weights
    decisions = read_predictions([Places("blob").decisions])
    images = load_images(split_name(50, "test"))
    white = images.pixels.mean(axis=(1, 2)) / 255
    tests = decisions[decisions["condition"] == split_name(50, "test")]
    assert tests["image"].tolist() == images.keys
    assert np.allclose(tests["logit_circle"], 2 * white, atol=1e-5)
    assert (tests["response"] == np.where(white > 0.5, "circle", "square")).all()
    assert set(decisions["condition"]) == {split_name(50, "test"), *(margin_name(10, m) for m in (-4, -2, 2, 4))}

    training = json.loads(Places("trained").training.read_text())
    assert training["trained"] and training["density"] == 50 and len(training["epochs"]) == 1
    assert json.loads(Places("blob").training.read_text()) == {"trained": False}

    before = Places("blob").found.read_bytes()
    assert run_stage("shapes.find_guest", "--name", "blob").returncode == 0
    assert Places("blob").found.read_bytes() == before
    Path("beside.py").write_text("SIDE = 1  # the same, in other words\n")
    done = run_stage("shapes.predict_guest", "--name", "blob")
    assert_one_line_error(done, "beside.py: has changed since find_guest looked at it")
    assert run_stage("shapes.find_guest", "--name", "blob").returncode == 0
    assert Places("blob").found.read_bytes() != before


def test_the_stage_says_what_is_missing(guests, run_stage):
    guests(BLOB, {**BLOB, "name": "gone", "build": "gone.py:build"})
    assert_one_line_error(run_stage("shapes.find_guest", "--name", "gone"), "gone.py:build: no file 'gone.py'")
    assert_one_line_error(run_stage("shapes.find_guest", "--name", "guset"), "no guest is called 'guset'", "blob, gone")
