"""Places of what the study's stages hand to one another (dvc.yaml declares the same places)."""

from pathlib import Path

SHAPES = Path("data/shapes")  # images, and decisions of the networks that were asked for the majority
DATA = Path("data/localize")
METRICS = Path("metrics/localize")
PLOTS = Path("plots/localize")

HEAT_MAPS = DATA / "heat_maps.safetensors"  # for the figures

CLIP_CONFIG = Path("pipeline/countclip/small-clip.json")
CLIP_WEIGHTS = Path("models/countclip/pretrained.safetensors")
CLIP_POOL = Path("data/countclip/pool/00000.tar")
CLIP_HEAT_MAPS = DATA / "clip_heat_maps.safetensors"

CLASSIFY = "classify"  # the shapes study's own network of that density, among the counters
TRUE_MASK = "true mask"  # what counting components would give if every pixel were named rightly


def weights_path(counter: str) -> Path:
    return Path(f"models/localize/{counter}.safetensors")


def curve_path(counter: str) -> Path:
    return PLOTS / f"training/{counter}.csv"


def training_metrics(counter: str) -> Path:
    return METRICS / f"training/{counter}.json"


def counted_path(counter: str) -> Path:
    """What a counter answered, one row an image."""
    return DATA / f"counted/{counter}/answers.parquet"


def boxes_path(counter: str) -> Path:
    """Every box that a detector found in the test sets."""
    return DATA / f"counted/{counter}/boxes.parquet"


def masks_path(counter: str) -> Path:
    """What a segmenter named the pixels of the first images of each test set, for the figures."""
    return DATA / f"counted/{counter}/masks.safetensors"


def predictions_path(observer: str) -> Path:
    """The answers of all that are compared, for the study of error consistency too."""
    return DATA / f"predictions/{observer}.parquet"


def network_of(density: int) -> str:
    """The shapes study's network of a density, in its first training run."""
    return f"M{density}"


def network_weights(density: int) -> Path:
    return Path(f"models/shapes/paper/{network_of(density)}-run0.safetensors")


def network_decisions(density: int) -> Path:
    return SHAPES / f"decisions/paper/{network_of(density)}-run0.parquet"


def network_curve(density: int) -> Path:
    return Path(f"plots/shapes/training/paper/{network_of(density)}-run0.csv")


def test_name(density: int) -> str:
    """Name of a density's test images."""
    return f"test/density-{density}"


def margin_name(density: int, margin: int) -> str:
    """Name of the images of exactly so many shapes, and so many more circles than squares."""
    return f"margins/density-{density}/margin{margin:+d}"
