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


def run_name(observer: str, run: int = 0) -> str:
    """Name of one training run of an observer, e.g. 'ssd-run0'."""
    return f"{observer}-run{run}"


def weights_path(counter: str, run: int = 0) -> Path:
    return Path(f"models/localize/{run_name(counter, run)}.safetensors")


def curve_path(counter: str, run: int = 0) -> Path:
    return PLOTS / f"training/{run_name(counter, run)}.csv"


def training_metrics(counter: str, run: int = 0) -> Path:
    return METRICS / f"training/{run_name(counter, run)}.json"


def counted_path(counter: str, run: int = 0) -> Path:
    """What a counter answered, one row an image."""
    return DATA / f"counted/{run_name(counter, run)}/answers.parquet"


def boxes_path(counter: str, run: int = 0) -> Path:
    """Every box that a detector found in the test sets."""
    return DATA / f"counted/{run_name(counter, run)}/boxes.parquet"


def masks_path(counter: str, run: int = 0) -> Path:
    """What a segmenter named the pixels of the first images of each test set, for the figures."""
    return DATA / f"counted/{run_name(counter, run)}/masks.safetensors"


def predictions_path(observer: str, run: int = 0) -> Path:
    """The answers of all that are compared, for the study of error consistency too."""
    return DATA / f"predictions/{run_name(observer, run)}.parquet"


def network_of(density: int) -> str:
    """The shapes study's network of a density, whatever the training run."""
    return f"M{density}"


def network_weights(density: int) -> Path:
    """Its weights in training run 0."""
    return Path(f"models/shapes/paper/{run_name(network_of(density))}.safetensors")


def network_predictions(density: int, run: int) -> Path:
    """Its decisions in one training run, among those of all networks that params.yaml names."""
    return SHAPES / f"predictions/paper/{run_name(network_of(density), run)}.parquet"


def network_curve(density: int) -> Path:
    """Its learning curve in training run 0."""
    return Path(f"plots/shapes/training/paper/{run_name(network_of(density))}.csv")


def test_name(density: int) -> str:
    """Name of a density's test images."""
    return f"test/density-{density}"


def margin_name(density: int, margin: int) -> str:
    """Name of the images of exactly so many shapes, and so many more circles than squares."""
    return f"margins/density-{density}/margin{margin:+d}"
