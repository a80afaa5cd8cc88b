"""What a sample of a shard holds: an image, its caption, and what is known of it."""

from __future__ import annotations

import io
import json

from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.shards import Sample

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
Image.MAX_IMAGE_PIXELS = 200_000_000  # above, Pillow takes an image for a decompression bomb


def record_of(sample: Sample) -> dict:
    """What a sample's .json says; nothing where there is none or it is not an object."""
    try:
        record = json.loads(sample.get("json", b"{}"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) else {}


def caption_of(sample: Sample) -> str | None:
    """The caption of a sample, from .txt or .json; None where there is none. Raises UnicodeDecodeError."""
    return sample["txt"].decode() if "txt" in sample else record_of(sample).get("caption")


def open_image(sample: Sample, size: int) -> Image.Image:
    """The image in RGB (an animation's first frame), large JPEGs decoded at a lower resolution.

    Raises ValueError naming what is wrong with it.
    """
    content = next((sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample), None)
    if content is None:
        raise ValueError("no image")
    try:
        image = Image.open(io.BytesIO(content))
        image.draft("RGB", (size, size))
        return ImageOps.exif_transpose(image).convert("RGB")
    except Image.DecompressionBombError:
        raise ValueError("image too large") from None
    # ultralytics makes Pillow look for a HEIF plug-in where it knows no better: an ImportError
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, ImportError):
        raise ValueError("image cannot be decoded") from None
