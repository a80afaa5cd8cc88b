"""A folder as `dvc repro` would leave it, as far as results/ has what the stages wrote; so no stage need run."""

from __future__ import annotations

import shutil
from contextlib import chdir
from fnmatch import fnmatchcase
from pathlib import Path

from conftest import REPOSITORY

from pipeline.claims import judge, report

READ = ("claims.yaml", "params.yaml", "dvc.yaml", "dvc.lock")
# where under results/laptop -> where stages write it; the first that fits
PLACES = (
    ("posenet/*-adam.png", "plots/posenet/adam"),
    ("posenet/*-optimum.png", "plots/posenet/optimum"),
    ("posenet/metrics.json", "metrics/posenet.json"),
    ("posenet/*.json", "plots/posenet"),
    ("shapes/metrics.json", "metrics/shapes.json"),
    ("shapes/*.json", "metrics/shapes"),
    ("shapes/*.png", "plots/shapes"),
    ("consistency/*.json", "metrics/consistency"),
    ("consistency/*.png", "plots/consistency_figures/counters"),
    ("countclip/by_number.png", "plots/countclip"),
    ("countclip/confusion.png", "plots/countclip"),
    ("countclip/frequencies.png", "plots/countclip"),
    ("countclip/pairs.png", "plots/countclip"),
    ("countclip/training.png", "plots/countclip"),
    ("countclip/measures.json", "plots/countclip"),
    ("localize/metrics.json", "metrics/localize.json"),
    ("localize/*.json", "metrics/localize"),
    ("localize/*.png", "plots/localize/figures"),
)


def as_reproduced(folder: Path, pictures: str = "*") -> None:
    """Lay out the recorded results in an empty folder where stages write them, with what the report reads.

    pictures: of which figures, by a pattern of their names; of all by default.
    """
    for name in READ:
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(REPOSITORY / "results", folder / "results")
    for path in [path for path in folder.rglob("*.png") if not fnmatchcase(path.name, pictures)]:
        path.unlink()
    placed: set[Path] = set()
    for pattern, place in PLACES:
        for path in sorted((folder / "results/laptop").glob(pattern)):
            if path in placed:
                continue
            name = path.name.replace("-adam", "").replace("-optimum", "")
            target = folder / place if place.endswith(".json") else folder / place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            placed.add(path)


def report_of(folder: Path, pictures: str = "*") -> Path:
    """The report on the recorded results, made in an empty folder."""
    as_reproduced(folder, pictures)
    with chdir(folder):
        judge.main()
        report.main()
    return folder / report.REPORT
