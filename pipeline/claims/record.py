"""Keep the numbers of a run for claims and readers: under results/<scale>/<name>/, with where they come from.

    python -m pipeline.claims.record --name shapes --files metrics/shapes.json,plots/shapes/accuracy.json
    python -m pipeline.claims.record --name posenet --study posenet
    python -m pipeline.claims.record --name countclip-table1 --files results/laptop/countclip/table1.json:table1.json

A file is known to claims by its own path, or by what stands behind the colon. What is kept is small: metrics and tables
of points, no images or weights; commit the folder. With --study, that study's metrics and tables are kept, all of
them. The claims stage uses whatever has a provenance.json.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.claims.evidence import PROVENANCE, RECORDED, Provenance
from pipeline.params import load_params
from pipeline.stage import COSTS, UserError, costs, run, write_bytes

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "open_clip_torch", "ultralytics-opencv-headless")
CPU_INFO = Path("/proc/cpuinfo")


def commit() -> str:
    """What is checked out, '-dirty' where tracked files differ from it; 'unknown' outside a repository."""
    found = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def machine() -> str:
    """The accelerator, or the processor, in words."""
    import torch  # seconds; what only reads provenance needs none of it

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []  # there on Linux only
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def files_of(study: str) -> list[str]:
    """A study's metrics and tables, as its stages wrote them."""
    places = [Path(f"metrics/{study}.json"), *Path(f"metrics/{study}").rglob("*.json")]
    places += Path(f"plots/{study}").rglob("*.json")
    return sorted(path.as_posix() for path in places if path.exists())


def main(name: str, files: str = "", study: str = "", by: str = "dvc repro", inputs: str = "") -> str:
    params = load_params()
    listed = [file for file in files.split(",") if file] or (files_of(study) if study else [])
    known_as = {file.partition(":")[0]: file.partition(":")[2] or file for file in listed}
    wanted = list(known_as)
    if not wanted:
        raise UserError("nothing to keep: give --files metrics/shapes.json,... or --study shapes, after a run")
    if absent := [file for file in wanted if not Path(file).is_file()]:
        raise UserError(f"not there: {', '.join(absent)}; 'dvc repro' makes them")
    folder = RECORDED / params.scale / name
    kept = {known: known.replace("/", ".") for known in known_as.values()}
    spent = [cost for cost in costs() if not study or cost["stage"].startswith(f"{study}.")]
    provenance = Provenance(
        scale=params.scale,
        source=params.source,
        commit=commit(),
        commands=[cost["command"] for cost in spent],
        machine=machine(),
        versions=versions(),
        seconds=round(sum(cost["seconds"] for cost in spent), 1) if COSTS.exists() else None,
        by=by,
        inputs=inputs or None,
        files=kept,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, known in known_as.items():
        shutil.copyfile(file, folder / kept[known])
    write_bytes(folder / PROVENANCE, (json.dumps(provenance.model_dump(), indent=1) + "\n").encode())
    return f"{len(kept)} files in {folder}"


if __name__ == "__main__":
    run(main, name=str, files=str, study=str, by=str, inputs=str)
