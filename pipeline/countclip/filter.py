"""Keep the pairs whose most frequent detected class is as frequent as the caption says (countclip, section 2.1).

    python -m pipeline.countclip.filter

The unit of work is a shard: in goes a shard of the pool; out come a shard of counting pairs, one of
other pairs, a manifest and statistics, all or nothing. A shard that is done is not done again, so that
a run that was killed goes on where it was. With `engine: ray`, shards are Ray tasks, on the cluster that
the environment variable RAY_ADDRESS names ('auto': the one of this machine); without it, on this machine.
Locally they are processes. The bytes are the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

import pipeline
from pipeline.countclip.pairs import Settings, filter_shard
from pipeline.countclip.paths import DETECTOR, FILTERED, METRICS, POOL
from pipeline.params import Params, load_params
from pipeline.shards import cores, process_pool
from pipeline.stage import UserError, run, write_json


def run_locally(shards: list[Path], out: Path, settings: Settings) -> Iterator[dict]:
    with process_pool(max(1, cores() // settings.threads), chunk=1) as parallel_map:
        try:
            yield from parallel_map(partial(filter_shard, out=out, settings=settings), shards)
        except BrokenProcessPool:
            raise UserError(
                "a worker was killed, perhaps for want of memory; run again, with fewer workers "
                "(countclip.filter.threads higher): shards that are done are not done again"
            ) from None


def run_with_ray(shards: list[Path], out: Path, settings: Settings) -> Iterator[dict]:
    """As `run_locally`, by Ray tasks: no more in flight than cores, tried again when their worker dies.

    A cluster's nodes reach the shards, the detector and `out` by the same absolute paths.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "params.yaml: countclip.filter.engine is 'ray', which is not installed; "
            "run '.venv/bin/pip install -r requirements-ray.txt', or set it to 'local'"
        ) from None
    code = {"py_modules": [str(Path(pipeline.__file__).parent)]}  # for machines that have no checkout
    address = os.environ.get("RAY_ADDRESS", "local")  # without one, Ray joins any cluster that it finds here
    ray.init(address, runtime_env=code, log_to_driver=False, include_dashboard=False, configure_logging=False)
    settings = replace(settings, detector=str(Path(settings.detector).resolve()))  # a worker has its own folder
    task = ray.remote(num_cpus=settings.threads, max_retries=5)(filter_shard)
    limit = max(1, int(ray.cluster_resources()["CPU"]) // settings.threads)
    waiting, in_flight = list(reversed(shards)), []
    while waiting or in_flight:
        while waiting and len(in_flight) < limit:
            in_flight.append(task.remote(waiting.pop().resolve(), out.resolve(), settings))
        done, in_flight = ray.wait(in_flight)
        try:
            yield from ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None


ENGINES = {"local": run_locally, "ray": run_with_ray}


def merged(statistics: Iterable[dict]) -> dict:
    """The statistics of all shards, added up; precision and recall against the truth where it is known."""
    total: dict = {"rows": 0, "kept": 0, "dropped": Counter(), "by_count": Counter(), "truth": Counter()}
    for numbers in statistics:
        total["rows"] += numbers["rows"]
        total["kept"] += numbers["kept"]
        for name in ("dropped", "by_count", "truth"):
            total[name].update(numbers[name])
    truth = total.pop("truth")
    total["dropped"] = dict(sorted(total["dropped"].items()))
    total["by_count"] = {str(n): total["by_count"].get(str(n), 0) for n in range(2, 11)}
    if truth["should"]:
        total["recall"] = truth["rightly"] / truth["should"]
        total["precision"] = truth["rightly"] / truth["kept"] if truth["kept"] else None
    return total


def work_folder(shards: list[Path], settings: Settings) -> Path:
    """Where finished shards wait for the others: keyed by inputs, settings and code, outside DVC's outputs."""
    digest = hashlib.sha256(repr(asdict(settings)).encode())
    code = Path(__file__).parent
    for path in [*sorted(code.glob("*.py")), *shards, Path(settings.detector)]:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / f"countclip.filter.{digest.hexdigest()[:32]}"


def settings_of(params: Params) -> Settings:
    """The detector and thresholds of the chosen source. Fetches a checkpoint that sources.yaml names."""
    chosen = params.inputs.detector
    path = chosen.path or str(DETECTOR)
    if chosen.path is not None:
        from pipeline.inputs import sources

        if (published := sources.read_registry().get(chosen.path)) is not None:
            (name,) = published.files
            path = str(sources.fetch(chosen.path, published) / name)
    return Settings(
        detector=path,
        sha256=chosen.sha256,
        size=chosen.image_size or params.at_scale.countclip.resolution,
        confidence=chosen.confidence,
        iou=chosen.iou,
        batch=params.countclip.filter.batch_size,
        threads=params.countclip.filter.threads,
        precision=params.precision,
        by=params.at_scale.countclip.filter_by,
    )


def main() -> str:
    params = load_params()
    settings = settings_of(params)
    shards = sorted(POOL.glob("*.tar"))
    if not shards:
        raise UserError(f"{POOL}: no shards; run 'dvc repro'")
    work = work_folder(shards, settings)
    statistics = ENGINES[params.countclip.filter.engine](shards, work, settings)
    total = merged(tqdm(statistics, "countclip/filter", len(shards), unit="shard", disable=None, leave=False))
    write_json(METRICS / "filter.json", total)
    if FILTERED.exists():
        shutil.rmtree(FILTERED)
    FILTERED.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(work, FILTERED)
    return f"{total['kept']:,} of {total['rows']:,} pairs kept"


if __name__ == "__main__":
    run(main)
