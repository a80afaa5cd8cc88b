"""Images to read position from: of every mode, too small, broken, none; generated ones without a place."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_line_error, published_inputs
from PIL import Image

from pipeline.posenet.images import as_pixels, four_tests, list_images, open_pixels, without_texture
from pipeline.posenet.paths import TESTS
from pipeline.posenet.scenes import draw_leaves
from pipeline.stage import UserError


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def gradient(mode: str) -> Image.Image:
    return Image.fromarray(np.tile(np.arange(0, 200, 2, dtype=np.uint8), (60, 1))).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16"])
def test_images_of_every_mode_are_read(mode):
    deep = Image.fromarray(np.asarray(gradient("L")).astype(np.uint16) * 257)
    image = deep if mode == "I;16" else gradient(mode)
    content = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    pixels, outcome = open_pixels(content, 32, 7)
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.uint8
    assert mode.split(";")[0] in outcome
    if mode in ("L", "I;16"):
        assert (pixels == pixels[:1]).all()
        assert abs(int(pixels[0, 16, 31]) - 196) <= 3  # as bright as it was
        assert (np.diff(pixels[0].astype(int), axis=1) > 0).all()  # dark on the left, as it was


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 10, 20))
    pixels = as_pixels(image, 20)
    assert pixels[:, 10, 2].tolist() == [0, 0, 255]
    assert pixels[:, 10, 17].tolist() == [255, 255, 255]


def test_rows_stay_rows():
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 40, 10))  # the upper half
    pixels = as_pixels(image, 16)
    assert (pixels[:, :7] == 255).all()
    assert (pixels[:, 9:] == 0).all()


def test_what_cannot_be_used_is_named():
    assert open_pixels(encoded(Image.new("RGB", (6, 40))), 32, 7) == (None, "smaller than the largest kernel, 7 x 7")
    assert open_pixels(b"no image", 32, 7) == (None, "cannot be decoded")
    whole = encoded(gradient("RGB"))
    assert open_pixels(whole[: len(whole) // 2], 32, 7) == (None, "cannot be decoded")


def test_without_texture_edges_stay():
    """A step of 150 grey levels under grain of 12: the grain goes, the step does not."""
    clean = np.where(np.arange(64) < 32, 50, 200)
    grain = np.random.default_rng(0).normal(0, 12, (1, 1, 64, 64))
    image = np.clip(clean + np.repeat(grain, 3, axis=1), 0, 255).astype(np.uint8)
    smooth = without_texture(image)
    assert (smooth.shape, smooth.dtype) == (image.shape, np.uint8)
    away = np.r_[4:28, 36:60]
    assert (smooth - clean)[..., away].std() < (image - clean)[..., away].std() / 3
    assert np.abs(smooth[..., 30].mean() - 50) < 5
    assert np.abs(smooth[..., 33].mean() - 200) < 5


def test_an_image_of_one_grey_has_no_texture():
    image = np.full((1, 3, 32, 32), 90, np.uint8)
    np.testing.assert_array_equal(without_texture(image), image)


def test_generated_images_have_no_place():
    """No trend along rows or columns, the border's contrast is the whole's, and the seams are like the inside."""
    images = np.stack([draw_leaves(np.random.default_rng(n), 32) for n in range(150)]).astype(float).mean(axis=3)
    spread = images.mean(axis=(1, 2)).std() / 150**0.5
    for axis in (1, 2):
        profile = images.mean(axis=(0, axis))
        centred = profile - profile.mean()
        position = np.linspace(-1, 1, 32)
        assert abs(np.polyfit(position, centred, 1)[0]) < 6 * spread
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert border.std() == pytest.approx(images.std(), rel=0.05)
    # neighbours across the edge are as alike as neighbours within
    for axis in (1, 2):
        first, last = images.take(0, axis), images.take(-1, axis)
        within = np.abs(np.diff(images, axis=axis)).mean()
        assert np.abs(first - last).mean() == pytest.approx(within, rel=0.1)


def test_the_four_tests():
    natural = np.full((3, 64, 64), 7, np.uint8)
    drawn = four_tests(natural, None, seed=0)
    assert len(drawn) == len(TESTS)
    assert (drawn[0] == 7).all()
    assert (drawn[1] == 0).all()
    assert (drawn[2] == 255).all()
    assert drawn[3].mean() == pytest.approx(127.5, abs=2)
    assert drawn[3].std() == pytest.approx(50, abs=2)
    assert np.array_equal(drawn, four_tests(natural, None, seed=0))


def folder_of_images(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for n in range(6):
        gradient("RGB").rotate(90 * n, expand=True).save(folder / f"{n}.png")
    gradient("L").save(folder / "deep/grey.jpg")
    gradient("RGBA").save(folder / "deep/clear.png")
    Image.new("RGB", (5, 5)).save(folder / "tiny.png")
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not meant to be one")
    return folder


@pytest.mark.parametrize("transpose", [False, True])
def test_a_folder_of_images_is_taken_and_accounted_for(workspace, run_stage, transpose, monkeypatch):
    mirror = str(published_inputs())
    folder = workspace(
        **{
            "source": "published",
            "sources.published.posenet.images": "pictures",
            "scales.smoke.posenet.images": 100,
            "posenet.transpose_test": transpose,
        }
    )
    folder_of_images(folder / "pictures")
    result = run_stage("posenet.images", STUDIES_MIRROR=mirror)
    assert result.returncode == 0, result.stderr
    numbers = json.loads(Path("metrics/posenet/images.json").read_text())
    assert (numbers["train"], numbers["held_out"]) == (5, 3)
    assert numbers["outcomes"] == {
        "cannot be decoded": 1,
        "mode L": 1,
        "mode RGB": 6,
        "mode RGBA": 1,
        "smaller than the largest kernel, 7 x 7": 1,
    }
    tests = np.load("data/posenet/images/test.npy")
    bear = as_pixels(Image.open(Path(mirror) / "posenet/images/image.png"), 64)
    assert np.array_equal(tests[0], bear.swapaxes(1, 2) if transpose else bear)


def test_an_archive_is_read_in_place(tmp_path):
    folder = folder_of_images(tmp_path / "pictures")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, f"DUTS-TE/DUTS-TE-Image/{path.name}")
        archive.write(folder / "0.png", "DUTS-TE/DUTS-TE-Mask/0.png")
    names, read = list_images(tmp_path / "pictures.zip")
    assert len(names) == 10  # masks are no images
    assert read("DUTS-TE/DUTS-TE-Image/0.png") == (folder / "0.png").read_bytes()
    (tmp_path / "cut.zip").write_bytes((tmp_path / "pictures.zip").read_bytes()[:300])
    with pytest.raises(UserError, match="not a whole archive"):
        list_images(tmp_path / "cut.zip")


def test_a_member_that_cannot_be_read_is_counted(tmp_path):
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w") as archive:
        archive.writestr("0.png", encoded(gradient("RGB")))
    content = bytearray((tmp_path / "damaged.zip").read_bytes())
    content[60] ^= 255  # its checksum no longer fits
    (tmp_path / "damaged.zip").write_bytes(content)
    names, read = list_images(tmp_path / "damaged.zip")
    assert open_pixels(read(names[0]), 32, 7) == (None, "cannot be read")


def test_a_folder_without_images_is_named(workspace, run_stage):
    folder = workspace(**{"source": "published", "sources.published.posenet.images": "empty"})
    (folder / "empty").mkdir()
    assert_one_line_error(run_stage("posenet.images"), "posenet.images = 'empty': no images", ".png")
    assert not Path("data").exists()


def test_too_few_images_are_named(workspace, run_stage):
    mirror = str(published_inputs())
    folder = workspace(**{"source": "published", "sources.published.posenet.images": "few"})
    (folder / "few").mkdir()
    gradient("RGB").save(folder / "few/0.png")
    result = run_stage("posenet.images", STUDIES_MIRROR=mirror)
    assert_one_line_error(result, "1 usable images", "held_out = 3")
