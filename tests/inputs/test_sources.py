"""Published inputs over HTTP: fetched once, verified, resumed, held; what goes wrong is said and leaves no trace."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from conftest import REPOSITORY, copy_params, published_inputs, stage_command, stage_environment
from ruamel.yaml import YAML

from pipeline.inputs import download, sources
from pipeline.inputs import fetch as inputs
from pipeline.inputs.download import Resuming
from pipeline.inputs.fetch import account, fetch_all, table
from pipeline.inputs.sources import Listing, Need, Source, fetch, read_registry
from pipeline.params import load_params
from pipeline.stage import UserError

CONTENT = {"a/one.csv": b"one\n", "a/two.csv": b"two\n"}
LARGE = bytes(range(256)) * 400  # 102,400 bytes


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_object(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; what a path answers can be changed; keeps what was asked for and what was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {f"/{path}": content for path, content in CONTENT.items()}
        self.status: dict[str, int] = {}
        self.status_first: dict[str, list[int]] = {}  # of the first requests for a path, one after the other
        self.cut: set[str] = set()
        self.cut_first: dict[str, list[int]] = {}  # bytes after which the first answers break off
        self.stall: set[str] = set()  # send half, and then nothing
        self.moved: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.ranges, self.etags = True, True
        self.asked: list[str] = []
        self.ranges_asked: list[tuple[str | None, str | None]] = []  # Range and If-Range of every request
        self.sent: Counter[str] = Counter()  # bytes of content by path
        self.over = threading.Event()
        tree = [{"path": f"raw/{path}", "type": "blob", "sha": git_object(c)} for path, c in CONTENT.items()]
        tree += [{"path": "raw/a", "type": "tree", "sha": "0"}, {"path": "raw/b/x.csv", "type": "blob", "sha": "0"}]
        self.files["/tree"] = json.dumps({"tree": tree, "truncated": False}).encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, path = self.server, self.path
        server.asked.append(path)
        server.ranges_asked.append((self.headers["Range"], self.headers["If-Range"]))
        content = server.files.get(path, b"")
        status = server.status.get(path, 200 if path in server.files else 404)
        if server.status_first.get(path):
            status = server.status_first[path].pop(0)
        if path in server.moved:
            status = 302
        start, etag = 0, f'"{sha256(content)[:8]}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if status == 200 and asked and server.ranges and self.headers["If-Range"] in (None, etag):
            start = int(asked[1])
            status = 206 if start < len(content) else 416
        body = content[start:] if status in (200, 206) else b""
        self.send_response(status)
        if path in server.moved:
            self.send_header("Location", server.moved[path])
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etags:
            self.send_header("ETag", etag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cut_first.get(path):
            body = body[: server.cut_first[path].pop(0)]
        elif path in server.cut:
            body = body[:1]
        elif path in server.stall:
            body = body[: len(body) // 2]
        self.wfile.write(body)
        server.sent[path] += len(body)
        if path in server.stall:
            self.wfile.flush()
            server.over.wait(10)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds waited between tries, which the tests do not wait."""
    waited: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    return waited


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STUDIES_MIRROR", raising=False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()


def source(server: Server, **changes: object) -> Source:
    known = {path: sha256(content) for path, content in CONTENT.items()}
    said = {"what": "test", "licence": "none", "use": "anyone", "bytes": None, "needed_by": [], "without": "nothing"}
    return Source.model_validate({**said, "folder": "test", "url": server.url, "files": known, **changes})


def large(server: Server, content: bytes = LARGE, **changes: object) -> Source:
    """A source with one file, which the server has."""
    server.files["/big.bin"] = content
    return source(server, **{"files": {"big.bin": sha256(content)}, **changes})


def listed(server: Server, known: tuple[str, ...] = ("a/one.csv",)) -> Source:
    listing = {"url": f"{server.url}tree", "pattern": r"raw/(?P<path>a/[^/]+\.csv)"}
    return source(server, listing=listing, files={path: sha256(CONTENT[path]) for path in known})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.csv")}


def test_files_are_fetched_once(server):
    folder = fetch("test", source(server))
    assert contents(folder) == CONTENT
    assert sorted(server.asked) == ["/a/one.csv", "/a/two.csv"]
    assert fetch("test", source(server)) == folder
    assert len(server.asked) == 2


def test_a_damaged_copy_is_fetched_again(server):
    folder = fetch("test", source(server))
    (folder / "a/one.csv").write_bytes(b"rotten")
    assert contents(fetch("test", source(server))) == CONTENT
    assert server.asked.count("/a/one.csv") == 2


def test_what_the_listing_adds_is_verified_and_held(server):
    folder = fetch("test", listed(server))
    assert contents(folder) == CONTENT
    assert json.loads(Path("sources.lock").read_text()) == {"test/a/two.csv": sha256(CONTENT["a/two.csv"])}

    # another day, another machine: the file has changed, and so has the listing
    changed = b"changed\n"
    server.files["/a/two.csv"] = changed
    server.files["/tree"] = server.files["/tree"].replace(git_object(b"two\n").encode(), git_object(changed).encode())
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=r"a/two.csv: .*hash.*sources.lock"):
        fetch("test", listed(server))


def test_what_the_registry_has_no_hash_for_is_held_from_first_use(server):
    unknown = source(server, files={path: None for path in CONTENT})
    folder = fetch("test", unknown)
    assert json.loads(Path("sources.lock").read_text()) == {f"test/{path}": sha256(c) for path, c in CONTENT.items()}
    (folder / "a/one.csv").unlink()
    server.files["/a/one.csv"] = b"changed"
    with pytest.raises(UserError, match=r"a/one.csv: .*hash.*sources.lock"):
        fetch("test", unknown)


def test_a_file_that_is_not_the_commits_is_refused(server):
    server.files["/a/two.csv"] = b"not of that commit"
    with pytest.raises(UserError, match=r"a/two.csv: is not the file of that commit"):
        fetch("test", listed(server))
    assert not Path("sources.lock").exists()
    assert "a/two.csv" not in contents(Path("cache/test"))


def test_a_listing_cut_short_is_refused(server):
    server.files["/tree"] = json.dumps({"tree": [], "truncated": True}).encode()
    with pytest.raises(UserError, match="the list of files is cut short"):
        fetch("test", listed(server))


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, 4), (503, 4)])
def test_what_the_server_refuses_is_named(server, waits, status, tries):
    server.status["/a/two.csv"] = status
    said = "" if tries == 1 else f" in {tries} tries"
    with pytest.raises(UserError, match=rf"a/two.csv: not to be had{said} \({status} .*STUDIES_MIRROR"):
        fetch("test", source(server))
    assert server.asked.count("/a/two.csv") == tries
    assert waits == [1, 2, 4][: tries - 1]
    assert contents(Path("cache/test")).keys() <= {"a/one.csv"}

    server.status.clear()  # back again: what is there is not asked for twice
    assert contents(fetch("test", source(server))) == CONTENT
    assert server.asked.count("/a/one.csv") == 1


def test_wrong_bytes_are_named_and_not_kept(server):
    server.files["/a/two.csv"] = b"another file"
    with pytest.raises(UserError, match=r"a/two.csv: .*hash.*sources.yaml"):
        fetch("test", source(server))
    assert "a/two.csv" not in contents(Path("cache/test"))


def test_a_download_cut_short_is_not_kept(server):
    server.cut.add("/a/two.csv")
    with pytest.raises(UserError, match=r"a/two.csv"):
        fetch("test", source(server))
    assert "a/two.csv" not in contents(Path("cache/test"))


def test_a_mirror_is_used_without_the_network(server, monkeypatch, tmp_path):
    monkeypatch.setenv("STUDIES_MIRROR", str(tmp_path / "mirror"))
    for path, content in CONTENT.items():
        target = tmp_path / "mirror/test" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    assert fetch("test", source(server)) == tmp_path / "mirror/test"
    assert server.asked == []
    (tmp_path / "mirror/test/a/one.csv").write_bytes(b"another")
    with pytest.raises(UserError, match=r"mirror/test/a/one.csv: not what sources.yaml names"):
        fetch("test", source(server))


def test_a_mirror_without_the_input_is_said_and_the_network_asked(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STUDIES_MIRROR", str(tmp_path))
    assert contents(fetch("test", source(server))) == CONTENT
    assert "has no folder 'test'" in capsys.readouterr().out


def test_the_registry_pins_a_commit_and_the_published_files():
    entry = read_registry()["error_consistency"]
    commit = "eb53bdb5d8e48166c56b9201842b19e8259506c5"
    assert f"/{commit}/" in entry.url
    assert isinstance(entry.listing, Listing)
    assert f"/{commit}?" in entry.listing.url
    assert len(entry.files) == 70


def test_a_registry_with_a_bad_entry_is_named(tmp_path):
    path = tmp_path / "sources.yaml"
    entry = (
        "x: {what: w, licence: l, use: u, bytes: null, needed_by: [], without: n, folder: f, url: 'http://a/', files: "
    )
    path.write_text(entry + "{a.csv: 12}}\n")
    with pytest.raises(UserError, match=r"sources.yaml: x.files.a.csv: .*, found 12; mend it"):
        read_registry(path)
    path.write_text(entry + "{}, sizes: 1}\n")
    with pytest.raises(UserError, match=r"sources.yaml: x.sizes"):
        read_registry(path)
    path.write_text(entry.replace("'http://a/'", "null") + "{}}\n")
    with pytest.raises(UserError, match=r"sources.yaml: .*how"):
        read_registry(path)


CONFLICT = "<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x: {what: w\ny: [\n", "not YAML: .*line 2"),
        (CONFLICT.format("x: 1", "x: 2"), "not YAML: .*line 2"),
        ("", "the file: .*found None"),
        ("- x\n", "the file: .*found \\['x'\\]"),
        ("x:\n", "x: .*found None"),
        ("x: \0\n", "not YAML: .*special characters"),
        ("x: \udcff\n", "not YAML: .*0xff"),
    ],
)
def test_what_is_no_registry_is_said_in_a_line(tmp_path, content, said):
    path = tmp_path / "sources.yaml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=rf"sources.yaml: {said}.*; mend it, or .*git checkout sources.yaml") as error:
        read_registry(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{\n" + CONFLICT.format('"test/a": "0"', '"test/a": "1"') + "}\n", "Invalid JSON.* at line 2"),
        ("", "Invalid JSON.* at line 1"),
        ("[]", "the file: .*found \\[\\]"),
        ('{"test/a/one.csv": null}', "test/a/one.csv: .*found None"),
        ('{"test/a/one.csv": "12"}', "test/a/one.csv: .*found '12'"),
    ],
)
def test_a_lock_that_is_none_is_said_in_a_line(server, tmp_path, content, said):
    copy_params(tmp_path)
    Path("sources.lock").write_text(content)
    for asked in (lambda: fetch("test", source(server)), lambda: account({"test": source(server)})):
        with pytest.raises(UserError, match=rf"^sources.lock: .*{said}.*keep the lines of both sides") as error:
            asked()
        assert "\n" not in str(error.value)
    assert server.asked == []
    assert Path("sources.lock").read_text() == content


def test_stages_that_fetch_at_once_are_all_held(server):
    """More of them than `make repro` runs at a time, each with an input of its own."""
    entries = {f"input{n}": source(server, folder=f"f{n}", files={"a/one.csv": None}) for n in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fetch, entries, entries.values()))
    digest = sha256(CONTENT["a/one.csv"])
    assert json.loads(Path("sources.lock").read_text()) == {f"{name}/a/one.csv": digest for name in entries}


def write_lock_while_it_is_fetched(monkeypatch: pytest.MonkeyPatch, content: dict[str, str]) -> None:
    """What another stage does between this one's first look at the lock and its end."""
    from_first = sources.from_first

    def fetch_slowly(*arguments: object) -> Path:
        Path("sources.lock").write_text(json.dumps(content))
        return from_first(*arguments)

    monkeypatch.setattr(sources, "from_first", fetch_slowly)


def test_what_another_stage_writes_meanwhile_is_kept(server, monkeypatch):
    other = {"other/x.csv": sha256(b"x")}
    write_lock_while_it_is_fetched(monkeypatch, other)
    fetch("test", source(server, files={"a/one.csv": None}))
    assert json.loads(Path("sources.lock").read_text()) == {**other, "test/a/one.csv": sha256(b"one\n")}
    assert not list(Path().glob(".sources.lock.[0-9]*"))


def test_another_hash_that_another_stage_writes_meanwhile_is_an_error(server, monkeypatch):
    other = {"test/a/one.csv": sha256(b"x")}
    write_lock_while_it_is_fetched(monkeypatch, other)
    with pytest.raises(UserError, match=rf"a/one.csv: not what sources.lock names .*{sha256(b'x')}; fetch it again"):
        fetch("test", source(server, files={"a/one.csv": None}))
    assert json.loads(Path("sources.lock").read_text()) == other


def test_an_unknown_input_is_named():
    with pytest.raises(UserError, match="no published input is called 'errors'"):
        sources.main("errors")


# downloads


def test_a_download_cut_short_is_resumed_where_it_stopped(server):
    server.cut_first["/big.bin"] = [60_000, 10_000]
    entry = large(server)
    assert (fetch("test", entry) / "big.bin").read_bytes() == LARGE
    tag = f'"{sha256(LARGE)[:8]}"'
    (first, *rest) = server.ranges_asked
    assert first == (None, None)
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked, condition in rest if condition == tag]
    assert len(starts) == 2
    assert 60_000 - download.CHUNK <= starts[0] <= 60_000 < starts[1]
    assert server.sent["/big.bin"] < len(LARGE) + 2 * download.CHUNK  # nothing twice but the chunks that broke
    assert sorted(path.name for path in Path("cache/test").iterdir()) == ["big.bin"]


def test_another_run_resumes_what_one_has_left(server):
    server.cut_first["/big.bin"] = [40_000, 20_000, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"big.bin: not to be had in 4 tries"):
        fetch("test", large(server))
    left = Path("cache/test/big.bin.partial").read_bytes()
    assert left == LARGE[: len(left)]
    assert len(left) > 40_000
    assert not Path("cache/test/big.bin").exists()
    del server.cut_first["/big.bin"]
    server.ranges_asked.clear()
    assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE
    assert [asked for asked, _ in server.ranges_asked] == [f"bytes={len(left)}-"]


def test_a_try_that_brought_much_is_not_counted(server, monkeypatch):
    monkeypatch.setattr(download, "ENOUGH", 10_000)
    server.cut_first["/big.bin"] = [18_000] * 5
    assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_without_versions_or_ranges_sends_the_whole_file(server, ranges):
    server.ranges, server.etags = ranges, not ranges
    server.cut_first["/big.bin"] = [60_000]
    assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE
    assert server.sent["/big.bin"] == 60_000 + len(LARGE)


def test_another_version_in_between_is_fetched_whole(server):
    other = LARGE[::-1]
    server.cut.add("/big.bin")
    server.cut_first["/big.bin"] = [60_000]
    with pytest.raises(UserError):
        fetch("test", large(server))
    server.cut.clear()
    assert Path("cache/test/big.bin.partial").stat().st_size > 50_000
    assert (fetch("test", large(server, other)) / "big.bin").read_bytes() == other
    assert server.ranges_asked[-1][1] == f'"{sha256(LARGE)[:8]}"'


def test_another_file_under_the_same_version_is_fetched_again_whole(server):
    """A partial file that is not the beginning of this one, whatever the server calls it."""
    entry = large(server)
    folder = Path("cache/test")
    folder.mkdir(parents=True)
    (folder / "big.bin.partial").write_bytes(b"another" * 1000)
    note = {"url": f"{server.url}big.bin", "version": f'"{sha256(LARGE)[:8]}"'}
    (folder / "big.bin.partial.version").write_text(json.dumps(note))
    assert (fetch("test", entry) / "big.bin").read_bytes() == LARGE
    assert [asked for asked, _ in server.ranges_asked] == ["bytes=7000-", None]


def test_a_partial_file_that_is_too_long_is_begun_again(server):
    entry = large(server)
    folder = Path("cache/test")
    folder.mkdir(parents=True)
    (folder / "big.bin.partial").write_bytes(LARGE + b"more")
    note = {"url": f"{server.url}big.bin", "version": f'"{sha256(LARGE)[:8]}"'}
    (folder / "big.bin.partial.version").write_text(json.dumps(note))
    assert (fetch("test", entry) / "big.bin").read_bytes() == LARGE


def test_a_stalled_download_is_given_up_and_resumed(server, monkeypatch):
    monkeypatch.setattr(download, "STALL", 0.2)
    server.stall.add("/big.bin")
    with pytest.raises(UserError, match=r"big.bin: not to be had in 4 tries \(.*timed out"):
        fetch("test", large(server))
    assert not Path("cache/test/big.bin").exists()
    server.stall.clear()
    assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE
    assert server.ranges_asked[-1][0] != "bytes=0-"
    assert server.sent["/big.bin"] < 1.5 * len(LARGE)


def test_redirects_are_followed_with_the_range(server):
    entry = large(server)
    server.files["/elsewhere"] = server.files["/big.bin"]
    server.moved["/big.bin"] = "/elsewhere"
    server.cut_first["/elsewhere"] = [60_000]
    assert (fetch("test", entry) / "big.bin").read_bytes() == LARGE
    assert server.sent["/elsewhere"] < len(LARGE) + download.CHUNK
    assert server.asked == ["/big.bin", "/elsewhere"] * 2


def test_a_server_that_fails_at_first_is_asked_again(server, waits):
    server.status_first["/big.bin"] = [500, 503, 429]
    server.headers["Retry-After"] = "7"
    assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE
    assert waits == [7, 7, 7]


def test_no_server_at_all_is_said(server, waits):
    with pytest.raises(UserError, match=r"one.csv: not to be had in 4 tries .*run again when there is a network"):
        fetch("test", source(server, url="http://127.0.0.1:1/", files={"one.csv": None}))
    assert waits == [1, 2, 4]


def test_wrong_bytes_are_named_by_both_hashes(server):
    entry = large(server)
    server.files["/big.bin"] = LARGE[::-1]
    with pytest.raises(UserError) as error:
        fetch("test", entry)
    assert sha256(LARGE) in str(error.value)
    assert sha256(LARGE[::-1]) in str(error.value)
    assert list(Path("cache/test").iterdir()) == []
    assert len(server.asked) == 1


def test_a_wrong_size_is_seen_before_the_bytes_are_taken(server):
    with pytest.raises(UserError, match=r"big.bin: the server has 102,400 bytes, should be 99;"):
        fetch("test", large(server, bytes=99))
    assert list(Path("cache/test").iterdir()) == []


def test_a_web_page_in_the_files_place_is_refused(server):
    server.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(UserError, match=r"big.bin: the server sent a web page"):
        fetch("test", large(server, files={"big.bin": None}))
    assert list(Path("cache/test").iterdir()) == []
    assert not Path("sources.lock").exists()


def test_two_processes_do_not_write_one_partial_file(server):
    folder = Path("cache/test")
    folder.mkdir(parents=True)
    with (folder / "big.bin.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"of another process")
        other.flush()
        assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE
        assert (folder / "big.bin.partial").read_bytes() == b"of another process"


def test_a_full_disk_is_said_and_what_arrived_kept(server, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            if self.file.tell() > 50_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

    claim = Resuming._claim
    with monkeypatch.context() as patched:
        patched.setattr(Resuming, "_claim", lambda self: Full(claim(self)))
        with pytest.raises(OSError, match="No space left"):
            fetch("test", large(server))
    assert not Path("cache/test/big.bin").exists()
    assert (fetch("test", large(server)) / "big.bin").read_bytes() == LARGE
    assert server.ranges_asked[-1][0] is not None


# mirrors


def test_a_mirror_may_be_an_address(server, monkeypatch):
    for path, content in CONTENT.items():
        server.files[f"/copies/test/{path}"] = content
    del server.files["/a/one.csv"], server.files["/copies/test/a/two.csv"]
    monkeypatch.setenv("STUDIES_MIRROR", f"{server.url}copies")
    assert contents(fetch("test", source(server))) == CONTENT  # what the mirror lacks comes from where it was published
    assert sorted(server.asked) == ["/a/two.csv", "/copies/test/a/one.csv", "/copies/test/a/two.csv"]


def test_what_a_mirrors_address_has_is_verified(server, monkeypatch):
    server.files |= {f"/test/{path}": content for path, content in CONTENT.items()}
    server.files["/test/a/two.csv"] = b"another"
    monkeypatch.setenv("STUDIES_MIRROR", server.url)
    with pytest.raises(UserError, match=r"/test/a/two.csv: .*hash"):
        fetch("test", source(server))


def test_a_mirrors_address_serves_a_listing_as_the_cache_holds_it(server, monkeypatch):
    server.files |= {f"/test/{path}": content for path, content in CONTENT.items()}
    server.files["/test/listing.json"] = server.files.pop("/tree")
    monkeypatch.setenv("STUDIES_MIRROR", server.url)
    assert contents(fetch("test", listed(server))) == CONTENT


def test_a_mirror_with_another_input_in_the_same_folder_is_not_taken_for_this_one(server, monkeypatch, tmp_path):
    (tmp_path / "mirror/test").mkdir(parents=True)
    (tmp_path / "mirror/test/other.pth").write_bytes(b"other")
    monkeypatch.setenv("STUDIES_MIRROR", str(tmp_path / "mirror"))
    assert contents(fetch("test", source(server))) == CONTENT


@pytest.fixture
def mirror(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A mirror's folder with whole copies, without a listing."""
    monkeypatch.setenv("STUDIES_MIRROR", str(tmp_path / "mirror"))
    copy_params(tmp_path)
    for path, content in CONTENT.items():
        target = tmp_path / "mirror/test" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return tmp_path / "mirror/test"


def assert_refused(entry: Source, said: str) -> None:
    """By a stage, and in the account."""
    before = Path("sources.lock").read_bytes() if Path("sources.lock").exists() else None
    with pytest.raises(UserError, match=said):
        fetch("test", entry)
    (found,) = account({"test": entry})
    assert found.state == "optional"
    assert re.search(said, found.reason)
    assert (Path("sources.lock").read_bytes() if Path("sources.lock").exists() else None) == before


def test_a_mirrors_copy_is_held_from_first_use(server, mirror):
    unknown = source(server, files={path: None for path in CONTENT})
    fetch("test", unknown)
    first = Path("sources.lock").read_bytes()
    assert json.loads(first) == {f"test/{path}": sha256(content) for path, content in CONTENT.items()}
    fetch("test", unknown)
    assert Path("sources.lock").read_bytes() == first
    (mirror / "a/one.csv").write_bytes(b"another")
    assert_refused(unknown, "one.csv: not what sources.lock names")
    assert server.asked == []


def test_the_same_lock_comes_of_a_mirror_and_of_the_network(server, mirror, monkeypatch):
    unknown = source(server, files={path: None for path in CONTENT})
    fetch("test", unknown)
    first = Path("sources.lock").read_bytes()
    Path("sources.lock").unlink()
    monkeypatch.delenv("STUDIES_MIRROR")
    fetch("test", unknown)
    assert Path("sources.lock").read_bytes() == first


def test_the_account_writes_no_lock(server, mirror):
    unknown = source(server, files={path: None for path in CONTENT})
    assert [entry.state for entry in account({"test": unknown})] == ["there"]
    assert not Path("sources.lock").exists()


def test_what_sources_yaml_states_is_not_held(server, mirror):
    fetch("test", source(server))
    assert not Path("sources.lock").exists()


def test_what_a_listing_adds_is_held_in_a_mirror_too(server, mirror):
    fetch("test", listed(server))
    assert json.loads(Path("sources.lock").read_text()) == {"test/a/two.csv": sha256(CONTENT["a/two.csv"])}
    (mirror / "a/two.csv").write_bytes(b"forged")
    assert_refused(listed(server), rf"two.csv: not what sources.lock names: sha256 {sha256(b'forged')}")


@pytest.mark.parametrize("forged", ["b/new.csv", "new.csv", ".hidden/new.csv"])
@pytest.mark.parametrize("links", [False, True])
def test_whatever_a_reader_of_a_mirror_would_find_is_held(server, mirror, tmp_path, forged, links):
    fetch("test", listed(server))
    (tmp_path / "elsewhere" / forged).parent.mkdir(parents=True)
    (tmp_path / "elsewhere" / forged).write_bytes(b"first")
    (mirror / forged).parent.mkdir(exist_ok=True)
    (mirror / forged).symlink_to(tmp_path / "elsewhere" / forged)
    if links and Path(forged).parent != Path():
        (mirror / forged).unlink()
        (mirror / forged).parent.rmdir()
        (mirror / forged).parent.symlink_to((tmp_path / "elsewhere" / forged).parent)
    fetch("test", listed(server))
    assert json.loads(Path("sources.lock").read_text())[f"test/{forged}"] == sha256(b"first")
    (tmp_path / "elsewhere" / forged).write_bytes(b"then another")
    assert_refused(listed(server), "new.csv: not what sources.lock names")


def test_a_mirrors_copy_is_held_to_a_listing_beside_it(server, mirror):
    (mirror / "listing.json").write_bytes(server.files["/tree"])
    (mirror / "a/two.csv").write_bytes(b"forged")
    assert_refused(listed(server), rf"two.csv: not what listing.json names: {git_object(b'forged')}, should be")
    (mirror / "a/two.csv").write_bytes(CONTENT["a/two.csv"])
    (mirror / "b").mkdir()
    (mirror / "b/new.csv").write_bytes(b"of no commit")
    assert_refused(listed(server), "b/new.csv: neither sources.yaml nor listing.json names it")
    (mirror / "b/new.csv").rename(mirror / "b/notes.txt")  # which nobody reads
    assert fetch("test", listed(server)) == mirror
    assert "a/one.csv" not in Path("sources.lock").read_text()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"tree": [{}], "truncated": false}', b'{"truncated": true}'])
def test_a_mirrors_listing_that_is_none_is_named(server, mirror, content):
    (mirror / "listing.json").write_bytes(content)
    assert_refused(listed(server), r"test/listing.json: not a whole list of a repository's files")


def test_a_mirror_may_have_some_experiments_only(server, mirror, capsys):
    (mirror / "listing.json").write_bytes(server.files["/tree"])
    (mirror / "a/two.csv").unlink()
    assert fetch("test", listed(server)) == mirror
    assert "lacks 1 of 2 files, first a/two.csv" in capsys.readouterr().out
    assert [entry.state for entry in account({"test": listed(server)})] == ["there"]


def test_a_mirrors_copy_is_held_to_what_the_lock_says(server, monkeypatch, tmp_path):
    unknown = source(server, files={path: None for path in CONTENT})
    fetch("test", unknown)
    (tmp_path / "mirror/test/a").mkdir(parents=True)
    (tmp_path / "mirror/test/a/one.csv").write_bytes(b"another")
    monkeypatch.setenv("STUDIES_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(UserError, match=r"one.csv: not what sources.lock names"):
        fetch("test", unknown)


# the account


NEED = {"study": "countclip", "stages": ["pool"], "when": {"sources.*.pool": "good"}}


def two(server: Server, tmp_path: Path, **changes: object) -> dict[str, Source]:
    """Two inputs, of which the server has the first; params.yaml asks for `changes`."""
    copy_params(tmp_path, source="published", **changes)
    server.files["/good.bin"] = b"good"
    good = source(server, folder="good", files={"good.bin": None}, needed_by=[NEED])
    need = {"study": "posenet", "stages": ["posenet_images"], "when": {"sources.*.posenet.images": "bad"}}
    bad = source(server, folder="bad", files={"bad.bin": None}, needed_by=[need], without="other images")
    return {"bad": bad, "good": good}


def test_one_input_that_fails_does_not_stop_the_others(server, tmp_path):
    changes = {"sources.published.posenet.images": "bad"}
    bad, good = fetch_all(two(server, tmp_path, **changes), load_params())
    assert (good.state, good.reason, good.needed) == ("fetched", "", False)
    assert (bad.state, bad.needed, bad.stages) == ("missing", True, ["posenet_images"])
    assert "404" in bad.reason
    assert Path("cache/good/good.bin").read_bytes() == b"good"
    text = table([bad, good])
    for part in ("bad (missing, needed now)", "404", "posenet_images", "other images", "--name bad", "STUDIES_MIRROR"):
        assert part in text
    again = {entry.name: entry.state for entry in account(two(server, tmp_path, **changes))}
    assert again == {"bad": "missing", "good": "there"}


@pytest.mark.parametrize(
    ("wanted", "found", "holds"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("a", ["b", "a"], True),
        (["a", "c"], "c", True),
        (["a", "c"], "b", False),
        ({"not": "a"}, "b", True),
        ({"not": "a"}, "a", False),
    ],
)
def test_a_need_holds_where_settings_have_its_values(wanted, found, holds):
    need = Need.model_validate({**NEED, "when": {"sources.*.pool": wanted}})
    assert need.holds({"sources": {"*": {"pool": found}}}) is holds


@pytest.mark.parametrize("name", ["all", "account"])
def test_the_exit_status_says_whether_what_is_needed_is_there(server, tmp_path, monkeypatch, name):
    registry = two(server, tmp_path, **{"sources.published.posenet.images": "bad"})
    monkeypatch.setattr(inputs, "read_registry", lambda: registry)
    with pytest.raises(UserError, match=r"source = published needs bad, see above"):
        inputs.main(name)
    copy_params(tmp_path, source="generated")  # nothing is needed, whatever is missing
    assert "lacks none" in inputs.main(name)


def test_what_no_setting_asks_for_is_fetched_by_its_name_only(server, tmp_path):
    registry = {"spare": source(server)}
    copy_params(tmp_path)
    assert [entry.state for entry in fetch_all(registry)] == ["optional"]
    assert server.asked == []
    fetch("spare", registry["spare"])
    assert [entry.state for entry in account(registry)] == ["there"]


def test_the_account_names_a_damaged_copy_and_what_has_arrived(server, tmp_path):
    copy_params(tmp_path)
    registry = {"x": source(server, needed_by=[NEED])}
    folder = fetch("x", registry["x"])
    (folder / "a/one.csv").write_bytes(b"rotten")
    (entry,) = account(registry)
    assert entry.state == "missing"
    assert sha256(b"rotten") in entry.reason
    (folder / "a/one.csv").rename(folder / "a/one.csv.partial")
    (entry,) = account(registry)
    assert "has 1 of 2 files, lacks a/one.csv, 6 bytes of it" in entry.reason


def test_a_listed_file_that_is_absent_is_missing_and_fetched(server, tmp_path):
    copy_params(tmp_path)
    entry = listed(server).model_copy(update={"needed_by": [Need.model_validate(NEED)]})
    folder = fetch("test", entry)
    (folder / "a/two.csv").unlink()
    (found,) = account({"test": entry})
    assert (found.state, found.reason) == ("missing", f"{folder} has 1 of 2 files, lacks a/two.csv")
    assert [found.state for found in fetch_all({"test": entry})] == ["fetched"]
    assert contents(folder) == CONTENT


def test_a_file_in_the_cache_that_the_listing_does_not_name_is_refused(server, tmp_path):
    """As one of another commit is, from before sources.yaml named this one."""
    copy_params(tmp_path)
    (fetch("test", listed(server)) / "a/three.csv").write_bytes(b"of another commit")
    assert_refused(listed(server), "a/three.csv: neither sources.yaml nor listing.json names it; move it elsewhere")


def test_an_unwritable_cache_is_a_reason_like_others(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    _, good = fetch_all(two(server, tmp_path))
    assert good.state == "missing"
    assert str(tmp_path / "cache") in good.reason


def test_the_account_of_an_empty_cache_asks_no_network(server, tmp_path, monkeypatch):
    copy_params(tmp_path, source="published")
    monkeypatch.setattr(requests, "get", None)
    entries = {entry.name: entry for entry in account()}
    assert {entry.state for entry in entries.values()} == {"missing", "optional", "yours"}
    needed = {name for name, entry in entries.items() if entry.needed}
    assert needed == {name for name, entry in entries.items() if entry.state == "missing"}
    assert entries["vgg16"].stages == ["extract_features@vgg16"]
    copy_params(
        tmp_path, source="published", **{"posenet.backbones": ["pixels"], "sources.published.clip.weights": None}
    )
    needed = {entry.name for entry in account() if entry.needed}
    assert not needed & {"vgg16", "resnet152", "squeezenet1_1", "clip_vit_b_32"}


def test_the_command_prints_the_account_and_fails_where_needed(tmp_path):
    copy_params(tmp_path, source="published")
    env = stage_environment(STUDIES_CACHE=str(tmp_path / "cache"), STUDIES_MIRROR="")
    command = stage_command("inputs.fetch")
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "source = published needs error_consistency, yolov8n, countclip_set" in result.stderr
    assert all(name in result.stdout for name in read_registry())


def test_make_fetch_fetches_all():
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "fetch: $(STAMP)\n\t@python -m pipeline.inputs.fetch --name all\n" in makefile


# the registry


def test_every_need_names_stages_and_settings_that_there_are():
    stages = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
    params = load_params(REPOSITORY / "params.yaml").model_dump(by_alias=True)
    for name, entry in read_registry().items():
        for need in entry.needed_by:
            assert {stage.split("@")[0] for stage in need.stages} <= stages.keys(), name
            for key in need.when:
                value = params
                for part in key.replace("*", "published").split("."):
                    value = value[part]


def test_every_input_that_published_settings_name_is_in_the_registry():
    registry = read_registry()
    published = load_params(REPOSITORY / "params.yaml").sources.published
    named = {
        published.pool,
        published.countbench,
        published.detector.path,
        published.clip.weights,
        published.posenet.images,
        *published.posenet.weights.values(),
    }
    assert named <= registry.keys()
    assert registry["yolov8n"].files == {"yolov8n.pt": published.detector.sha256}
    assert registry["yolov8n"].bytes == 6_549_796
    assert {"laion_metadata", "countbench_images", "error_consistency", "clip_vit_b_32"} <= registry.keys()
    for entry in registry.values():  # torchvision and OpenAI put the sha256, or its first digits, in the address
        for path, digest in entry.files.items():
            if stated := re.search(r"-([0-9a-f]{8})\.pth$", path) or re.search(r"/([0-9a-f]{64})/$", entry.url):
                assert digest.startswith(stated[1])


def test_what_is_not_fetched_is_said(server):
    with pytest.raises(UserError, match=r"laion_metadata is not fetched: .*scan --metadata"):
        fetch("laion_metadata")


def test_the_inputs_at_hand_are_as_the_registry_says(monkeypatch, tmp_path):
    """Against a mirror with real copies: hashes (fetch verifies them) and sizes."""
    mirror = published_inputs().resolve()
    monkeypatch.setenv("STUDIES_MIRROR", str(mirror))
    monkeypatch.chdir(tmp_path)  # what it has no hash for is held there, not in the repository
    registry = read_registry()
    there = [name for name, entry in registry.items() if entry.folder and sources.mirrored(entry)]
    assert there, f"{mirror} has none of them"
    for name in there:
        entry, folder = registry[name], fetch(name)
        assert folder == mirror / entry.folder
        if entry.bytes is not None and not sources.absent_files(folder, entry):
            assert sum((folder / path).stat().st_size for path in entry.files) == entry.bytes, name
