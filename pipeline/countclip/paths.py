"""Places of what the study's stages hand to one another (dvc.yaml declares the same places)."""

from pathlib import Path

DATA = Path("data/countclip")
MODELS = Path("models/countclip")
METRICS = Path("metrics/countclip")
PLOTS = Path("plots/countclip")

POOL = DATA / "pool"
FILTERED = DATA / "filtered"
BENCHMARK = DATA / "countbench/countbench.tar"
MISSING = DATA / "countbench/missing.json"  # what of the benchmark is not at hand, and why
ZERO_SHOT = DATA / "countbench/zero_shot.tar"  # images to name
CLASSES = DATA / "countbench/classes.json"  # their names
PREDICTIONS = DATA / "predictions"

DETECTOR = MODELS / "detector.safetensors"
PRETRAINED = MODELS / "pretrained.safetensors"  # of small-clip
FINETUNED = MODELS / "finetuned"
