"""What there is of the published inputs, what is missing, and what can still run.

    python -m pipeline.inputs.fetch                 the account; asks no network
    python -m pipeline.inputs.fetch --name all      fetch what a setting can ask for, then the account (make fetch)

Exit status 1 where the settings of params.yaml need something that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.inputs.download import LISTING, MIRROR
from pipeline.inputs.sources import (
    Source,
    absent_files,
    cached,
    check_files,
    fetch,
    held_hashes,
    mirrored,
    read_registry,
    wanted_files,
)
from pipeline.params import Params, load_params
from pipeline.stage import UserError, run


@dataclass(frozen=True)
class Entry:
    """The account of one input. state: 'there'; 'fetched', just now; 'missing'; 'optional', absent and fetched by its
    own name only; 'yours', a path that a person gives.

    stages: those that read it with `source: published`; needed: by the chosen source, as params.yaml has it.
    """

    name: str
    state: str
    where: Path | None
    reason: str  # why it is missing, or what is special
    size: int | None
    licence: str
    use: str
    stages: list[str]
    needed: bool
    without: str
    mend: str


def account(registry: dict[str, Source] | None = None, params: Params | None = None) -> list[Entry]:
    """What there is of every input, verified, and what is missing; asks no network.

    Raises UserError where the registry, sources.lock or params.yaml is not valid.
    """
    params = params or load_params()
    held_hashes()  # what is wrong with it is no input's fault
    return [_entry(name, source, params) for name, source in (registry or read_registry()).items()]


def fetch_all(registry: dict[str, Source] | None = None, params: Params | None = None) -> list[Entry]:
    """Fetch what is missing, each input whatever becomes of the others; returns the account. Raises as `account`."""
    registry, params = registry or read_registry(), params or load_params()
    entries = []
    for before in account(registry, params):
        entry = before
        if before.state == "missing":
            try:
                fetch(before.name, registry[before.name])
                entry = _entry(before.name, registry[before.name], params)
                entry = replace(entry, state="fetched") if entry.state == "there" else entry
            except (UserError, OSError) as error:
                entry = replace(before, reason=" ".join(str(error).split()))
            print(f"{entry.name}: {entry.state}{f': {entry.reason}' if entry.reason else ''}", flush=True)
        entries.append(entry)
    return entries


def table(entries: list[Entry]) -> str:
    """The account as text: a line for each input, and for each that is missing what can not run, what can, and how."""
    width = max(len(entry.name) for entry in entries)
    lines = [f"{'input':{width}}  {'state':8}  {'bytes':>11}  licence"]
    for entry in entries:
        size = "unknown" if entry.size is None else f"{entry.size:,}"
        lines.append(f"{entry.name:{width}}  {entry.state:8}  {size:>11}  {entry.licence}")
    for entry in entries:
        if entry.state in ("there", "fetched"):
            continue
        stops = f"{', '.join(entry.stages)}, and what follows" if entry.stages else "no stage, as params.yaml is"
        lines += ["", f"{entry.name} ({entry.state}{', needed now' if entry.needed else ''})"]
        lines += [f"  why             {entry.reason}"] if entry.reason else []
        lines += [f"  can not run     {stops} (with source: published)"]
        lines += [
            f"  in its place    {entry.without}",
            f"  to have it      {entry.mend}",
            f"  who may use it  {entry.use}",
        ]
    return "\n".join(lines)


def _entry(name: str, source: Source, params: Params) -> Entry:
    where, reason = None, ""
    if source.url is None:
        state, mend = "yours", source.how
    else:
        where = mirrored(source) or cached(source)
        reason = _why_missing(where, name, source)
        state = "there" if not reason else "missing" if source.needed_by else "optional"
        mend = f"python -m pipeline.inputs.sources --name {name}, or {MIRROR} = a folder with {source.folder}/ in it"
    return Entry(
        name=name,
        state=state,
        where=where if state == "there" else None,
        reason=reason,
        size=source.bytes,
        licence=source.licence,
        use=source.use,
        stages=_readers(source, params, "published"),
        needed=bool(_readers(source, params, params.source)),
        without=source.without,
        mend=mend,
    )


def _readers(source: Source, params: Params, chosen: str) -> list[str]:
    settings = params.model_dump(by_alias=True)
    settings["sources"]["*"] = settings["sources"][chosen]
    return [stage for need in source.needed_by if need.holds(settings) for stage in need.stages]


def _why_missing(folder: Path, name: str, source: Source) -> str:
    """Empty where all is there as it should be."""
    some_will_do = mirrored(source) and source.listing  # copies of some experiments are a choice
    try:
        if not some_will_do and (absent := absent_files(folder, source)):
            partial = folder / f"{absent[0]}.partial"
            arrived = f", {partial.stat().st_size:,} bytes of it" if partial.exists() else ""
            count = len(wanted_files(folder, source))
            return f"{folder} has {count - len(absent)} of {count} files, lacks {absent[0]}{arrived}"
        if not some_will_do and source.listing and not (folder / LISTING).exists():
            return f"{folder} lacks the list of its files"
        check_files(folder, name, source)
    except UserError as error:
        return str(error)
    return ""


def main(name: str = "account") -> str:
    if name not in ("account", "all"):
        raise UserError(
            f"--name {name}: should be account or all; one input: python -m pipeline.inputs.sources --name {name}"
        )
    params = load_params()
    entries = fetch_all(params=params) if name == "all" else account(params=params)
    print(table(entries), flush=True)
    missing = [entry.name for entry in entries if entry.needed and entry.state not in ("there", "fetched")]
    if missing:
        raise UserError(
            f"params.yaml: source = {params.source} needs {', '.join(missing)}, see above; {MIRROR}, other settings of "
            f"sources.{params.source}, or source = generated will do"
        )
    there = sum(entry.state in ("there", "fetched") for entry in entries)
    return f"{there} of {len(entries)} inputs are there; source = {params.source} lacks none"


if __name__ == "__main__":
    run(main, name=str)
