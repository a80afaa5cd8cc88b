"""The training loop: resumable to the same bytes, its checkpoints bound to what they came from."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch
import torchvision
from conftest import stage_environment
from torch import nn

from pipeline import training
from pipeline.section import Training
from pipeline.stage import UserError

SETTINGS = Training(
    epochs=1,
    batch_size=2,
    learning_rate=0.05,
    optimizer="adamw",
    betas=[0.9, 0.99],
    weight_decay=0.01,
    schedule="one_cycle",
)


class StoppedError(Exception):
    """Stands for a kill between two steps."""


def train(folder, *, steps=40, stop_at=None, dropout=0.5, settings=SETTINGS, spoil_at=None, seed=0):
    """A small regression with dropout, so that torch's random numbers matter too; returns weights and history."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    convolution = nn.Conv2d(2, 3, 3, padding=1).to(memory_format=torch.channels_last)
    model = nn.Sequential(
        nn.Linear(3, 8),
        nn.Unflatten(1, (2, 2, 2)),
        convolution,
        nn.Flatten(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(12, 1),
    )
    optimizer, schedule = training.build_optimizer(model.parameters(), settings, steps)

    def step(i):
        if i == stop_at:
            raise StoppedError
        x = torch.sin(torch.arange(12).reshape(4, 3) + i)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        if i == spoil_at:
            loss = loss * float("nan")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss}

    (folder / "input").write_text("data")
    checkpoint = training.Checkpoint("test.small", [settings, seed], [folder / "input"])
    history = training.fit(
        step,
        steps=steps,
        state={"model": model, "optimizer": optimizer, "schedule": schedule},
        checkpoint=checkpoint,
        evaluate=lambda: {"norm": model[0].weight.norm().item()},
        evaluate_every=10,
        label="test",
    )
    return model.state_dict(), history, checkpoint


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    return tmp_path


@pytest.mark.parametrize("stop_at", [1, 7, 10, 39])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adam"])
def test_a_run_stopped_anywhere_ends_in_the_same_weights_and_history(folder, monkeypatch, stop_at, optimizer):
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    weights, history, checkpoint = train(folder, settings=settings)
    checkpoint.discard()
    with pytest.raises(StoppedError):
        train(folder, stop_at=stop_at, settings=settings)
    assert checkpoint.path.exists()
    resumed, resumed_history, _ = train(folder, settings=settings)
    assert resumed_history == history
    assert len(history.steps) == 40
    assert [row["step"] for row in history.evaluations] == [10, 20, 30, 40]
    for name in weights:
        assert torch.equal(weights[name], resumed[name]), name


def test_a_checkpoint_is_for_the_same_settings_and_inputs_only(folder):
    def path(settings=SETTINGS, seed=0, content="data"):
        (folder / "input").write_text(content)
        return training.Checkpoint("test.small", [settings, seed], [folder / "input"]).path

    assert path() == path()
    others = [path(seed=1), path(content="other"), path(SETTINGS.model_copy(update={"learning_rate": 0.06}))]
    assert len({path(), *others}) == 4


def test_runs_of_a_stage_keep_a_checkpoint_each(folder):
    for seed in (1, 2):
        with pytest.raises(StoppedError):
            train(folder, stop_at=5, seed=seed)
    *_, checkpoint = train(folder, seed=2)
    checkpoint.discard()
    (of_the_first,) = (folder / ".checkpoints").iterdir()
    assert not checkpoint.folder.exists()
    *_, checkpoint = train(folder, seed=1)
    assert checkpoint.folder == of_the_first


def test_a_checkpoint_that_nobody_continued_goes(folder):
    """After two days, when the same stage runs; another stage's stays."""
    with pytest.raises(StoppedError):
        train(folder, stop_at=5, seed=1)
    (old,) = (folder / ".checkpoints").iterdir()
    other = old.with_name(f"test.smaller.{'0' * 32}")
    other.mkdir()
    two_days_ago = time.time() - 2 * 24 * 3600 - 60
    for path in (old, other):
        os.utime(path, (two_days_ago, two_days_ago))
    *_, checkpoint = train(folder, seed=2)
    assert set((folder / ".checkpoints").iterdir()) == {checkpoint.folder, other}


def test_a_checkpoint_that_cannot_be_read_is_no_obstacle(folder, capsys):
    weights, _, checkpoint = train(folder)
    checkpoint.discard()
    with pytest.raises(StoppedError):
        train(folder, stop_at=20)
    (path,) = (folder / ".checkpoints").glob("test.small.*/*")
    path.write_bytes(path.read_bytes()[:100])
    again, *_ = train(folder)
    assert "cannot be read" in capsys.readouterr().out
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(folder):
    with pytest.raises(UserError, match=r"the loss is nan at step 23: .* lower the learning rate.*state is kept in"):
        train(folder, spoil_at=23)
    (kept,) = (folder / ".checkpoints").glob("test.small.*/*")
    saved = torch.load(kept, weights_only=True)
    assert saved["next"] == 23
    assert all(torch.isfinite(tensor).all() for tensor in saved["state"]["model"].values())


@pytest.mark.parametrize(
    ("name", "plain", "options"),
    [
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.99)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.99)}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_channels_last_weights_are_updated_as_pytorch_updates_them(name, plain, options):
    settings = SETTINGS.model_copy(update={"optimizer": name, "schedule": "constant"})
    trained = []
    for build in (
        lambda weights: training.build_optimizer(weights, settings, 5)[0],
        lambda weights: plain(weights, 0.05, weight_decay=0.01, foreach=False, **options),
    ):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, (3, 2)), nn.Tanh(), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))
        model.to(memory_format=torch.channels_last)
        optimizer = build(model.parameters())
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(2, 3, 6, 7)).exp().mean().backward()
            optimizer.step()
        trained.append(model.state_dict())
    for weight, ours in trained[0].items():
        torch.testing.assert_close(ours, trained[1][weight])
    assert trained[0]["0.weight"].is_contiguous(memory_format=torch.channels_last)


def test_one_cycle_and_constant_schedules():
    parameter = nn.Parameter(torch.zeros(1))
    rates = {}
    for name in ("one_cycle", "constant"):
        optimizer, schedule = training.build_optimizer([parameter], SETTINGS.model_copy(update={"schedule": name}), 100)
        rates[name] = []
        for _ in range(100):
            rates[name].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    assert set(rates["constant"]) == {0.05}
    assert max(rates["one_cycle"]) == pytest.approx(0.05, rel=1e-3)
    assert rates["one_cycle"][-1] < 1e-5 < rates["one_cycle"][0] < 0.01


def test_the_random_start_depends_on_seed_and_purpose(folder):
    def draw(seed, purpose):
        training.configure(seed, purpose, threads=2)
        return torch.rand(1).item()

    assert draw(0, "a") == draw(0, "a")
    assert len({draw(0, "a"), draw(1, "a"), draw(0, "b")}) == 3
    assert torch.get_num_threads() == 2


def test_precision():
    cpu = torch.device("cpu")
    x = torch.ones(4, 4)
    for precision, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        with training.autocast(precision, cpu):
            assert (x @ x).dtype == dtype
    with training.autocast("auto", cpu):
        assert (x @ x).dtype == (torch.bfloat16 if training.multiplies_bf16(cpu) else torch.float32)


def test_networks_with_depthwise_convolutions_learn_in_fp32_where_auto_chooses():
    networks = {
        name: torchvision.models.get_model(name) for name in ("resnet18", "regnet_y_400mf", "mobilenet_v3_small")
    }
    cpu = torch.device("cpu")
    chosen = {name: training.learning_precision("auto", network, cpu) for name, network in networks.items()}
    assert chosen == {"resnet18": "auto", "regnet_y_400mf": "auto", "mobilenet_v3_small": "fp32"}
    assert training.learning_precision("bf16", networks["mobilenet_v3_small"], cpu) == "bf16"  # as a person says


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_logits_of_the_cpu():
    from pipeline.shapes.network import build_network, predict_logits

    torch.manual_seed(0)
    network = build_network()
    pixels = torch.randint(0, 256, (16, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(
        predict_logits(network, pixels), predict_logits(network.cuda(), pixels), atol=1e-2, rtol=1e-2
    )


def test_checkpoints_know_the_code_they_came_from(folder, tmp_path):
    """Another version of a pipeline module gives another checkpoint."""
    code = (
        "import sys, types; from pipeline.training import Checkpoint;"
        "m = types.ModuleType('pipeline.extra'); m.__file__ = sys.argv[1]; sys.modules['pipeline.extra'] = m;"
        "print(Checkpoint('s', [], []).path)"
    )
    paths = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "extra.py").write_text(text)
        command = [sys.executable, "-c", code, str(tmp_path / "extra.py")]
        paths.add(subprocess.run(command, env=stage_environment(), capture_output=True, text=True, check=True).stdout)
    assert len(paths) == 2
