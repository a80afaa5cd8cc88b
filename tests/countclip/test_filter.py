"""The filter: what is kept, what is dropped and why; the same bytes however it runs, and whatever is killed."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
from conftest import HANGS, assert_one_line_error, edit_params, published_inputs, stage_command, stage_environment
from PIL import Image

from pipeline.countclip import pairs
from pipeline.countclip.detector import Detections, load_checkpoint
from pipeline.countclip.pairs import Settings, filter_shard
from pipeline.countclip.samples import open_image
from pipeline.shards import Sample, read_shard, write_shard
from pipeline.stage import UserError

SETTINGS = Settings(detector="none", sha256=None, size=64, confidence=0.2, iou=0.5, batch=1, threads=1)


def picture(width: int = 40, height: int = 30, mode: str = "RGB", form: str = "JPEG", **options: object) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def sample(key: str, caption: str | bytes | None, image: bytes | None = None, extension: str = "jpg") -> Sample:
    parts: Sample = {"__key__": key, extension: picture() if image is None else image}
    if caption is not None:
        parts["txt"] = caption.encode() if isinstance(caption, str) else caption
    return parts


def animation() -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.fixture
def three_cats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds three cats and a dog in every picture wider than one pixel."""

    def detect(images: list[Image.Image]) -> list[Detections]:
        classes = ["cat", "dog", "cat", "cat"]
        empty = Detections([], np.zeros(0), np.zeros((0, 4)))
        found = Detections(classes, np.full(4, 0.9), np.tile([0.1, 0.1, 0.5, 0.5], (4, 1)))
        return [found if image.width > 1 else empty for image in images]

    monkeypatch.setattr(pairs, "detector", lambda settings: detect)


def reasons(folder: Path, shard: str = "00000") -> dict[str, str | None]:
    return dict(pl.read_parquet(folder / f"manifest/{shard}.parquet").select("key", "reason").iter_rows())


def keys(folder: Path, part: str, shard: str = "00000") -> list[str]:
    return [s["__key__"] for s in read_shard(folder / part / f"{shard}.tar")]


def test_what_is_kept_and_what_is_dropped(tmp_path, three_cats):
    differs = "detected count differs from the caption's"
    samples = {
        "right": (sample("right", "three cats"), None),
        "wrong": (sample("wrong", "two cats"), differs),
        "one dog": (sample("one dog", "two dogs, one of them asleep"), differs),
        "none": (sample("none", "cats"), "caption spells no number"),
        "often": (sample("often", "cats, often three-legged"), "caption spells no number"),
        "no caption": (sample("no caption", None), "caption is missing"),
        "latin-1": (sample("latin-1", "trois châts three".encode("latin-1")), "caption cannot be decoded"),
        "long": (sample("long", "word " * 2000 + "three"), None),
        "bad json": ({**sample("bad json", "three cats"), "json": b"{not JSON"}, None),
        "broken": (sample("broken", "three cats", b"\xff\xd8\xff\xe0 not a picture"), "image cannot be decoded"),
        "truncated": (sample("truncated", "three cats", picture()[:200]), "image cannot be decoded"),
        "empty": (sample("empty", "three cats", b""), "image cannot be decoded"),
        "no image": ({"__key__": "no image", "txt": b"three cats"}, "no image"),
        "1x1": (sample("1x1", "three cats", picture(1, 1)), "nothing detected"),
        "12000": (sample("12000", "three cats", picture(12_000, 20)), None),
        "cmyk": (sample("cmyk", "three cats", picture(mode="CMYK")), None),
        "palette": (sample("palette", "three cats", picture(mode="P", form="PNG"), "png"), None),
        "grey": (sample("grey", "three cats", picture(mode="L")), None),
        "animated": (sample("animated", "three cats", animation(), "webp"), None),
    }
    write_shard(tmp_path / "00000.tar", [parts for parts, _ in samples.values()])
    numbers = filter_shard(tmp_path / "00000.tar", tmp_path / "out", SETTINGS)
    assert reasons(tmp_path / "out") == {key: reason for key, (_, reason) in samples.items()}
    kept = [key for key, (_, reason) in samples.items() if reason is None]
    assert keys(tmp_path / "out", "counting") == kept
    assert keys(tmp_path / "out", "other") == [key for key in samples if key not in kept]
    assert (numbers["rows"], numbers["kept"]) == (len(samples), len(kept))
    assert sum(numbers["dropped"].values()) == len(samples) - len(kept)
    assert numbers["by_count"] == {"3": len(kept)}


def test_a_kept_pair_says_what_was_found(tmp_path, three_cats):
    record = {"url": "http://example.org/1.jpg", "caption": "Three cats"}
    parts = {**sample("a", "Three cats"), "json": json.dumps(record).encode()}
    write_shard(tmp_path / "00000.tar", [parts])
    filter_shard(tmp_path / "00000.tar", tmp_path / "out", SETTINGS)
    (kept,) = read_shard(tmp_path / "out/counting/00000.tar")
    found = json.loads(kept["json"])
    assert (found["url"], found["caption"], found["count"]) == ("http://example.org/1.jpg", "Three cats", 3)
    assert (found["detected_class"], found["detected_count"], len(found["boxes"])) == ("cat", 3, 4)
    assert kept["jpg"] == parts["jpg"]


def test_a_finished_shard_is_not_done_again(tmp_path, three_cats):
    write_shard(tmp_path / "00000.tar", [sample("a", "three cats")])
    first = filter_shard(tmp_path / "00000.tar", tmp_path / "out", SETTINGS)
    before = (tmp_path / "out/counting/00000.tar").stat().st_mtime_ns
    assert filter_shard(tmp_path / "00000.tar", tmp_path / "out", SETTINGS) == first
    assert (tmp_path / "out/counting/00000.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize("cut", [0, 700])
def test_a_truncated_or_empty_shard_is_named(tmp_path, three_cats, cut):
    write_shard(tmp_path / "00000.tar", [sample("a", "three cats")])
    content = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(content[:cut])
    with pytest.raises(UserError, match=r"00000.tar: not a whole shard"):
        filter_shard(tmp_path / "00000.tar", tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out/statistics").exists()


def test_large_jpegs_are_decoded_small_enough_and_turned_upright():
    image = Image.new("RGB", (4000, 3000))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    opened = open_image({"__key__": "a", "jpg": buffer.getvalue()}, 640)
    assert opened.height > opened.width >= 640
    assert opened.width < 3000


def test_the_most_frequent_class_is_counted():
    found = Detections(["dog", "cat", "dog"], np.ones(3), np.zeros((3, 4)))
    assert found.most_frequent == ("dog", 2)
    assert Detections(["dog", "cat"], np.ones(2), np.zeros((2, 4))).most_frequent == ("cat", 1)
    assert Detections([], np.ones(0), np.zeros((0, 4))).most_frequent is None


def test_a_checkpoint_with_another_hash_is_not_opened(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")  # a pickle that would run a command
    with pytest.raises(UserError, match=r"model.pt: sha256 [0-9a-f]{64}, should be 0{64}"):
        load_checkpoint(path, "0" * 64)
    assert not Path("opened").exists()


def digests(folder: Path = Path("data/countclip/filtered")) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def filtered(filtered_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The current folder is a copy of it, without the filtered pool, whose digests these are."""
    shutil.copytree(filtered_once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    undisturbed = digests()
    shutil.rmtree("data/countclip/filtered")
    return undisturbed


def finished_shards() -> list[Path]:
    return list(Path(".checkpoints").glob("countclip.filter.*/statistics/*.json"))


@pytest.mark.slow
def test_every_pair_is_somewhere(filtered_once):
    metrics = json.loads((filtered_once / "metrics/countclip/filter.json").read_text())
    assert metrics["rows"] == 60
    assert metrics["kept"] + sum(metrics["dropped"].values()) == 60
    assert metrics["recall"] == metrics["precision"] == 1  # at smoke, the truth decides
    assert len(digests(filtered_once / "data/countclip/filtered")) == 5 * 4


@pytest.mark.slow
def test_killed_and_run_again_it_gives_the_same_bytes(filtered):
    process = subprocess.Popen(stage_command("countclip.filter"), env=stage_environment())
    while len(done := finished_shards()) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in done}
    again = subprocess.Popen(stage_command("countclip.filter"), env=stage_environment())
    while again.poll() is None:
        for path, changed in finished.items():
            assert not path.exists() or path.stat().st_mtime_ns == changed  # finished shards are not done again
        time.sleep(0.05)
    assert again.returncode == 0
    assert digests() == filtered
    assert not list(Path(".checkpoints").glob("countclip.filter.*"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Ray cluster on this machine, without cores; its workers start in a folder that has none of the files."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (requirements-ray.txt)")
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.chdir(tmp_path_factory.mktemp("elsewhere"))
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_ray_gives_the_same_bytes_though_a_worker_is_killed(filtered, cluster):
    """Of its own accord it joins no cluster: on this one, tasks would wait for ever."""
    edit_params(Path("params.yaml"), {"countclip.filter.engine": "ray"})
    with subprocess.Popen(stage_command("countclip.filter"), env=stage_environment()) as stage:
        try:
            kill_a_worker(while_runs=stage)
            assert stage.wait(HANGS) == 0
        finally:
            stage.kill()
    assert digests() == filtered


def kill_a_worker(while_runs: subprocess.Popen) -> None:
    while while_runs.poll() is None:
        for worker in psutil.process_iter(["cmdline"]):
            if any("ray::filter_shard" in word for word in worker.info["cmdline"] or ()):
                worker.kill()
                return
        time.sleep(0.01)
    raise AssertionError("no worker was seen to kill")


@pytest.mark.slow
def test_a_cluster_on_this_machine_is_joined_where_it_is_named(filtered, cluster):
    edit_params(Path("params.yaml"), {"countclip.filter.engine": "ray"})
    node = cluster.add_node(num_cpus=1)
    try:
        environment = stage_environment(RAY_ADDRESS=cluster.address)
        stage = subprocess.run(stage_command("countclip.filter"), env=environment, timeout=HANGS)
    finally:
        cluster.remove_node(node)
    assert stage.returncode == 0
    assert digests() == filtered


def test_ray_that_is_not_installed_is_named(workspace, run_stage, tmp_path):
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed")
    workspace(**{"countclip.filter.engine": "ray"})
    write_shard("data/countclip/pool/00000.tar", [sample("a", "three cats")])
    Path("models/countclip").mkdir(parents=True)
    Path("models/countclip/detector.safetensors").write_bytes(b"")
    result = run_stage("countclip.filter")
    assert_one_line_error(result, "countclip.filter.engine is 'ray'", "requirements-ray.txt")


def test_pairs_whose_truth_is_not_known_are_named(workspace, run_stage):
    workspace()
    write_shard("data/countclip/pool/00000.tar", [sample("a", "three cats")])
    Path("models/countclip").mkdir(parents=True)
    Path("models/countclip/detector.safetensors").write_bytes(b"never opened")
    assert_one_line_error(run_stage("countclip.filter"), "filter_by = 'truth'", "a is no generated scene", "'detector'")


@pytest.mark.slow
def test_a_detector_that_is_none_is_named(workspace, run_stage):
    workspace(**{"scales.smoke.countclip.filter_by": "detector"})
    write_shard("data/countclip/pool/00000.tar", [sample("a", "three cats")])
    Path("models/countclip").mkdir(parents=True)
    Path("models/countclip/detector.safetensors").write_bytes(b"not safetensors")
    result = run_stage("countclip.filter")
    assert_one_line_error(result, "models/countclip/detector.safetensors: not a detector of ours", "dvc repro")


@pytest.mark.slow
def test_a_result_does_not_depend_on_its_neighbours():
    """On photographs, with a real YOLOv8n: one by one, in batches, and in batches of other neighbours."""
    from pipeline.countclip.detector import Detector

    mirror = published_inputs()
    path = mirror / "weights/yolov8n.pt"
    yolo = load_checkpoint(path, hashlib.sha256(path.read_bytes()).hexdigest())
    images = [Image.open(p).convert("RGB") for p in sorted((mirror / "coco/images").glob("*.jpg"))[:6]]
    options = {"size": 320, "confidence": 0.25, "iou": 0.7}
    alone = Detector(yolo, batch=1, **options)(images)
    together = Detector(yolo, batch=4, **options)(images)
    reversed_order = Detector(yolo, batch=4, **options)(images[::-1])[::-1]
    for one, other, another in zip(alone, together, reversed_order, strict=True):
        assert one.classes == other.classes == another.classes
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.allclose(one.boxes, another.boxes, atol=1e-3)
