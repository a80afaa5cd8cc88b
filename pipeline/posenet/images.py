"""The images that position is read out from: to train on, held out, and the document's four (section 2.3).

    python -m pipeline.posenet.images

`generated`: dead leaves, whose statistics are the same at every pixel (pipeline/posenet/scenes.py).
Otherwise DUTS-TE, as published, or any folder of images:

    dvc exp run -S source=published -S sources.published.posenet.images=photographs/

Every image is resized to one size, its sides' ratio not kept (section 2.4). Four files, uint8 [N, 3, S, S]:
train.npy, held_out.npy, smooth.npy with the held-out ones without their texture, and test.npy with the natural one
(published: a bear), black, white and noise. All are upright, rows from top to bottom. The reproduction's code exchanges
rows and columns of the images that it tests, and not of those that it trains on; `posenet.transpose_test` does so too.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.params import load_params
from pipeline.posenet.paths import IMAGES, METRICS
from pipeline.posenet.scenes import draw_leaves
from pipeline.shards import item_rng, process_pool
from pipeline.stage import UserError, replacing, run, write_json

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
Image.MAX_IMAGE_PIXELS = 200_000_000  # above twice as many, Pillow takes an image for a decompression bomb
PASSES, GREYS = 3, 40  # of the filter that takes texture away; grey levels within which it evens out

Read = Callable[[str], bytes | None]


def as_pixels(image: Image.Image, size: int) -> np.ndarray:
    """uint8 [3, size, size], RGB. What is transparent is white, as on a page; grey has three equal channels."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off above 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def open_pixels(content: bytes | None, size: int, least: int) -> tuple[np.ndarray | None, str]:
    """Pixels of an image file and its mode; None and what is wrong, of one that cannot be used."""
    if content is None:
        return None, "cannot be read"
    try:
        image = Image.open(io.BytesIO(content))
        if min(image.size) < least:
            return None, f"smaller than the largest kernel, {least} x {least}"
        return as_pixels(image, size), image.mode
    except Image.DecompressionBombError:
        return None, "too large"
    # ultralytics, where something imported it, makes Pillow look for a HEIF plug-in: an ImportError
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, ImportError):
        return None, "cannot be decoded"


def list_images(place: Path) -> tuple[list[str], Read]:
    """Names of the images in a folder, or in a .zip archive, and what reads one. Raises UserError for none."""
    if place.suffix == ".zip" and place.is_file():
        try:
            archive = zipfile.ZipFile(place)
        except zipfile.BadZipFile as error:
            raise UserError(f"{place}: not a whole archive ({error}); delete it and fetch it again") from None
        members, read = archive.namelist(), partial(_read_member, archive)
    else:
        members = [str(path.relative_to(place)) for path in place.rglob("*")] if place.is_dir() else []
        read = partial(_read_file, place)
    names = sorted(name for name in members if Path(name).suffix.lower() in EXTENSIONS and "-Mask/" not in name)
    if not names:
        raise UserError(
            f"params.yaml: posenet.images = '{place}': no images; should be 'generated', a name in sources.yaml, or a "
            f"folder or .zip archive with {', '.join(sorted(EXTENSIONS))}"
        )
    return names, read


def _read_file(folder: Path, name: str) -> bytes | None:
    try:
        return (folder / name).read_bytes()
    except OSError:
        return None


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    try:
        return archive.read(name)
    except (OSError, RuntimeError, zipfile.BadZipFile):  # damaged, or encrypted
        return None


def shuffled(names: list[str], seed: int) -> list[str]:
    """The names in an order that depends on the seed."""
    return [names[place] for place in item_rng(seed, "posenet/images").permutation(len(names))]


def decode(names: list[str], read: Read, size: int, least: int, wanted: int) -> tuple[np.ndarray, Counter]:
    """Pixels [N, 3, S, S] of the first `wanted` that can be used, and all outcomes, by mode or reason."""
    pixels, outcomes = [], Counter()
    with process_pool(chunk=16) as parallel_map:
        for start in range(0, len(names), 512):
            these = names[start : start + 512]
            opened = parallel_map(partial(open_pixels, size=size, least=least), map(read, these))
            for image, outcome in opened:
                if len(pixels) == wanted:
                    return np.stack(pixels), outcomes
                outcomes[outcome if image is None else f"mode {outcome}"] += 1
                if image is not None:
                    pixels.append(image)
    return np.stack(pixels) if pixels else np.zeros((0, 3, size, size), np.uint8), outcomes


def drawn(number: int, *, seed: int, size: int) -> np.ndarray:
    """Generated image `number`, uint8 [3, size, size]."""
    return draw_leaves(item_rng(seed, f"posenet/leaves/{number}"), size).transpose(2, 0, 1)


def four_tests(natural: np.ndarray, noise: np.ndarray | None, seed: int) -> np.ndarray:
    """The document's four, uint8 [4, 3, S, S], in the order of TESTS; noise: its own where given, else Gaussian."""
    if noise is None:
        values = item_rng(seed, "posenet/noise").normal(127.5, 50, natural.shape)
        noise = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.stack([natural, np.zeros_like(natural), np.full_like(natural, 255), noise])


def without_texture(pixels: np.ndarray) -> np.ndarray:
    """Images uint8 [N, 3, S, S] in which near pixels of similar grey are evened out, and edges stay.

    By a bilateral filter (Tomasi and Manduchi, 1998), several times over.
    """
    side = pixels.shape[-1]
    smooth = []
    for image in pixels:
        drawn = np.ascontiguousarray(image.transpose(1, 2, 0))
        for _ in range(PASSES):
            drawn = cv2.bilateralFilter(drawn, d=-1, sigmaColor=GREYS, sigmaSpace=side / 32)
        smooth.append(drawn.transpose(2, 0, 1))
    return np.stack(smooth)


def save(name: str, pixels: np.ndarray) -> None:
    with replacing(IMAGES / f"{name}.npy") as partial_path, partial_path.open("wb") as file:
        np.save(file, np.ascontiguousarray(pixels))


def main() -> str:
    params = load_params()
    scale, chosen = params.at_scale.posenet, params.inputs.posenet.images
    size, wanted = scale.image_size, scale.images + scale.held_out
    noise = None
    if chosen == "generated":
        with process_pool(chunk=16) as parallel_map:
            pixels = np.stack(list(parallel_map(partial(drawn, seed=params.seed, size=size), range(wanted + 1))))
        pixels, natural = pixels[:wanted], pixels[wanted]
        outcomes: dict = {"drawn": wanted}
    else:
        from pipeline.inputs import sources

        known = sources.read_registry()
        place = Path(chosen)
        if chosen in known:
            place = sources.fetch(chosen) / sources.only_file(chosen)
        names, read = list_images(place)
        pixels, outcomes = decode(shuffled(names, params.seed), read, size, max(params.posenet.kernel_sizes), wanted)
        folder = sources.fetch("posenet_tests")
        natural, noise = (as_pixels(Image.open(folder / name), size) for name in ("image.png", "noise.png"))
    if len(pixels) <= scale.held_out:
        raise UserError(
            f"params.yaml: posenet.images = '{chosen}': {len(pixels)} usable images ({dict(outcomes)}), "
            f"held_out = {scale.held_out}; more are needed than are held out"
        )
    save("held_out", pixels[: scale.held_out])
    save("smooth", without_texture(pixels[: scale.held_out]))
    save("train", pixels[scale.held_out :])
    tests = four_tests(natural, noise, params.seed)
    save("test", tests.swapaxes(2, 3) if params.posenet.transpose_test else tests)
    numbers = {"train": len(pixels) - scale.held_out, "held_out": scale.held_out}
    write_json(METRICS / "images.json", {**numbers, "outcomes": dict(sorted(outcomes.items()))})
    return f"{numbers['train']:,} images to train on, {scale.held_out:,} held out"


if __name__ == "__main__":
    run(main)
