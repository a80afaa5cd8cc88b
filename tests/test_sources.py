"""Published inputs over HTTP: fetched once, verified, held; what goes wrong is said and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch.core
import pytest

from pipeline import sources
from pipeline.sources import Listing, Source, fetch, read_registry
from pipeline.stage import UserError

CONTENT = {"a/one.csv": b"one\n", "a/two.csv": b"two\n"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_object(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; what a path answers can be changed; counts what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {f"/{path}": content for path, content in CONTENT.items()}
        self.status: dict[str, int] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        tree = [{"path": f"raw/{path}", "type": "blob", "sha": git_object(c)} for path, c in CONTENT.items()]
        tree += [{"path": "raw/a", "type": "tree", "sha": "0"}, {"path": "raw/b/x.csv", "type": "blob", "sha": "0"}]
        self.files["/tree"] = json.dumps({"tree": tree, "truncated": False}).encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        status = self.server.status.get(self.path, 200 if content is not None else 404)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write((content or b"")[: 1 if self.path in self.server.cut else None])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STUDIES_MIRROR", raising=False)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)  # pooch waits between tries
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def source(server: Server, **changes: object) -> Source:
    known = {path: sha256(content) for path, content in CONTENT.items()}
    entry = {"what": "test", "licence": "none", "folder": "test", "url": server.url, "files": known, **changes}
    return Source.model_validate(entry)


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


@pytest.mark.parametrize("status", [404, 500])
def test_what_the_server_refuses_is_named(server, status):
    server.status["/a/two.csv"] = status
    with pytest.raises(UserError, match=rf"a/two.csv: not to be had in 4 tries \({status} .*STUDIES_MIRROR"):
        fetch("test", source(server))
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
    path.write_text("x: {what: w, licence: l, folder: f, url: 'http://a/', files: {a.csv: 12}}\n")
    with pytest.raises(UserError, match=r"sources.yaml: files.a.csv"):
        read_registry(path)


def test_an_unknown_input_is_named():
    with pytest.raises(UserError, match="no published input is called 'errors'"):
        sources.main("errors")
