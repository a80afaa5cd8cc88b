"""10 million trials: seconds and peak memory of reading, comparing and analysing them.

    python -m benchmarks.trials
    python -m benchmarks.trials --millions 1
    python -m benchmarks.trials --only analyse      # or compare: one of the two steps

CSV as modelvshuman has it, ten observers of as many images, each image's name with its own prefix of the trial. The
command compares two observers, half of the trials each; the stage reads all ten and makes kappas of their 45 pairs.
Each step is a process of its own, so that its peak is its own. Exit status 1 where a peak is above 6 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT = 6e9  # bytes
OBSERVERS, RESAMPLES = 10, 100
HEADER = "subj,Session,trial,rt,object_response,category,condition,imagename\n"


def write(path: Path, observer: str, images: int, seed: int) -> None:
    """One observer's answers to so many images, 70% of them right; half of the images are anyone's mistakes."""
    right = np.random.default_rng(0).random(images) < 0.7
    own = np.random.default_rng(seed).random(images) < 0.7
    correct = np.where(np.arange(images) % 2, right, own)
    with path.open("w") as file:
        file.write(HEADER)
        for start in range(0, images, 100_000):
            places = range(start, min(start + 100_000, images))
            file.writelines(
                f"{observer},1,{i},0.{i % 997},{'dog' if correct[i] else 'cat'},dog,0,"
                f"{i:07d}_big_{observer}_0_dog_10_n02085620_{i}.png\n"
                for i in places
            )


def analyse(folder: str, resamples: int = RESAMPLES) -> None:
    """What the stage `analyse_consistency` does of a set, but for writing it."""
    from pipeline.consistency.analyse import analyse_experiment, read_set
    from pipeline.consistency.params import ConsistencySet

    settings = ConsistencySet(predictions=folder, observers=["kind"], compare="groups")
    trials = read_set(settings)
    pairs = analyse_experiment(trials, settings, resamples, seed=0)["pairs"]
    print(f"{len(trials):,} trials, {len(pairs)} pairs, kappa {pairs['kappa'].min():.3f} to {pairs['kappa'].max():.3f}")


def measured(what: str, *command: str) -> bool:
    """Run a step, and print its seconds and its peak; is that below the limit?"""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    said = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    spent, peak = time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{what:<40} {spent:7.1f} s {peak / 1e9:6.2f} GB   {said[-1] if said else f'status {status}'}", flush=True)
    return status == 0 and peak < LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--millions", type=int, default=10, help="of trials")
    parser.add_argument("--only", choices=("compare", "analyse"), help="one of the two steps; both, if not given")
    options = parser.parse_args()
    trials = options.millions * 10**6
    with tempfile.TemporaryDirectory() as folder:
        pair = [Path(folder) / "pair" / f"resnet{i}.csv" for i in range(2)]
        ten = [Path(folder) / "ten" / f"subject-{i:02d}.csv" for i in range(OBSERVERS)]
        fits = []
        for paths, what, command in (
            (pair, "compare two", ["-m", "pipeline.consistency.compare", *map(str, pair)]),
            (
                ten,
                "read and analyse ten",
                ["-c", f"from benchmarks.trials import analyse; analyse({str(ten[0].parent)!r})"],
            ),
        ):
            if options.only and options.only not in what:
                continue
            paths[0].parent.mkdir()
            for i, path in enumerate(paths):
                write(path, path.stem, trials // len(paths), seed=i + 1)
            fits.append(measured(f"{trials:,} trials: {what}", *command))
            for path in paths:
                path.unlink()
    sys.exit(0 if all(fits) else f"a step failed, or needs more than {LIMIT / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
