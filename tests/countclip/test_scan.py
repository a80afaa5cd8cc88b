"""The scan of LAION's metadata: the same captions as one by one, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_one_line_error, published_inputs

from pipeline.countclip.captions import caption_count
from pipeline.countclip.scan import scan
from pipeline.stage import UserError

CAPTIONS = ["three cats", None, "often", "Two-Tone", "word " * 2000 + "seven", "TEN cats", "twenty-two cats", ""]
FOUND = {"three cats": 3, CAPTIONS[4]: 7, "TEN cats": 10}


def write(path: Path, captions: list[str | None] = CAPTIONS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"URL": [f"http://{i}" for i in range(len(captions))], "TEXT": captions}).write_parquet(path)
    return path


def test_a_file_a_folder_and_a_pattern(tmp_path):
    write(tmp_path / "laion/a/0.parquet")
    write(tmp_path / "laion/b/1.parquet")
    for metadata, files in (
        (tmp_path / "laion/a/0.parquet", 1),
        (tmp_path / "laion", 2),
        (tmp_path / "laion/*/1.parquet", 1),
    ):
        found = scan(metadata)
        assert (found.read, found.null, found.not_utf8) == (8 * files, files, 0)
        assert found.rows.columns == ["URL", "TEXT", "count"]
        assert dict(found.rows.select("TEXT", "count").iter_rows()) == FOUND


def test_any_address_that_fsspec_reads(tmp_path):
    system = fsspec.filesystem("memory")
    system.put(str(write(tmp_path / "0.parquet")), "/laion/0.parquet")
    for metadata in ("memory://laion", "memory://laion/*.parquet"):
        assert dict(scan(metadata).rows.select("TEXT", "count").iter_rows()) == FOUND


def test_real_captions_are_counted_as_one_by_one():
    path = published_inputs() / "laion/laion400m-sample.parquet"
    texts = pl.read_parquet(path)["TEXT"].to_list()
    found = scan(path)
    assert found.read == len(texts) == 15_600
    wanted = [(text, count) for text in texts if (count := caption_count(text)) is not None]
    assert sorted(found.rows.select("TEXT", "count").iter_rows()) == sorted(wanted)


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_captions_that_are_not_utf8_are_read_and_counted(tmp_path, kind):
    captions = pa.array([b"three cats", b"two ch\xe2ts", None, b"\xff\xfe", "trois châts ten".encode()], pa.binary())
    column = pa.Array.from_buffers(kind, len(captions), captions.buffers())
    pq.write_table(pa.table({"URL": list("abcde"), "TEXT": column}), tmp_path / "0.parquet")
    found = scan(tmp_path)
    assert (found.read, found.null, found.not_utf8) == (5, 1, 2)
    assert found.rows["count"].to_list() == [3, 2, 10]


def test_a_file_without_text_is_named(tmp_path):
    pl.DataFrame({"URL": ["a"], "caption": ["three cats"]}).write_parquet(tmp_path / "0.parquet")
    with pytest.raises(UserError, match=r"0.parquet: lacks the columns \['TEXT'\]; has \['URL', 'caption'\]"):
        scan(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 not a table"])
def test_a_file_that_is_not_parquet_is_named(tmp_path, content):
    (tmp_path / "0.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"0.parquet: cannot be read as Parquet"):
        scan(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    path = write(tmp_path / "0.parquet")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"0.parquet: cannot be read as Parquet"):
        scan(path)


def test_the_command_says_what_it_found(tmp_path, workspace, run_stage):
    workspace()
    path = write(tmp_path / "laion/0.parquet")
    result = run_stage("countclip.scan", "--metadata", path.parent, "--out", "counted.parquet")
    assert "3 of 8 captions spell a number (1 null, 0 not UTF-8)" in result.stdout
    assert pl.read_parquet("counted.parquet")["count"].to_list() == [3, 7, 10]
    assert_one_line_error(
        run_stage("countclip.scan", "--metadata", "nowhere", "--out", "counted.parquet"), "nowhere: no Parquet file"
    )
