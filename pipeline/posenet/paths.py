"""Places of what the study's stages hand to one another (dvc.yaml declares the same places)."""

from __future__ import annotations

from pathlib import Path

DATA = Path("data/posenet")
IMAGES = DATA / "images"
FEATURES = DATA / "features"
TESTS = ("natural", "black", "white", "noise")  # the document's images, in test.npy's order
HELD_OUT = "held-out"
SMOOTH = "smooth"  # the held-out images without their texture
ALL = "all"  # layers together
ADAM, OPTIMUM = READINGS = ("adam", "optimum")  # position as training reads it, and by least squares
FIRST = "first weights"  # before any training
SGD, SGD_ORIGINAL = DESCENTS = ("sgd", "sgd-original")  # at Adam's learning rate, and at the original authors'
COUNTER = "counter"  # the backbone that is the shapes study's network
SCORES = DATA / "scores.parquet"  # of every prediction
MAPS = DATA / "maps.safetensors"  # predictions for the figures
MODELS = Path("models/posenet")
METRICS = Path("metrics/posenet")
PLOTS = Path("plots/posenet")


def features_path(backbone: str, variant: str) -> Path:
    """Features of all images by one variant of a backbone, such as 'trained-zeros'."""
    return FEATURES / backbone / f"{variant}.npy"


def layers_path(backbone: str) -> Path:
    """What the channels of a backbone's features are: {layer: number}, in their order."""
    return FEATURES / backbone / "layers.json"


def weights_path(backbone: str, variant: str, reading: str) -> Path:
    """The position networks of one variant and reading, all cells of the grid."""
    return MODELS / reading / backbone / f"{variant}.safetensors"
