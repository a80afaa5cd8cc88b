"""Downloads that are tried again, go on where they were cut short, and count only once they are whole.

A downloader for pooch, whose own starts from the first byte each time. What has arrived lies in
`<name>.partial`, beside it the server's name for that version (ETag, or Last-Modified): the rest is
asked for by Range and If-Range, so that a server that has another version by now, or knows no ranges,
sends the whole file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import pooch
import requests
from tqdm import tqdm

from pipeline.stage import UserError

MIRROR = "STUDIES_MIRROR"
LISTING = "listing.json"
STALL = 30.0  # seconds without a byte
RETRIES = 3
WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the first retry, doubled for each other; what a server may ask for
ENOUGH = 2**20  # bytes; a try that brought as many does not count as failed: large files arrive over bad lines
LARGE = 10 * 2**20  # bytes; larger files have a bar of their own
CHUNK = 2**13  # bytes; as many can be lost where a transfer breaks
BUSY = {408, 425, 429, 500, 502, 503, 504}
pooch.get_logger().setLevel("ERROR")


def from_first(name: str, stores: list[pooch.Pooch], path: str, size: int | None) -> Path:
    """A file from the first of these places that has it: verified, and in its folder.

    size: bytes, where known. Raises UserError where none has it, or it is not what the registry says.
    """
    for store in stores:
        with explained(f"{name}: {store.base_url}{path}"):
            try:
                return _from(store, path, size)
            except requests.HTTPError as error:
                if error.response.status_code != 404 or store is stores[-1]:
                    raise
    raise AssertionError("there is one at least")


def _from(store: pooch.Pooch, path: str, size: int | None) -> Path:
    downloader = Resuming(Path(store.path) / f"{path}.partial", size)
    try:
        return Path(store.fetch(path, downloader=downloader))
    except ValueError:
        if not downloader.resumed:
            raise
        return Path(store.fetch(path, downloader=downloader))  # its first part may have been of another file


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What goes wrong in a download, as a line that says what to do."""
    try:
        yield
    except requests.RequestException as error:
        tries = f" in {RETRIES + 1} tries" if may_pass(error) else ""
        raise UserError(
            f"{what}: not to be had{tries} ({str(error)[:300]}); run again when there is a network, "
            f"or set {MIRROR} to a folder with copies"
        ) from None
    except ValueError as error:  # pooch's word for another hash
        raise UserError(
            f"{what}: {error}; what is expected stands in sources.yaml or sources.lock: try again later or from "
            f"another network, and if it stays so, ask the authors what changed"
        ) from None


def list_files(name: str, listing: str, pattern: str, folder: Path, mirrors: list[str]) -> dict[str, str]:
    """Path -> git object name, of the files that match in the listing of a repository, kept in the folder.

    Raises UserError where it is not to be had, or is not a whole listing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for url in [*(f"{base}{LISTING}" for base in mirrors), listing]:
        with explained(f"{name}: {url}"):
            try:
                pooch.retrieve(url, None, LISTING, folder, downloader=Resuming(folder / f"{LISTING}.partial"))
                break
            except requests.HTTPError as error:
                if error.response.status_code != 404 or url == listing:
                    raise
    try:
        return read_listing(folder, pattern)
    except UserError:
        (folder / LISTING).unlink()
        raise UserError(
            f"{name}: {listing}: the list of files is cut short, or none; nothing was fetched, try again"
        ) from None


def read_listing(folder: Path, pattern: str) -> dict[str, str]:
    """Path -> git object name, of the files that match in the listing that a folder holds; empty where it holds none.

    Raises UserError where it is not a whole listing.
    """
    file = folder / LISTING
    if not file.exists():
        return {}
    try:
        answer = json.loads(file.read_bytes())
        blobs = {} if answer["truncated"] else {e["path"]: e["sha"] for e in answer["tree"] if e["type"] == "blob"}
    except (ValueError, KeyError, TypeError):
        blobs = {}
    if not blobs:
        raise UserError(f"{file}: not a whole list of a repository's files; remove it, it is fetched again")
    matches = {re.fullmatch(pattern, path): sha for path, sha in blobs.items()}
    return {match["path"]: sha for match, sha in matches.items() if match}


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for other processes that are in here with the same path. An empty file stays there."""
    with ExitStack() as held:
        with suppress(OSError):  # a file system that has no locks, or another user's file: go on without
            fcntl.flock(held.enter_context(path.open("ab")), fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_object(path: Path) -> str:
    """The name that git gives a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def may_pass(error: requests.RequestException) -> bool:
    """Whether another try may end otherwise: the network or a busy server, not a file that is not there."""
    if error.response is not None:
        return error.response.status_code in BUSY
    passing = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, passing)


class Resuming:
    """Downloads one file through `partial`; call it as pooch calls a downloader.

    size: bytes, where known; an answer of another size is not taken. After a call, `resumed` tells whether what an
    earlier call or try had left is part of the file.

    Raises requests.RequestException where the file is not to be had, ValueError where the answer can not be it.
    """

    def __init__(self, partial: Path, size: int | None = None) -> None:
        self.partial, self.size, self.resumed = partial, size, False
        self._note = partial.with_name(f"{partial.name}.version")

    def __call__(self, url: str, output_file: str | Path, pooch: object, check_only: bool = False) -> None:
        file = self._claim()
        if file is None:  # another process is at it
            with Path(output_file).open("wb") as file:
                self._retry(url, file, None)
            return
        with file:
            try:
                self._retry(url, file, self._note)
            except ValueError as error:
                if not isinstance(error, requests.RequestException):  # some are both: a bad address, a bad header
                    self._forget()
                raise
            self.partial.replace(output_file)
            self._note.unlink(missing_ok=True)

    def _claim(self) -> IO[bytes] | None:
        """The partial file, at its end and locked; None where another process has it."""
        file = self.partial.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), self.partial.stat()):
                return file
        except OSError:  # locked; or complete, and renamed, since it was opened; or a file system that has no locks
            pass
        file.close()
        return None

    def _forget(self) -> None:
        self.partial.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _retry(self, url: str, file: IO[bytes], note: Path | None) -> None:
        failures = 0
        while True:
            before = file.tell()
            try:
                self._try(url, file, note)
                return
            except requests.RequestException as error:
                failures = 1 if file.tell() - before >= ENOUGH else failures + 1
                if failures > RETRIES or not may_pass(error):
                    raise
                time.sleep(_pause(error, failures))

    def _try(self, url: str, file: IO[bytes], note: Path | None) -> None:
        have = file.tell()
        headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of what is sent
        if have and (version := _version_of(note, url)):
            headers |= {"Range": f"bytes={have}-", "If-Range": version}
        with requests.get(url, headers=headers, stream=True, timeout=STALL) as response:
            ranged = _range(response)
            if have and (response.status_code == 416 or (response.status_code == 206 and ranged[0] != have)):
                file.truncate(0)  # more has arrived than there is, or other bytes came than asked for
                file.seek(0)
                self._try(url, file, note)
                return
            response.raise_for_status()
            total = ranged[1]
            self.resumed = have > 0 and response.status_code == 206
            if not self.resumed:
                file.truncate(0)
                file.seek(0)
            self._check(response, url, total)
            _write_version(note, url, response)
            bar = tqdm(
                total=total,
                desc=self.partial.name.removesuffix(".partial"),
                initial=file.tell(),
                unit="B",
                unit_scale=True,
                leave=False,
                disable=None if (total or LARGE) >= LARGE else True,
            )
            try:
                with bar:
                    for chunk in response.iter_content(CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
            finally:
                file.flush()
        if total is not None and file.tell() < total:
            raise requests.ConnectionError(f"{file.tell():,} of {total:,} bytes came")
        if self.size not in (None, file.tell()):
            raise ValueError(f"{file.tell():,} bytes came, should be {self.size:,}")

    def _check(self, response: requests.Response, url: str, total: int | None) -> None:
        """Raises ValueError where the headers tell already that this can not be the file."""
        if None not in (self.size, total) and total != self.size:
            raise ValueError(f"the server has {total:,} bytes, should be {self.size:,}")
        if response.headers.get("Content-Type", "").startswith("text/html") and ".htm" not in url:
            raise ValueError("the server sent a web page, a login or an error perhaps, in the file's place")


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """Where the answer's bytes begin, and the size of the whole file; None where it does not say."""
    if response.status_code == 206:  # Content-Range: bytes 100-199/200
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = span.partition("-")[0]
        return (int(start) if start.isdigit() else None), (int(total) if total.isdigit() else None)
    length = response.headers.get("Content-Length", "")
    return 0, (int(length) if length.isdigit() and not _encoded(response) else None)


def _encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _version_of(note: Path | None, url: str) -> str | None:
    """What the server called the version that has begun to arrive; None where it is not known."""
    try:
        held = json.loads(note.read_text()) if note else {}
    except (OSError, ValueError):
        return None
    return held.get("version") if held.get("url") == url else None


def _write_version(note: Path | None, url: str, response: requests.Response) -> None:
    tag = response.headers.get("ETag", "")
    # a weak tag names what is alike, not the same bytes
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    if note:
        note.write_text(json.dumps({"url": url, "version": None if _encoded(response) else version}))


def _pause(error: requests.RequestException, failures: int) -> float:
    asked = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else WAIT * 2 ** (failures - 1)
