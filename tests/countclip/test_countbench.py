"""The benchmark and its audit: generated scenes, CountBench's rows, images that are missing or broken."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_one_line_error, edit_params, published_inputs

from pipeline.countclip.captions import WORDS, caption_count, number_words
from pipeline.countclip.countbench import collect, read_folder, read_rows
from pipeline.countclip.counting_set import load_benchmark
from pipeline.countclip.paths import BENCHMARK, MISSING
from pipeline.countclip.tokens import shorten
from pipeline.shards import read_shard, write_shard
from pipeline.stage import UserError

PNG = cv2.imencode(".png", np.full((40, 60, 3), 90, np.uint8))[1].tobytes()


def row(number: int, text: str | None = None) -> dict:
    return {"image_url": f"http://x/{number}.png", "text": text or f"{WORDS[number]} cats", "number": number}


@pytest.mark.slow
def test_the_generated_benchmark_is_even(workspace, run_stage):
    workspace(**{"scales.smoke.countclip.benchmark_per_number": 3})
    assert run_stage("countclip.countbench").returncode == 0
    samples = list(read_shard(BENCHMARK))
    numbers = [json.loads(sample["json"])["number"] for sample in samples]
    assert Counter(numbers) == dict.fromkeys(range(2, 11), 3)
    assert [caption_count(sample["txt"].decode()) for sample in samples] == numbers
    audit = json.loads(Path("metrics/countclip/benchmark.json").read_text())
    rows = {"rows": 27, "rows_of_a_number": {"least": 3, "most": 3}}
    assert audit == {**rows, "present": 27, "missing": {}, "missing_by_number": {}}
    benchmark = load_benchmark(BENCHMARK, 32, 16)
    assert benchmark.ids.shape == (27, 9, 16)
    assert benchmark.pixels.shape == (27, 3, 32, 32)
    assert benchmark.numbers.tolist() == numbers
    assert benchmark.cut == 0


def test_what_is_missing_is_said_by_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row(2), row(3), row(4), row(5, "five-star cats"), row(6), row(7)]
    images = {
        rows[0]["image_url"]: {"__key__": "a", "png": PNG},
        rows[1]["image_url"]: {"__key__": "b", "png": PNG[:30]},
        rows[3]["image_url"]: {"__key__": "c", "png": PNG},
    }
    audit = collect(rows, images, {rows[2]["image_url"]: "HTTP Error 404: Not Found"}, "not in the folder")
    assert audit == {
        "rows": 6,
        "rows_of_a_number": {"least": 0, "most": 1},  # none of eight to ten
        "present": 1,
        "missing": {
            "HTTP Error 404: Not Found": 1,
            "caption does not spell the number": 1,
            "image cannot be decoded": 1,
            "not in the folder": 2,
        },
        "missing_by_number": {"3": 1, "4": 1, "5": 1, "6": 1, "7": 1},
    }
    assert [(m["index"], m["number"]) for m in json.loads(MISSING.read_text())] == [(n, n + 2) for n in range(1, 6)]
    assert load_benchmark(BENCHMARK, 32, 77).numbers.tolist() == [2]


def test_no_image_at_all_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="none of the 1 images"):
        collect([row(2)], {}, {}, "not in the folder")


def test_a_folder_of_img2dataset_says_why_images_are_missing(tmp_path):
    write_shard(
        tmp_path / "00000.tar", [{"__key__": "0", "png": PNG, "json": json.dumps({"url": "http://a"}).encode()}]
    )
    table = {"url": ["http://a", "http://b"], "error_message": [None, "HTTP Error 403: Forbidden"]}
    pq.write_table(pa.table(table), tmp_path / "00000.parquet")
    images, why = read_folder(tmp_path)
    assert list(images) == ["http://a"]
    assert why == {"http://b": "HTTP Error 403: Forbidden"}


@pytest.mark.parametrize(
    ("content", "part"),
    [("[", "not JSON"), ('[{"text": "x"}]', "row 0"), ('[{"image_url": "u", "text": "x", "number": 11}]', "2..10")],
)
def test_rows_that_are_none_are_named(tmp_path, content, part):
    path = tmp_path / "CountBench.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"CountBench\.json") as error:
        read_rows(path)
    assert part in str(error.value)


def test_a_benchmark_whose_caption_has_no_number_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = {"__key__": "0", "png": PNG, "txt": b"cats", "json": json.dumps({"number": 3}).encode()}
    write_shard(BENCHMARK, [sample])
    with pytest.raises(UserError, match=r"countbench\.tar: the caption spells no three: 'cats'"):
        load_benchmark(BENCHMARK, 32, 77)


def test_all_published_rows_are_asked_about_their_number():
    """By the rows' own numbers: all 540 captions spell them, cut ones too, and 60 images of each were meant."""
    rows = read_rows(published_inputs() / "countbench" / "CountBench.json")
    assert Counter(r["number"] for r in rows) == dict.fromkeys(range(2, 11), 60)
    encode = open_clip.get_tokenizer("ViT-B-32").encode
    for r in rows:
        short = shorten(r["text"], r["number"])
        assert r["number"] in {number for _, _, number in number_words(short)}
        assert (short != r["text"]) == (len(encode(r["text"])) > 75)


@pytest.mark.slow
def test_the_published_benchmark_from_the_authors_archive(workspace, run_stage, monkeypatch):
    rows = read_rows(published_inputs() / "countbench" / "CountBench.json")
    workspace(source="published")
    mirror = Path("mirror")
    (mirror / "countbench").mkdir(parents=True)
    content = (published_inputs() / "countbench" / "CountBench.json").read_bytes()
    (mirror / "countbench" / "CountBench.json").write_bytes(content)
    authors = mirror / "countclip-set"
    authors.mkdir()
    with zipfile.ZipFile(authors / "data.zip", "w") as archive:
        for index in range(0, 540, 2):
            archive.writestr(f"data/VAL/VAL{index}.jpg", PNG)
    lines = [
        json.dumps({"pths": f"./data/VAL/VAL{i}.jpg", "caps": r["text"], "urls": r["image_url"], "counts": r["number"]})
        for i, r in enumerate(rows)
    ]
    (authors / "val.json").write_text("\n".join(lines))
    (authors / "merged.json").write_text("")
    result = run_stage("countclip.countbench", STUDIES_MIRROR=str(mirror.resolve()), STUDIES_CACHE="cache")
    assert result.returncode == 0, result.stderr
    audit = json.loads(Path("metrics/countclip/benchmark.json").read_text())
    there = {r["image_url"] for r in rows[::2]}  # an address stands in two rows
    present = sum(r["image_url"] in there for r in rows)
    assert (audit["rows"], audit["present"]) == (540, present)
    assert audit["rows_of_a_number"] == {"least": 60, "most": 60}
    assert audit["missing"] == {"not in the authors' set": 540 - present}


@pytest.mark.slow
def test_a_source_that_is_not_there_is_named(workspace, run_stage):
    workspace(source="published", **{"sources.published.countbench": "nowhere"})
    result = run_stage("countclip.countbench", STUDIES_MIRROR=str(published_inputs()))
    assert_one_line_error(result, "countbench = 'nowhere'", "img2dataset")


@pytest.mark.slow
def test_a_labelled_folder_is_named_by_its_folders(workspace, run_stage):
    images = published_inputs() / "coco" / "images"
    folder = workspace(source="published")
    write_shard(Path("shards/00000.tar"), [{"__key__": "0", "jpg": PNG, "json": _url(0)}])
    for name in ("black_cat", "dog"):
        (folder / "labelled" / name).mkdir(parents=True)
    for number, path in enumerate(sorted(images.glob("*.jpg"))[:4]):
        (folder / "labelled" / ("dog" if number else "black_cat") / path.name).write_bytes(path.read_bytes())
    changes = {"sources.published.countbench": "shards", "sources.published.zero_shot": "labelled"}
    edit_params(folder / "params.yaml", changes)
    result = run_stage("countclip.countbench", STUDIES_MIRROR=str(published_inputs()))
    assert result.returncode == 0, result.stderr
    named = Counter(json.loads(s["json"])["class"] for s in read_shard("data/countclip/countbench/zero_shot.tar"))
    assert named == {"dog": 3, "black cat": 1}


def _url(index: int) -> bytes:
    rows = read_rows(published_inputs() / "countbench" / "CountBench.json")
    return json.dumps({"url": rows[index]["image_url"]}).encode()
