"""The study's numbers from networks that were kept: a scale whose training takes many sittings.

    python -m pipeline.shapes.recorded --keep M50-run0             after 'dvc repro predict_shapes@50-0'
    python -m pipeline.shapes.recorded --scale paper               numbers and figures of all networks that are kept
    python -m pipeline.shapes.recorded --scale paper --check yes   are the numbers what the decisions say?

The first copies a network's decisions, its answers after every epoch, its loss curve and its training metrics to
results/<scale>/shapes/M50-run0/, with where they come from; no weights. The second writes what evaluate_shapes would
to results/<scale>/shapes/, where claims find it. As long as networks are missing, it has the numbers of single
networks only, and says which are missing. Networks with several runs count by those runs that all networks have.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.claims import record
from pipeline.claims.evidence import PROVENANCE, RECORDED, SCALES, Provenance, read_provenance
from pipeline.params import Params, load_params
from pipeline.predictions import read_predictions
from pipeline.shapes import figures
from pipeline.shapes.evaluate import evaluated
from pipeline.shapes.paths import METRICS, PLOTS, Network, margin_name, split_name
from pipeline.stage import UserError, run, write_bytes, write_json

ALIKE = 0.01  # by which accuracies of the same images may differ that were predicted in other batches
NUMBERS = METRICS.with_suffix(".json").as_posix()


def files_of(network: Network) -> list[str]:
    """What is kept of a network, by the paths that stages write."""
    return [path.as_posix() for path in (network.decisions, network.epochs, network.curve, network.training_metrics)]


def keep_network(name: str, params: Params) -> str:
    """Record one network of params.yaml. Raises UserError: no such network, not predicted yet, or of another scale."""
    networks = {n.name: n for n in (Network(of, run=r) for of in params.densities for r in params.shapes.runs)}
    if name not in networks:
        raise UserError(f"--keep {name}: no network of params.yaml; it has {', '.join(networks)}")
    return record.main(f"shapes/{name}", files=",".join(files_of(networks[name])))


class Kept:
    """One network that was kept. folder: results/<scale>/shapes/<network>."""

    def __init__(self, folder: Path, params: Params) -> None:
        """Raises UserError, by the folder's name: of another scale, another network's, or numbers that disagree."""
        self.provenance = read_provenance(folder / PROVENANCE)
        if self.provenance.scale != folder.parts[-3]:
            raise UserError(f"{folder}: is of scale '{self.provenance.scale}'; record it with that scale's parameters")
        known = {n.name: n for n in (Network(of, run=r) for of in params.densities for r in range(100))}
        self.network = known.get(folder.name)
        if self.network is None or set(files_of(self.network)) != self.provenance.files.keys():
            raise UserError(
                f"{folder}: has the files {', '.join(self.provenance.files)}; --keep {folder.name} would keep others"
            )
        decisions, epochs, curve, metrics = (folder / self.provenance.files[file] for file in files_of(self.network))
        self.trials = read_predictions([decisions])
        if set(map(str, self.trials["observer"])) != {self.network.name}:
            raise UserError(f"{decisions}: decisions of {', '.join(self.trials['observer'].unique())}")
        self.curve = pd.read_csv(curve)
        self.epochs = [epoch["test_accuracy"] for epoch in json.loads(metrics.read_text())["epochs"]]
        self.epoch_answers = pd.read_parquet(epochs)
        own = self.trials[self.trials["condition"].astype(str) == split_name(self.network.density, "test")]
        accuracy = own["correct"].astype("Float64").fillna(0.5).mean()
        if abs(accuracy - self.epochs[-1]) > ALIKE:
            raise UserError(
                f"{folder}: the decisions have an accuracy of {accuracy:.3f} on the network's own test set, its "
                f"training metrics {self.epochs[-1]:.3f}; keep the network again"
            )


def kept_networks(folder: Path, params: Params) -> list[Kept]:
    """All of a scale, by density and run. Raises UserError where there is none."""
    found = [Kept(path.parent, params) for path in folder.glob(f"*/{PROVENANCE}")]
    if not found:
        raise UserError(f"{folder}: no network is kept; '--keep M50-run0' keeps one")
    return sorted(found, key=lambda one: (one.network.density, one.network.run))


def with_4_more_squares(answers: pd.DataFrame, densities: list[int]) -> list[dict]:
    """Share of 'circle' after each epoch, as saved and with statistics estimated anew, by the margin set's density.

    answers: a network's, as `EpochRecord.table` has them. densities: of the margin sets.
    """
    density = answers["condition"].astype(str).map({margin_name(of, -4): f"density_{of}" for of in densities})
    circle = answers["logit_difference"] > 0
    shares = circle.groupby([answers["epoch"], answers["reading"].astype(str), density]).mean()
    return [
        {"epoch": int(epoch)}
        | {
            reading.replace(" ", "_").replace("-", "_"): of_reading.droplevel([0, 1]).to_dict()
            for reading, of_reading in of_epoch.groupby(level=1)
        }
        for epoch, of_epoch in shares.groupby(level=0)
    ]


def evaluate(networks: list[Kept], params: Params) -> tuple[dict, dict[str, pd.DataFrame]]:
    """`evaluated`, of the runs that all these networks have; 'recorded' names them, and their epochs are beside it."""
    densities = sorted({one.network.density for one in networks})
    runs = set.intersection(*({one.network.run for one in networks if one.network.density == of} for of in densities))
    used = [one for one in networks if one.network.run in runs]
    if not used:
        raise UserError(
            f"networks of {', '.join(map(str, densities))} shapes have no run in common; keep run 0 of each"
        )
    numbers, tables = evaluated(
        pd.concat([one.trials for one in used], ignore_index=True),
        pd.concat([one.curve for one in used], ignore_index=True),
        {of: [one.epochs for one in used if one.network.density == of] for of in densities},
        params,
    )
    of_sets = params.shapes.margin_densities
    by_epoch = {one.network.name: with_4_more_squares(one.epoch_answers, of_sets) for one in used}
    recorded = {"recorded": list(by_epoch), "answered_circle_with_4_more_squares_by_epoch": by_epoch}
    return recorded | numbers, tables


def as_written(contents: dict[str, Any]) -> dict[str, Any]:
    """What JSON files with these contents hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "content.json")
        found = {}
        for name, content in contents.items():
            write_json(path, content)
            found[name] = json.loads(path.read_text())
    return found


def differences(found: Any, kept: Any, where: str) -> list[str]:
    """Keys at which two contents of JSON differ, numbers by more than their rounding."""
    if isinstance(found, dict) and isinstance(kept, dict):
        keys = [*found, *(key for key in kept if key not in found)]
        return [d for key in keys for d in differences(found.get(key), kept.get(key), f"{where}.{key}")]
    if isinstance(found, list) and isinstance(kept, list) and len(found) == len(kept):
        return [d for i, pair in enumerate(zip(found, kept, strict=True)) for d in differences(*pair, f"{where}[{i}]")]
    numbers = all(isinstance(value, int | float) for value in (found, kept))
    same = math.isclose(found, kept, rel_tol=1e-4, abs_tol=1e-5) if numbers else found == kept
    return [] if same else [where]


def check_files(contents: dict[str, Any], folder: Path) -> str:
    """Raises UserError where a recorded file is not what the decisions give."""
    files = read_provenance(folder / PROVENANCE).files
    for file, content in as_written(contents).items():
        if file not in files:
            raise UserError(f"{folder}: has no {file}; 'python -m pipeline.shapes.recorded' writes it")
        kept = json.loads((folder / files[file]).read_text())
        if wrong := differences(content, kept, file):
            raise UserError(
                f"{folder / files[file]}: the decisions of the networks do not give {wrong[0]} and {len(wrong) - 1} "
                "others; write them again without --check"
            )
    return f"{len(contents)} files are what the decisions give"


def draw(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Figs. 2 and 3, and the boundary, of the networks that there are."""
    figures.accuracy_table(tables["accuracy"], folder)
    figures.margin_curves(tables["margins"], folder)
    figures.psychometric_functions(tables["margins"], tables["bias"], folder)
    figures.bias_by_density(tables["margins"], tables["bias"], folder)


def main(keep: str = "", scale: str = "", check: str = "") -> str:
    """See above. Raises UserError."""
    params = load_params()
    if keep:
        return keep_network(keep, params)
    scale = scale or params.scale
    if scale not in SCALES:
        raise UserError(f"--scale {scale}: allowed are {', '.join(SCALES)}")
    params = params.model_copy(update={"scale": scale})
    folder = RECORDED / scale / "shapes"
    networks = kept_networks(folder, params)
    numbers, tables = evaluate(networks, params)
    contents = {NUMBERS: numbers} | {f"{PLOTS}/{name}.json": table.to_dict("records") for name, table in tables.items()}
    if check:
        return check_files(contents, folder)
    files = {file: file.replace("/", ".") for file in contents}
    for file, content in contents.items():
        write_json(folder / files[file], content)
    draw(tables, folder)
    first = networks[0].provenance
    provenance = Provenance(
        scale=scale,
        source=first.source,
        commit=record.commit(),
        commands=[f"python -m pipeline.shapes.recorded --scale {scale}"],
        machine="; ".join(sorted({one.provenance.machine for one in networks})),
        versions=first.versions,
        seconds=float(np.sum([one.provenance.seconds or 0 for one in networks])),
        by="from the decisions of the networks in this folder, each with its own provenance",
        files=files,
        check=f"python -m pipeline.shapes.recorded --scale {scale} --check yes",
    )
    write_bytes(folder / PROVENANCE, (json.dumps(provenance.model_dump(), indent=1) + "\n").encode())
    return f"{', '.join(numbers['recorded'])}: {numbers.get('needs', 'all networks')};"


if __name__ == "__main__":
    run(main, keep=str, scale=str, check=str)
