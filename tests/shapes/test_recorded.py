"""Networks that were kept: numbers of those that there are, the stage's own numbers of all, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, edit_params

from pipeline.claims import record
from pipeline.claims.evidence import UnmeasuredError, measure, recorded_runs
from pipeline.claims.schema import Measure
from pipeline.predictions import write_predictions
from pipeline.shapes import evaluate, recorded
from pipeline.shapes.dataset import Images
from pipeline.shapes.paths import Network, margin_name, split_name
from pipeline.shapes.predict import trials
from pipeline.stage import UserError

DENSITIES = [10, 50]
FOLDER = Path("results/smoke/shapes")


def make(network: Network, rightly: int) -> None:
    """What stages leave of a network that answers the first `rightly` of ten images of every set rightly."""
    tables = []
    for name, margin in [*((split_name(d, "test"), 2) for d in DENSITIES), *((margin_name(10, m), m) for m in (-4, 4))]:
        images = Images(
            keys=[f"{i:06d}" for i in range(10)],
            pixels=np.zeros((10, 4, 4), np.uint8),
            circles=np.full(10, 10 + margin),
            squares=np.full(10, 10),
        )
        logits = np.zeros((10, 2), np.float32)
        logits[:, 1] = np.where(np.arange(10) < rightly, 1, -1) * np.sign(margin)
        tables.append(trials(network.name, name, images, logits, "hard"))
    write_predictions(network.decisions, pd.concat(tables, ignore_index=True).assign(**dataclasses.asdict(network)))
    for path in (network.epochs, network.curve, network.training_metrics):
        path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(
        {
            "epoch": [1, 1, 1, 2, 2],
            "reading": ["as saved", "as saved", "re-estimated", "as saved", "re-estimated"],
            "condition": [*[margin_name(10, -4)] * 4, margin_name(10, 4)],
            "circles": [6, 6, 6, 6, 14],
            "squares": 10,
            "logit_difference": [0.5, -0.5, 1.0, -1.0, 1.0],
        }
    ).to_parquet(network.epochs)
    steps = {"network": network.density, "run": network.run, "images_seen": [16, 32, 48, 64], "accuracy": 0.5}
    pd.DataFrame({**steps, "loss": [1.0, 0.7, 0.6, 0.5]}).to_csv(network.curve, index=False)
    network.training_metrics.write_text(json.dumps({"epochs": [{"test_accuracy": rightly / 10}]}))


@pytest.fixture
def made(workspace, monkeypatch) -> dict[str, Network]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    workspace(
        densities=DENSITIES,
        **{"shapes.margin_densities": [10], "shapes.margins": [-4, 4], "shapes.runs": [0], "scale": "smoke"},
    )
    networks = {density: Network(density) for density in DENSITIES}
    for density, rightly in ((10, 9), (50, 7)):
        make(networks[density], rightly)
    return {network.name: network for network in networks.values()}


def read(name: str) -> dict:
    return json.loads((FOLDER / name).read_text())


def test_one_network_has_its_numbers_and_says_what_the_others_are_needed_for(made):
    recorded.main(keep="M50-run0")
    recorded.main()
    numbers = read("metrics.shapes.json")
    assert numbers["recorded"] == ["M50-run0"]
    assert numbers["own_test_accuracy"]["M50"] == pytest.approx(0.7)
    # 7 of 10 answers are right: 'square' with four more squares, and 'circle' with four more circles
    assert numbers["answered_circle_with_4_more_squares"]["M50"]["density_10"] == pytest.approx(0.3)
    assert numbers["answered_circle_with_4_more_squares_by_epoch"] == {
        "M50-run0": [
            {"epoch": 1, "as_saved": {"density_10": 0.5}, "re_estimated": {"density_10": 1.0}},
            {"epoch": 2, "as_saved": {"density_10": 0.0}},
        ]
    }
    cells = read("plots.shapes.accuracy.json")
    assert [(cell["network"], cell["test"], cell["accuracy"]) for cell in cells] == [(50, 10, 0.7), (50, 50, 0.7)]
    (run,) = recorded_runs()
    assert run.scale == "smoke"
    asked = Measure(file="metrics/shapes.json", value="statements.own_over_other_sets.mean")
    with pytest.raises(UnmeasuredError, match="needs all networks; not there: M10"):
        measure(asked, run)
    with pytest.raises(UnmeasuredError, match="needs all networks; not there: M10"):
        measure(Measure(file="metrics/shapes.json", value="own_test_accuracy.mean"), run)
    one_run = numbers["bias"]["M50"]["density_10"]
    assert (one_run["low"], one_run["high"]) == (None, None)  # images alone do not say what another run would give
    margin = {"network": 50, "density": 10, "margin": -4}
    with pytest.raises(UnmeasuredError, match="one training run"):
        measure(Measure(file="plots/shapes/margins.json", where=margin, value="circle", runs="runs"), run)
    for picture in ("accuracy_table", "margins", "psychometric", "bias"):
        assert (FOLDER / f"{picture}.png").stat().st_size > 1000


def test_all_networks_have_the_numbers_that_the_stage_writes(made):
    for name, network in made.items():
        recorded.main(keep=name)
        network.predictions.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(network.decisions, network.predictions)
    recorded.main()
    evaluate.main()
    numbers = read("metrics.shapes.json")
    assert numbers.pop("recorded") == ["M10-run0", "M50-run0"]
    assert numbers.pop("answered_circle_with_4_more_squares_by_epoch").keys() == {"M10-run0", "M50-run0"}
    assert numbers == json.loads(Path("metrics/shapes.json").read_text())
    for table in ("accuracy", "margins", "bias", "curves"):
        assert read(f"plots.shapes.{table}.json") == json.loads(Path(f"plots/shapes/{table}.json").read_text())
    assert record.main(check="yes").startswith("1 of 1 recorded runs")


def test_a_further_run_counts_once_all_networks_have_it(made):
    edit_params(Path("params.yaml"), {"shapes.runs": [0, 1]})
    for density, rightly in ((10, 9), (50, 7)):
        make(Network(density), rightly)
        make(Network(density, run=1), 5)
    for name in ("M10-run0", "M50-run0", "M50-run1"):
        recorded.main(keep=name)
    recorded.main()
    assert read("metrics.shapes.json")["recorded"] == ["M10-run0", "M50-run0"]
    recorded.main(keep="M10-run1")
    recorded.main()
    assert [cell["accuracy_by_run"] for cell in read("plots.shapes.accuracy.json")[::3]] == [[0.9, 0.5], [0.7, 0.5]]


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda: change(FOLDER / "M10-run0/provenance.json", scale="paper"), r"M10-run0: is of scale 'paper'"),
        (lambda: shutil.copytree(FOLDER / "M10-run0", FOLDER / "M10-run0-again"), r"M10-run0-again: has the files"),
        (lambda: (FOLDER / "M10-run0").rename(FOLDER / "M10-run3"), r"M10-run3: has the files .*M10-run0"),
        (
            lambda: change(next(FOLDER.glob("M10-run0/*.json")), epochs=[{"test_accuracy": 0.8}]),
            r"M10-run0: the decisions have an accuracy of 0.900 .* its training metrics 0.800",
        ),
        (
            lambda: shutil.copy(
                *(next(FOLDER.glob(f"{name}-run0/*decisions*")) for name in ("M50", "M10")),
            ),
            r"M10-run0.*decisions of M50-run0",
        ),
        (lambda: next(FOLDER.glob("M10-run0/*.csv")).unlink(), r"M10-run0/provenance.json: names files .* not there"),
    ],
)
def test_a_network_that_is_not_what_its_folder_says_is_refused_by_name(made, harm, says):
    for name in made:
        recorded.main(keep=name)
    harm()
    with pytest.raises(UserError, match=says):
        recorded.main()


def test_numbers_that_the_decisions_do_not_give_are_refused_by_name(made):
    for name in made:
        recorded.main(keep=name)
    recorded.main()
    path = FOLDER / "metrics.shapes.json"
    numbers = json.loads(path.read_text())
    numbers["lowest"]["accuracy"] += 0.01
    path.write_text(json.dumps(numbers))
    says = r"metrics.shapes.json: .* do not give metrics/shapes.json.lowest.accuracy"
    with pytest.raises(UserError, match=says):
        recorded.main(check="yes")
    with pytest.raises(UserError, match="results/smoke/shapes: error: .*" + says):
        record.main(check="yes")  # of all recorded runs


def test_what_is_not_there_is_said(made):
    with pytest.raises(UserError, match=r"M70-run0: no network of params.yaml; it has M10-run0, M50-run0"):
        recorded.main(keep="M70-run0")
    with pytest.raises(UserError, match=r"results/smoke/shapes: no network is kept; '--keep M50-run0'"):
        recorded.main()
    made["M10-run0"].decisions.unlink()
    with pytest.raises(UserError, match=r"decisions/paper/M10-run0\.parquet"):
        recorded.main(keep="M10-run0")
    with pytest.raises(UserError, match="--scale papr: allowed are smoke, laptop, paper"):
        recorded.main(scale="papr")
