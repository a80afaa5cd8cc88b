"""Generated scenes and captions are what they claim."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, assert_one_line_error

from pipeline.countclip.captions import caption_count
from pipeline.countclip.pool import draw_sample
from pipeline.countclip.scenes import COLOURS, KINDS, caption, draw_scene
from pipeline.params import load_params
from pipeline.shards import item_rng, read_shard, write_shard


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(item_rng(0, str(i)), 1 + i % 10, 128) for i in range(200)]


def test_a_scene_is_about_the_kind_with_most_things(scenes):
    for i, scene in enumerate(scenes):
        kinds = [thing.kind for thing in scene.things]
        assert scene.count == 1 + i % 10 == kinds.count(scene.kind)
        assert all(kinds.count(kind) < scene.count for kind in KINDS if kind != scene.kind)
        assert all(thing.colour == scene.colour for thing in scene.things if thing.kind == scene.kind)
        assert scene.pixels.shape == (128, 128, 3)


def test_boxes_hold_their_things(scenes):
    """Where a thing is, pixels are nearer to its colour than around it; and boxes lie within the image."""
    inside = []
    for scene in scenes:
        for thing in scene.things:
            x0, y0, x1, y1 = (round(v * 128) for v in thing.box)
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 128
            off = np.linalg.norm(scene.pixels[y0:y1, x0:x1].astype(float) - COLOURS[thing.colour], axis=2) < 80
            inside.append(off.mean())
            rows, columns = np.flatnonzero(off.any(axis=1)), np.flatnonzero(off.any(axis=0))
            assert np.ptp(rows) >= 0.75 * (y1 - y0 - 1)
            assert np.ptp(columns) >= 0.75 * (x1 - x0 - 1)
    assert 0.3 < np.mean(inside) < 0.9  # a ring has its ground within


def test_things_do_not_cover_one_another(scenes):
    for scene in scenes:
        centres = np.array([[(t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2] for t in scene.things]) * 128
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        assert (apart[np.triu_indices(len(centres), 1)] > 12).all()


def test_captions_spell_what_they_should(scenes):
    rng = np.random.default_rng(0)
    for scene in scenes:
        for _ in range(3):
            right, wrong = (caption_count(caption(rng, scene, kind)) for kind in ("right", "wrong"))
            assert caption_count(caption(rng, scene, "none")) is None
            if scene.count == 1:
                assert right is wrong is None
            else:
                assert right == scene.count
                assert wrong not in (scene.count, None)
            idle = caption(rng, scene, "idle")
            assert caption_count(idle) in (2, 3, 4, 5, 10)
            assert scene.kind in idle


def test_the_pool_has_the_stated_shares():
    pool = load_params(REPOSITORY / "params.yaml").countclip.pool
    samples = [draw_sample(i, seed=0, pool=pool, resolution=64) for i in range(3000)]
    records = [json.loads(sample["json"]) for sample in samples]
    counts = np.array([record["truth"]["count"] for record in records])
    total = sum(pool.counts.values())
    for count, weight in pool.counts.items():
        share = weight / total
        assert (counts == count).mean() == pytest.approx(share, abs=4 * np.sqrt(share / 3000))
    several = [r for r in records if r["truth"]["count"] > 1]
    spelled = np.array([caption_count(r["caption"]) for r in several], dtype=float)
    truth = np.array([r["truth"]["count"] for r in several])
    assert np.isnan(spelled).mean() == pytest.approx(pool.captions["none"], abs=0.03)
    # an idle number may happen to be the right one
    assert (spelled == truth).mean() == pytest.approx(pool.captions["right"] + 0.02, abs=0.04)


def test_the_same_seed_gives_the_same_bytes():
    pool = load_params(REPOSITORY / "params.yaml").countclip.pool
    a, b, other = (draw_sample(7, seed=seed, pool=pool, resolution=64) for seed in (0, 0, 1))
    assert a == b != other


def test_shards_of_ones_own_are_taken_as_they_are(workspace, run_stage):
    folder = workspace(source="published", **{"sources.published.pool": "mine"})
    write_shard("mine/00000.tar", [{"__key__": "a", "jpg": b"1", "txt": b"two cats"}])
    for shard, status in {
        "00000": {"success": 3, "HTTP Error 404": 2},
        "00001": {"success": 1, "timed out": 4},
    }.items():
        Path(f"mine/{shard}_stats.json").write_text(json.dumps({"count": 5, "status_dict": status}))
    assert run_stage("countclip.pool").returncode == 0
    assert json.loads(Path("metrics/countclip/pool.json").read_text()) == {
        "shards": 1,
        "downloads": {"success": 4, "timed out": 4, "HTTP Error 404": 2},
    }
    assert (folder / "data/countclip/pool/00000.tar").read_bytes() == (folder / "mine/00000.tar").read_bytes()


@pytest.fixture
def authors_set(workspace, monkeypatch) -> Path:
    """A mirror with a set in the authors' form: two images that count, one that does not, one that is missing."""
    folder = workspace(source="published")
    monkeypatch.setenv("STUDIES_MIRROR", str(folder / "mirror"))
    mirror = folder / "mirror/countclip-set"
    mirror.mkdir(parents=True)
    rows = [("images/0.jpg", "two cats", 2), ("images/1.jpg", "a cat", -1), ("c:\\x\\2.png", "Ten men", 10)]
    rows.append(("3.jpg", "x", -1))
    with zipfile.ZipFile(mirror / "data.zip", "w") as archive:
        for name in ("data/images/0.jpg", "data/images/1.jpg", "data/2.png"):
            archive.writestr(name, name)
    lines = [json.dumps({"pths": p, "caps": c, "urls": f"http://{i}", "counts": n}) for i, (p, c, n) in enumerate(rows)]
    (mirror / "merged.json").write_text("\n".join(lines) + "\n")
    return mirror


def test_the_authors_set_becomes_shards(authors_set, run_stage):
    result = run_stage("countclip.pool")
    assert result.returncode == 0, result.stderr
    samples = list(read_shard("data/countclip/pool/00000.tar"))
    assert [sample["txt"] for sample in samples] == [b"two cats", b"a cat", b"Ten men"]
    assert [sample.get("jpg", sample.get("png")) for sample in samples] == [
        b"data/images/0.jpg",
        b"data/images/1.jpg",
        b"data/2.png",
    ]
    assert [json.loads(sample["json"])["authors_count"] for sample in samples] == [2, None, 10]
    metrics = json.loads(Path("metrics/countclip/pool.json").read_text())
    assert metrics == {"shards": 1, "images": {"not in the archive": 1, "taken": 3}}


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("merged.json", '{"pths": "0.jpg", "caps": "x"}', ["merged.json, line 1", "pths, caps, urls, counts"]),
        ("merged.json", "not JSON", ["merged.json, line 1"]),
        ("data.zip", "not a zip", ["data.zip: not a whole zip archive"]),
    ],
)
def test_a_damaged_authors_set_is_named(authors_set, run_stage, file, content, parts):
    (authors_set / file).write_text(content)
    assert_one_line_error(run_stage("countclip.pool"), *parts)


def test_a_pool_without_shards_is_named(workspace, run_stage):
    workspace(source="published", **{"sources.published.pool": "mine"})
    result = run_stage("countclip.pool")
    assert_one_line_error(result, "sources.published.pool = 'mine'", "holds no .tar shards", "img2dataset")
