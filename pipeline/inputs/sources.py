"""Published inputs: fetched once, verified, and cached; or taken from a mirror.

    python -m pipeline.inputs.sources --name error_consistency    fetch one input, or verify a mirror's copy

STUDIES_MIRROR names a folder with copies of the inputs, laid out as `folder` in sources.yaml says;
what is found there is verified alike, and the network is not asked. It may be the http address of such a
folder. STUDIES_CACHE is where downloads are kept (default: the user's cache folder). What sources.yaml
has no hash for is verified against sources.lock, where its sha256 is written on first use.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import pooch
from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError
from tqdm import tqdm

from pipeline.inputs.download import (
    LISTING,
    MIRROR,
    exclusive,
    from_first,
    git_object,
    list_files,
    read_listing,
    sha256,
)
from pipeline.section import Section
from pipeline.stage import UserError, run, write_json

REGISTRY = Path(__file__).resolve().parents[2] / "sources.yaml"
LOCK = Path("sources.lock")
CACHE = "STUDIES_CACHE"
CONNECTIONS = 8

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n]+$")]


class Listing(Section):
    """GitHub's answer to 'git/trees/<commit>?recursive=1': which files there are, with their git object names."""

    url: str
    pattern: str  # of the paths that are wanted; its group 'path' is the path below the source's url


class Other(Section):
    """Any value but this one."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False)

    not_: Annotated[str, Field(alias="not")]


class Need(Section):
    """Who reads an input: stages of dvc.yaml, when all these settings of params.yaml have these values."""

    study: Literal["shapes", "countclip", "posenet", "consistency", "localize"]
    stages: Annotated[list[str], Field(min_length=1)]
    when: Annotated[dict[str, str | list[str] | Other], Field(min_length=1)]

    def holds(self, settings: dict[str, Any]) -> bool:
        """settings: the whole of params.yaml as nested dicts, `sources.*` the chosen source."""
        return all(_matches(_lookup(settings, key), value) for key, value in self.when.items())


def _lookup(settings: dict[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _matches(found: Any, wanted: str | list[str] | Other) -> bool:
    values = found if isinstance(found, list) else [found]
    match wanted:
        case Other():
            return wanted.not_ not in values
        case list():
            return any(value in wanted for value in values)
        case _:
            return wanted in values


class Source(Section):
    """One published input of sources.yaml."""

    what: Line
    licence: Line
    use: Line  # who may
    bytes: Annotated[int, Field(gt=0)] | None  # of all files together; null: not known for certain
    needed_by: list[Need]
    without: Line
    folder: str | None
    url: Annotated[str, Field(pattern=r"^https?://.*/$")] | None  # null: not fetched, a person gives the path
    how: Line | None = None  # one comes by what is not fetched
    listing: Listing | None = None
    files: dict[str, Sha256 | None]  # null: taken on first use, and held in sources.lock

    @model_validator(mode="after")
    def _fetched_or_explained(self) -> Source:
        if (self.url is None) != (self.how is not None) or (self.url is None) != (self.folder is None):
            raise ValueError("should have url, folder and no how; or, where it is not fetched, how and neither of them")
        return self


def read_registry(path: Path = REGISTRY) -> dict[str, Source]:
    """The published inputs by name. Raises UserError where the file is not a registry."""
    registry = TypeAdapter(Annotated[dict[str, Source], Field(min_length=1)])
    mend = f"mend it, or take back the committed one (git checkout {path.name})"
    try:
        return registry.validate_python(YAML(typ="safe", pure=True).load(path.read_bytes().decode()))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}; {mend}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {_first_of(error)}; {mend}") from None


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    found = f", found {first['input']!r:.80}" if not isinstance(first["input"], dict | bytes) else ""
    return f"{key or 'the file'}: {first['msg']}{found}"


def fetch(name: str, source: Source | None = None) -> Path:
    """The folder that holds a published input's files, verified.

    Raises UserError where a file cannot be had or is not what it should be; files that did arrive
    are kept, and a second call asks for the others, and the rest of what was cut short, only.
    """
    source = source or read_registry()[name]
    if source.url is None:
        raise UserError(f"{REGISTRY.name}: {name} is not fetched: {source.how}; or {source.without}")
    mirror = os.environ.get(MIRROR, "")
    if folder := mirrored(source):
        _hold(name, check_files(folder, name, source))
        if absent := absent_files(folder, source):
            print(f"{folder}: lacks {len(absent)} of {len(wanted_files(folder, source))} files, first {absent[0]}")
        return folder
    if mirror and not _is_address(mirror):
        print(
            f"{name}: {MIRROR}={mirror} has no folder '{source.folder}' with its files; asking {source.url}", flush=True
        )
    folder = cached(source)
    bases = [f"{mirror.rstrip('/')}/{source.folder}/"] if _is_address(mirror) else []
    objects = {}
    if source.listing:
        objects = list_files(name, source.listing.url, source.listing.pattern, folder, bases)
    held = held_hashes()
    known = {path: source.files.get(path) or held.get(f"{name}/{path}") for path in sorted({*source.files, *objects})}
    for parent in {(folder / path).parent for path in known}:
        parent.mkdir(parents=True, exist_ok=True)  # pooch's threads would race for it
    stores = [pooch.create(folder, base, registry=known) for base in [*bases, source.url]]

    def get(path: str) -> str:
        file = from_first(name, stores, path, source.bytes if len(known) == 1 else None)
        if path in objects and git_object(file) != objects[path]:
            file.unlink()
            raise UserError(f"{name}: {source.url}{path}: is not the file of that commit, {objects[path]}; try again")
        return known[path] or sha256(file)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            arriving = tqdm(pool.map(get, known), name, len(known), unit="file", disable=None, leave=False)
            found = dict(zip(known, arriving, strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # where one file is not to be had, the others' tries would be waited for
            raise
    _hold(name, {path: digest for path, digest in found.items() if source.files.get(path) is None})
    present_files(folder, source)  # raises where another file lies there, which would be read with them
    return folder


def only_file(name: str) -> str:
    """The name of a published input's one file. Raises UserError where it has several."""
    files = list(read_registry()[name].files)
    if len(files) != 1:
        raise UserError(f"{REGISTRY.name}: {name} has {len(files)} files; one that has a single file is needed here")
    return files[0]


def wanted_files(folder: Path, source: Source) -> list[str]:
    """The files of sources.yaml, and those of the listing where the folder has it."""
    return list({**source.files, **_listed(folder, source)})


def absent_files(folder: Path, source: Source) -> list[str]:
    """Those that a folder lacks."""
    return [path for path in wanted_files(folder, source) if not (folder / path).exists()]


def present_files(folder: Path, source: Source) -> list[str]:
    """Those that a folder has; for an input with a listing all files of their kind, as whoever reads it reads them all.

    Raises UserError where the folder has the listing, and a file that it does not name.
    """
    wanted = wanted_files(folder, source)
    if not source.listing:
        return [path for path in wanted if (folder / path).exists()]
    endings = tuple({Path(path).suffix for path in wanted})
    below = (Path(parent, name) for parent, _, names in os.walk(folder, followlinks=True) for name in names)
    found = sorted(str(path.relative_to(folder)) for path in below if path.name.endswith(endings) and path.exists())
    if _listed(folder, source) and (others := [path for path in found if path not in wanted]):
        raise UserError(f"{folder / others[0]}: neither {REGISTRY.name} nor {LISTING} names it; move it elsewhere")
    return found


def check_files(folder: Path, name: str, source: Source) -> dict[str, str]:
    """Path -> sha256, of the files in a folder for which sources.yaml has none.

    Raises UserError for the first file that is another than stated there, held in sources.lock, or listed.
    """
    held, objects, unstated = held_hashes(), _listed(folder, source), {}
    for path in present_files(folder, source):
        file, stated = folder / path, source.files.get(path)
        digest, expected = sha256(file), stated or held.get(f"{name}/{path}")
        if expected and digest != expected:
            names = REGISTRY.name if stated else LOCK
            raise UserError(f"{file}: not what {names} names: sha256 {digest}, should be {expected}; replace it")
        if not expected and path in objects and (found := git_object(file)) != objects[path]:
            raise UserError(f"{file}: not what {LISTING} names: {found}, should be {objects[path]}; replace it")
        if not stated:
            unstated[path] = digest
    return unstated


def _listed(folder: Path, source: Source) -> dict[str, str]:
    return read_listing(folder, source.listing.pattern) if source.listing else {}


def resolve(choice: str) -> str:
    """The path of a published input's one file, fetched and verified, where `choice` is its name; else as it is."""
    return str(fetch(choice) / only_file(choice)) if choice in read_registry() else choice


def mirrored(source: Source) -> Path | None:
    """The mirror's folder of an input; None where it has none, or none of its files."""
    mirror = os.environ.get(MIRROR, "")
    if not mirror or _is_address(mirror):
        return None
    folder = Path(mirror) / source.folder
    has_some = folder.is_dir() and (source.listing or len(absent_files(folder, source)) < len(source.files))
    return folder if has_some else None


def cached(source: Source) -> Path:
    """Where downloads of an input are kept."""
    return Path(os.environ.get(CACHE) or pooch.os_cache("counting-and-position")) / source.folder


def _is_address(mirror: str) -> bool:
    return mirror.startswith(("http://", "https://"))


def held_hashes() -> dict[str, str]:
    """'<input>/<path>' -> sha256 as first seen, of sources.lock. Raises UserError where the file is not that."""
    try:
        return TypeAdapter(dict[str, Sha256]).validate_json(LOCK.read_bytes()) if LOCK.exists() else {}
    except ValidationError as error:
        raise UserError(
            f"{LOCK}: {_first_of(error)}; it should be JSON, a sha256 for each file: of a merge conflict keep the "
            f"lines of both sides, or take back the committed one (git checkout {LOCK})"
        ) from None


def _hold(name: str, first_seen: dict[str, str]) -> None:
    """Add hashes to sources.lock. Raises UserError where it has another for one of these files by now."""
    first_seen = {f"{name}/{path}": digest for path, digest in first_seen.items()}
    if first_seen.items() <= held_hashes().items():
        return
    with exclusive(LOCK.with_name(f".{LOCK.name}.writer.partial")):  # git ignores the name
        held = held_hashes()  # another stage may have written since
        for file, digest in first_seen.items():
            if (expected := held.get(file, digest)) != digest:
                raise UserError(
                    f"{file}: not what {LOCK} names since this began: sha256 {digest}, should be {expected}; fetch it "
                    f"again, and if it stays so, ask the authors what changed"
                )
        own = LOCK.with_name(f".{LOCK.name}.{os.getpid()}.partial")  # for file systems that have no locks
        write_json(own, dict(sorted((held | first_seen).items())))
        own.replace(LOCK)


def main(name: str) -> str:
    known = read_registry()
    if name not in known:
        raise UserError(f"no published input is called '{name}'; {REGISTRY.name} has {', '.join(known)}")
    return f"{name} in {fetch(name)}"


if __name__ == "__main__":
    run(main, name=str)
