"""Keep the numbers of a run for claims and readers: under results/<scale>/<name>/, with where they come from.

    python -m pipeline.claims.record --name shapes --files metrics/shapes.json,plots/shapes/accuracy.json
    python -m pipeline.claims.record --name posenet --study posenet
    python -m pipeline.claims.record --name countclip-table1 --files results/laptop/countclip/table1.json:table1.json
    python -m pipeline.claims.record --check yes     are recorded numbers what the recorded decisions give?

A file is known to claims by its own path, or by what stands behind the colon. What is kept is small: metrics and tables
of points, no images or weights; commit the folder. With --study, that study's metrics and tables are kept, all of
them. The claims stage uses whatever has a provenance.json.

Scale and source are params.yaml's, and dvc.lock has to have the same for the stages that wrote the files. Of files that
`dvc repro` did not write as they are, made stage by stage on another machine for instance, say --scale and --source
(and --by, how). What no stage writes, as table1.json, is taken for params.yaml's unless that was changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from pipeline.claims.evidence import PROVENANCE, RECORDED, SCALES, Provenance, recorded_runs
from pipeline.params import PATH, load_params
from pipeline.stage import COSTS, UserError, costs, run, write_bytes

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "statsmodels", "open_clip_torch")
PACKAGES += ("ultralytics-opencv-headless",)
CPU_INFO = Path("/proc/cpuinfo")
LOCK = Path("dvc.lock")
ALLOWED = {"scale": SCALES, "source": ("generated", "published")}


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


def read_stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.lock by name, none where it is not there. Raises UserError where it breaks off."""
    try:
        return YAML(typ="safe").load(LOCK)["stages"]
    except FileNotFoundError:
        return {}
    except (YAMLError, UnicodeDecodeError, TypeError, KeyError):
        raise UserError(f"{LOCK}: not whole; 'make repro' puts it aside and makes it anew") from None


def _within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def writer(file: str, stages: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]] | None:
    """The stage that writes a file and dvc.lock's entry of that output, which may be a folder; None: no stage does."""
    for name, stage in stages.items():
        for output in stage.get("outs", []):
            if _within(file, output["path"]):
                return name, output
    return None


def digest(path: Path) -> str | None:
    """The md5 that DVC has of a file, or of a folder with all in it; None where it is not there."""
    if path.is_dir():
        inside = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listed = [{"md5": digest(file), "relpath": name} for name, file in inside]
        return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def made_with(name: str, stages: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    """('scale' or 'source', which one, stage), by dvc.lock, of a stage and of all that it depends on.

    A stage names them by its parameters (`scale`, `scales.laptop.shapes.images`); those that read none are the same
    at every scale but for what they depend on.
    """
    found, todo, seen = [], [name], {name}
    while todo:
        stage = todo.pop()
        for key, value in stages[stage].get("params", {}).get(PATH.name, {}).items():
            kind, _, rest = key.partition(".")
            if kind in ALLOWED:
                found.append((kind, str(value), stage))
            elif kind in ("scales", "sources") and rest:
                found.append((kind[:-1], rest.partition(".")[0], stage))
        needed = [item["path"] for item in stages[stage].get("deps", [])]
        for other, entry in stages.items():
            outputs = [item["path"] for item in entry.get("outs", [])]
            if other not in seen and any(_within(a, b) or _within(b, a) for a in needed for b in outputs):
                seen.add(other)
                todo.append(other)
    return found


def vouched(file: str, stages: dict[str, dict[str, Any]], scale: str, source: str, stated: bool) -> bool:
    """Whether dvc.lock says that a file was made at this scale, with this source; False: the user or its time does.

    Raises UserError where dvc.lock or the file's place says otherwise, or where nothing says it.
    """
    wanted = {"scale": scale, "source": source}
    file = Path(os.path.relpath(file)).as_posix()
    root, place, *_ = [*Path(file).parts, ""]
    if root == RECORDED.name and place in SCALES and place != scale:
        raise UserError(f"{file}: is of scale '{place}' by its place, not '{scale}'; {_how('scale', place)}")
    found = writer(file, stages)
    if found and digest(Path(found[1]["path"])) == found[1].get("md5"):
        for kind, value, stage in made_with(found[0], stages):
            if value != wanted[kind]:
                raise UserError(
                    f"{file}: was made with {kind} '{value}', not '{wanted[kind]}', as {LOCK} has it of stage {stage}; "
                    f"{_how(kind, value)}, or run 'dvc repro' and record then"
                )
        return True
    if stated:
        return False
    options = " and ".join(f"--{kind} ({', '.join(allowed)})" for kind, allowed in ALLOWED.items())
    if found:
        raise UserError(
            f"{file}: is not what stage {found[0]} wrote by {LOCK}; run 'dvc repro', or say what it was made with: "
            f"{options}"
        )
    if Path(file).stat().st_mtime_ns < PATH.stat().st_mtime_ns:
        raise UserError(
            f"{file}: no stage in {LOCK} writes it, and {PATH} was changed since it was made; say what it was made "
            f"with: {options}"
        )
    return False


def hashes(files: list[str], stages: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What the stages read that wrote these files, code and data, and its md5, as dvc.lock has it."""
    writers = [found[0] for file in files if (found := writer(file, stages))]
    return {item["path"]: item["md5"] for name in writers for item in stages[name].get("deps", [])}


def _how(kind: str, value: str) -> str:
    return f"set {kind}: {value} in {PATH}, or give --{kind} {value}"


def check_all() -> str:
    """Run every recorded run's own check. Raises UserError with what the first that fails says."""
    commands = {run.name: run.provenance.check for run in recorded_runs()}
    checked = {name: command for name, command in commands.items() if command}
    for name, command in checked.items():
        found = subprocess.run([sys.executable, *shlex.split(command)[1:]], capture_output=True, text=True)
        if found.returncode:
            raise UserError(f"{name}: {found.stderr.strip().splitlines()[-1]}")
        print(found.stdout, end="")
    return f"{len(checked)} of {len(commands)} recorded runs hold decisions, and give their numbers again;"


def main(
    name: str = "",
    files: str = "",
    study: str = "",
    by: str = "",
    inputs: str = "",
    scale: str = "",
    source: str = "",
    check: str = "",
) -> str:
    """Copy files with where they come from.

    Args:
        name: of the folder.
        check: in place of all else, 'yes': derive recorded numbers again.
        files: paths with commas between, each with ':' and what claims call it, where that is not its path.
        study: instead of files, all of a study's.
        by: how they came about, where not by 'dvc repro'.
        inputs: which, where not the source's own.
        scale, source: what they were made with, where not as params.yaml says; both, where dvc.lock has not these
            files as they are.

    Raises:
        UserError: no such file, scale or source; or the files were made with others, or nothing says with which.
    """
    if check:
        return check_all()
    if not name:
        raise UserError("--name: missing; the folder's name under results/<scale>/")
    params = load_params()
    for kind, value in (("scale", scale), ("source", source)):
        if value and value not in ALLOWED[kind]:
            raise UserError(f"--{kind} '{value}': allowed are {', '.join(ALLOWED[kind])}")
    stated = bool(scale and source)
    scale, source = scale or params.scale, source or params.source
    listed = [file for file in files.split(",") if file] or (files_of(study) if study else [])
    known_as = {file.partition(":")[0]: file.partition(":")[2] or file for file in listed}
    wanted = list(known_as)
    if not wanted:
        raise UserError("nothing to keep: give --files metrics/shapes.json,... or --study shapes, after a run")
    if absent := [file for file in wanted if not Path(file).is_file()]:
        raise UserError(f"not there: {', '.join(absent)}; 'dvc repro' makes them")
    stages = read_stages()
    by_dvc = all([vouched(file, stages, scale, source, stated) for file in wanted])
    folder = RECORDED / scale / name
    kept = {known: known.replace("/", ".") for known in known_as.values()}
    spent = [cost for cost in costs() if not study or cost["stage"].startswith(f"{study}.")]
    provenance = Provenance(
        scale=scale,
        source=source,
        commit=commit(),
        commands=[cost["command"] for cost in spent],
        machine=machine(),
        versions=versions(),
        seconds=round(sum(cost["seconds"] for cost in spent), 1) if COSTS.exists() else None,
        by=by or ("dvc repro" if by_dvc else "not by dvc repro alone"),
        inputs=inputs or None,
        files=kept,
        hashes=hashes(wanted, stages) if by_dvc else {},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, known in known_as.items():
        shutil.copyfile(file, folder / kept[known])
    write_bytes(folder / PROVENANCE, (json.dumps(provenance.model_dump(), indent=1) + "\n").encode())
    return f"{len(kept)} files in {folder}"


if __name__ == "__main__":
    run(main, name=str, files=str, study=str, by=str, inputs=str, scale=str, source=str, check=str)
