"""Where each network's boundary lies after every epoch, and how much of its bias is of the moment training ended.

    python -m pipeline.shapes.boundary_path

Of the answers that training recorded (pipeline/shapes/epochs.py), in both readings: as saved, and with batch
normalisation's statistics re-estimated on training images. The sets are the own test set, and the margin sets of each
density.

Works with any number of networks and runs that are there, and says which.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyarrow import ArrowInvalid
from scipy.stats import pearsonr

from pipeline.params import Params, load_params
from pipeline.shapes.figures_boundary import draw
from pipeline.shapes.paths import DATA, METRICS, PLOTS, Network, observer, split_name
from pipeline.shapes.snapshot import AS_KEY, OWN, READINGS, changes, levels, snapshot, undefined_at_the_end
from pipeline.stage import UserError, run, write_json
from pipeline.statistics.psychometric import FLAT, maximise

WITHIN = 8  # margins of the paper's margin sets
CHANCE = 0.025  # that answers seem to rise with the margin where they do not
COLUMNS = ["epoch", "reading", "condition", "image", "circles", "squares", "logit_difference"]


def recorded(params: Params) -> dict[str, list[Network]]:
    """The paper's networks of params.yaml by whether their record is there: 'there' and 'missing'.

    Raises:
        UserError: there is none.
    """
    found: dict[str, list[Network]] = {"there": [], "missing": []}
    for density in params.densities:
        for number in params.shapes.runs:
            network = Network(density, run=number)
            found["there" if network.epochs.exists() else "missing"].append(network)
    if not found["there"]:
        raise UserError(
            f"{DATA / 'epochs/paper'}: no record of any of the {len(found['missing'])} networks of params.yaml "
            f"(such as {found['missing'][0].epochs}); run 'dvc repro train_resnet'"
        )
    return found


def read_record(network: Network) -> pd.DataFrame:
    """A network's record, with columns 'margin' (circles - squares), 'circle' (bool) and 'set'.

    set: 'own test set', or the density of a margin set, such as 'density-10'.

    Raises:
        UserError: the file is not whole, or lacks a column.
    """
    try:
        table = pd.read_parquet(network.epochs)
    except ArrowInvalid as error:
        raise UserError(
            f"{network.epochs}: not a whole Parquet file ({error}); delete it and run 'dvc repro'"
        ) from None
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(
            f"{network.epochs}: lacks the columns {missing}; has {list(table)}; run 'dvc repro train_resnet'"
        )
    own = split_name(network.density, "test")
    sets = {name: OWN if name == own else name.split("/")[1] for name in table["condition"].unique()}
    return table.assign(
        set=table["condition"].astype(str).map(sets),
        reading=table["reading"].astype(str),
        margin=table["circles"] - table["squares"],
        circle=table["logit_difference"] > 0,
    )


def accuracy(answers: pd.DataFrame, target: str) -> float:
    """Share of right answers. A tie is a square, as published, or half right under soft targets."""
    right = (answers["circle"] == (answers["margin"] > 0)).astype(float)
    return float(right.mask(answers["margin"] == 0, 0.5).mean() if target == "soft" else right.mean())


def share_of_circle(answers: pd.DataFrame) -> float:
    """Share of 'circle' at margins within WITHIN but 0: the mean of its shares where circles are more, and fewer.

    Who has no bias answers 'circle' to half, however many images lie to either side. NaN where a side has no image.
    """
    near = answers[(answers["margin"] != 0) & (answers["margin"].abs() <= WITHIN)]
    sides = near.groupby(near["margin"] > 0)["circle"].mean()
    return float(sides.mean()) if len(sides) == 2 else np.nan


def equality(answers: pd.DataFrame) -> float:
    """Point of subjective equality, in shapes (pipeline/statistics/psychometric.py).

    NaN where the answers do not rise with the margin: where their correlation is not above 0 (one-sided, 2.5%).
    """
    margins, circle = answers["margin"].to_numpy(float), answers["circle"].to_numpy(float)
    if len(set(circle)) < 2 or len(set(margins)) < 2 or len(circle) < 3:
        return np.nan
    if pearsonr(margins, circle, alternative="greater").pvalue > CHANCE:
        return np.nan
    counts = answers.groupby("margin")["circle"].agg(["sum", "size"])
    (intercept, slope), _ = maximise(*(values.to_numpy() for values in (counts.index, counts["sum"], counts["size"])))
    return float(-intercept / slope) if slope > FLAT else np.nan


MEASURES = {"circle": share_of_circle, "pse": equality}


def path(network: Network, params: Params) -> pd.DataFrame:
    """A row an epoch, reading and set: network (density), run, images, accuracy and circle (0..1), pse (shapes).

    circle_even, circle_odd, pse_even, pse_odd: of every other image in the order of margins, and of the rest.
    """
    rows = []
    for (epoch, reading, of), answers in read_record(network).groupby(["epoch", "reading", "set"]):
        ordered = answers.sort_values("margin", kind="stable")  # so that both halves have the same margins, nearly
        halves = {"even": ordered.iloc[::2], "odd": ordered.iloc[1::2]}
        rows.append(
            {
                "network": network.density,
                "run": network.run,
                "epoch": int(epoch),
                "reading": reading,
                "set": of,
                "images": len(answers),
                "accuracy": accuracy(answers, params.shapes.target),
                **{name: of_images(answers) for name, of_images in MEASURES.items()},
                **{f"{name}_{half}": MEASURES[name](part) for half, part in halves.items() for name in MEASURES},
            }
        )
    return pd.DataFrame(rows)


def summary(paths: pd.DataFrame, found: dict[str, list[Network]]) -> dict:
    """The study's numbers (pipeline/shapes/snapshot.py), and which networks they are of."""
    runs = paths.groupby("network")["run"].unique()
    return {
        "networks": {observer(network): sorted(map(int, numbers)) for network, numbers in runs.items()},
        "missing": [network.name for network in found["missing"]],
        "epochs": int(paths["epoch"].max()),
        **{AS_KEY[reading]: levels(paths, reading) for reading in READINGS},
        "undefined_at_the_end": undefined_at_the_end(paths),
        "change": changes(paths),
        "snapshot": {AS_KEY[reading]: snapshot(paths, reading) for reading in READINGS},
    }


def main() -> str:
    params = load_params()
    found = recorded(params)
    paths = pd.concat([path(network, params) for network in found["there"]], ignore_index=True)
    write_json(METRICS / "epochs.json", summary(paths, found))
    write_json(PLOTS / "epochs.json", paths.to_dict("records"))
    draw(paths)
    missing = f", {len(found['missing'])} not there" if found["missing"] else ""
    return f"{len(found['there'])} networks of {paths['epoch'].max()} epochs{missing},"


if __name__ == "__main__":
    run(main)
