"""Shards: the same bytes every time, readable by webdataset, and damaged ones refused."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import webdataset

from pipeline.shards import item_rng, process_pool, read_shard, write_shard
from pipeline.stage import UserError

SAMPLES = [
    {"__key__": f"{i:06d}", "png": bytes([i]) * (1000 + 37 * i), "json": b'{"circles": %d}' % i} for i in range(20)
]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "some" / "folder" / "a.tar"
    assert write_shard(path, SAMPLES) == len(SAMPLES)
    return path


def test_round_trip(shard):
    assert list(read_shard(shard)) == SAMPLES


def test_webdataset_reads_it(shard):
    loaded = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [(s["__key__"], s["png"], s["json"]) for s in loaded] == [
        (s["__key__"], s["png"], s["json"]) for s in SAMPLES
    ]


def test_reads_what_webdataset_writes(tmp_path):
    path = tmp_path / "w.tar"
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for sample in SAMPLES:
            writer.write(sample)
    assert list(read_shard(path)) == SAMPLES


def test_folders_and_double_extensions(tmp_path):
    samples = [{"__key__": "a.b/1", "seg.png": b"x"}, {"__key__": "c/1", "seg.png": b"y"}]
    write_shard(tmp_path / "a.tar", samples)
    assert list(read_shard(tmp_path / "a.tar")) == samples


def test_nothing_of_the_machine_in_it(shard, tmp_path):
    again = tmp_path / "b.tar"
    write_shard(again, iter(SAMPLES))
    assert again.read_bytes() == shard.read_bytes()
    with tarfile.open(shard) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


def test_a_shard_cut_anywhere_is_refused(shard, tmp_path):
    whole = shard.read_bytes()
    cut = tmp_path / "cut.tar"
    places = [0, 1, 511, 512, 1024, 10_240, len(whole) // 2, len(whole) - 10_240, len(whole) - 1024, len(whole) - 1]
    for place in [*places, *np.random.default_rng(0).integers(0, len(whole), 50)]:
        cut.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"cut\.tar: not a whole shard .* run 'dvc repro'"):
            list(read_shard(cut))


def test_a_file_that_is_no_tar_is_refused(tmp_path):
    path = tmp_path / "no.tar"
    path.write_bytes(b"\x89PNG" + b"x" * 9212 + bytes(1024))
    with pytest.raises(UserError, match=r"no\.tar: not a whole shard"):
        list(read_shard(path))


def test_a_failure_while_writing_leaves_the_old_shard(shard):
    before = shard.read_bytes()

    def fails():
        yield SAMPLES[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_shard(shard, fails())
    assert shard.read_bytes() == before
    assert [path.name for path in shard.parent.iterdir()] == ["a.tar"]


def test_item_rng_depends_on_seed_and_key_only():
    draws = {(s, k): item_rng(s, k).integers(2**62) for s in (0, 1) for k in ("a/1", "a/2", "a/10")}
    assert len(set(draws.values())) == 6
    assert item_rng(1, "a/2").integers(2**62) == draws[1, "a/2"]


def _square(x: int) -> int:
    return x * x


def test_results_come_in_order_whatever_the_workers():
    for workers in (1, 3):
        with process_pool(workers) as parallel_map:
            assert list(parallel_map(_square, range(500))) == [x * x for x in range(500)]


def test_an_empty_shard_is_whole(tmp_path):
    assert write_shard(tmp_path / "e.tar", []) == 0
    assert list(read_shard(tmp_path / "e.tar")) == []
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "e.tar").read_bytes())) as tar:
        assert tar.getnames() == []
