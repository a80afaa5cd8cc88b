"""Published inputs: fetched once, verified, and cached; or taken from a mirror.

    python -m pipeline.sources --name error_consistency      fetch one input of sources.yaml, or verify a mirror's copy

STUDIES_MIRROR names a folder with copies of the inputs, laid out as `folder` in sources.yaml says;
what is found there is verified too, and the network is not asked. STUDIES_CACHE is where downloads
are kept (default: the user's cache folder). What sources.yaml has no hash for is verified against
sources.lock, where its sha256 is written on first use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pooch
import requests
from pydantic import Field, StringConstraints, ValidationError
from ruamel.yaml import YAML
from tqdm import tqdm

from pipeline.params import Section
from pipeline.stage import UserError, run, write_json

REGISTRY = Path(__file__).resolve().parent.parent / "sources.yaml"
LOCK = Path("sources.lock")
MIRROR, CACHE = "STUDIES_MIRROR", "STUDIES_CACHE"
RETRIES, CONNECTIONS = 3, 8
DOWNLOADER = pooch.HTTPDownloader(timeout=30)  # seconds of silence
pooch.get_logger().setLevel("ERROR")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Listing(Section):
    """GitHub's answer to 'git/trees/<commit>?recursive=1': which files there are, with their git object names."""

    url: str
    pattern: str  # of the paths that are wanted; its group 'path' is the path below the source's url


class Source(Section):
    """One published input of sources.yaml."""

    what: str
    licence: str
    folder: str
    url: Annotated[str, Field(pattern=r"^https?://.*/$")]
    listing: Listing | None = None
    files: dict[str, Sha256 | None]  # null: taken on first use, and held in sources.lock


def read_registry(path: Path = REGISTRY) -> dict[str, Source]:
    """The published inputs by name. Raises UserError where the file is not a registry."""
    try:
        return {name: Source.model_validate(entry) for name, entry in YAML(typ="safe", pure=True).load(path).items()}
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def fetch(name: str, source: Source | None = None) -> Path:
    """The folder that holds a published input's files, verified.

    Raises UserError where a file cannot be had or is not what it should be; files that did arrive
    are kept, and a second call asks for the others only.
    """
    source = source or read_registry()[name]
    if mirror := os.environ.get(MIRROR):
        if (folder := Path(mirror) / source.folder).is_dir():
            _verify_mirror(folder, source)
            return folder
        print(f"{name}: {MIRROR}={mirror} has no folder '{source.folder}'; asking {source.url}", flush=True)
    folder = Path(os.environ.get(CACHE) or pooch.os_cache("counting-and-position")) / source.folder
    held: dict[str, str] = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    objects = _list(name, source, folder)
    known = {path: source.files.get(path) or held.get(f"{name}/{path}") for path in sorted({*source.files, *objects})}
    for parent in {(folder / path).parent for path in known}:
        parent.mkdir(parents=True, exist_ok=True)  # pooch's threads would race for it
    store = pooch.create(folder, source.url, registry=known, retry_if_failed=RETRIES)

    def get(path: str) -> str:
        with _explained(f"{name}: {source.url}{path}"):
            file = Path(store.fetch(path, downloader=DOWNLOADER))
        if path in objects and _git_object(file) != objects[path]:
            file.unlink()
            raise UserError(f"{name}: {source.url}{path}: is not the file of that commit, {objects[path]}; try again")
        return sha256(file)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = dict(zip(known, tqdm(pool.map(get, known), name, len(known), disable=None, leave=False), strict=True))
    first_seen = {f"{name}/{path}": digest for path, digest in found.items() if source.files.get(path) is None}
    if not first_seen.items() <= held.items():
        write_json(LOCK, dict(sorted((held | first_seen).items())))
    return folder


def only_file(name: str) -> str:
    """The name of a published input's one file. Raises UserError where it has several."""
    files = list(read_registry()[name].files)
    if len(files) != 1:
        raise UserError(f"{REGISTRY.name}: {name} has {len(files)} files; one that has a single file is needed here")
    return files[0]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What goes wrong in a download, as a line that says what to do."""
    try:
        yield
    except requests.RequestException as error:
        raise UserError(
            f"{what}: not to be had in {RETRIES + 1} tries ({error}); run again when there is a network, "
            f"or set {MIRROR} to a folder with copies"
        ) from None
    except ValueError as error:  # pooch's word for another hash
        raise UserError(
            f"{what}: {error}; the hash is that of {REGISTRY.name} or {LOCK}: try again later or from another "
            f"network, and if it stays so, ask the authors what changed"
        ) from None


def _verify_mirror(folder: Path, source: Source) -> None:
    for path, digest in source.files.items():
        if digest and (file := folder / path).exists() and (found := sha256(file)) != digest:
            raise UserError(f"{file}: not what {REGISTRY.name} names: sha256 {found}, should be {digest}; replace it")
    if absent := [path for path in source.files if not (folder / path).exists()]:
        print(f"{folder}: lacks {len(absent)} of {len(source.files)} files of {REGISTRY.name}, first {absent[0]}")


def _list(name: str, source: Source, folder: Path) -> dict[str, str]:
    """Path below `url` -> git object name, of the files that the listing names."""
    if source.listing is None:
        return {}
    listing = source.listing
    with _explained(f"{name}: {listing.url}"):
        file = pooch.retrieve(listing.url, None, "listing.json", folder, downloader=DOWNLOADER)
    answer = json.loads(Path(file).read_text())
    if answer.get("truncated", True):
        Path(file).unlink()
        raise UserError(f"{name}: {listing.url}: the list of files is cut short; nothing was fetched")
    wanted = re.compile(listing.pattern)
    matches = {wanted.fullmatch(entry["path"]): entry["sha"] for entry in answer["tree"] if entry["type"] == "blob"}
    return {match["path"]: sha for match, sha in matches.items() if match}


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_object(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def main(name: str) -> str:
    known = read_registry()
    if name not in known:
        raise UserError(f"no published input is called '{name}'; {REGISTRY.name} has {', '.join(known)}")
    return f"{name} in {fetch(name)}"


if __name__ == "__main__":
    run(main, name=str)
