"""Names and places of what the study's stages hand to one another (dvc.yaml declares the same places)."""

from __future__ import annotations

from pathlib import Path

DATA = Path("data/shapes")
METRICS = Path("metrics/shapes")
PLOTS = Path("plots/shapes")


def split_name(density: int, split: str) -> str:
    """Name of the train or test images of one density, e.g. 'test/density-50'."""
    return f"{split}/density-{density}"


def margin_name(density: int, margin: int) -> str:
    """Name of one margin set, e.g. 'margins/density-50/margin+4'."""
    return f"margins/density-{density}/margin{margin:+d}"


def observer(density: int) -> str:
    """Name of the network trained at this density: the paper's M_50 is 'M50'."""
    return f"M{density}"


def shard_path(name: str) -> Path:
    """The shard of the images of this name."""
    return DATA / f"{name}.tar"


def weights_path(density: int) -> Path:
    return Path(f"models/shapes/resnet18-{density}.safetensors")


def curve_path(density: int) -> Path:
    return PLOTS / f"training/{density}.csv"


def training_metrics_path(density: int) -> Path:
    return METRICS / f"training/{density}.json"


def predictions_path(density: int) -> Path:
    return DATA / f"predictions/{density}.parquet"
