"""Names and places of what the study's stages hand to one another (dvc.yaml declares the same places)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.shapes.params import ARCHITECTURE, Shapes

DATA = Path("data/shapes")
METRICS = Path("metrics/shapes")
PLOTS = Path("plots/shapes")


def split_name(density: int, split: str) -> str:
    """Name of the train or test images of one density, e.g. 'test/density-50'."""
    return f"{split}/density-{density}"


def margin_name(density: int, margin: int) -> str:
    """Name of one margin set, e.g. 'margins/density-50/margin+4'."""
    return f"margins/density-{density}/margin{margin:+d}"


def margin_names(study: Shapes) -> list[str]:
    """Names of all margin sets."""
    return [margin_name(density, margin) for density in study.margin_densities for margin in study.margins]


def shard_path(name: str) -> Path:
    """The shard of the images of this name."""
    return DATA / f"{name}.tar"


@dataclass(frozen=True)
class Network:
    """One training run of a network: Network(50) is the first of the paper's M_50."""

    density: int
    architecture: str = ARCHITECTURE
    run: int = 0

    @property
    def group(self) -> str:
        """Where its files lie: 'paper', or 'variants' for another architecture than the paper's."""
        return "paper" if self.architecture == ARCHITECTURE else "variants"

    @property
    def name(self) -> str:
        """As an observer: 'M50-run0', or for instance 'regnet_y_400mf-50-run2'."""
        network = observer(self.density) if self.group == "paper" else f"{self.architecture}-{self.density}"
        return f"{network}-run{self.run}"

    @property
    def weights(self) -> Path:
        return Path(f"models/shapes/{self.group}/{self.name}.safetensors")

    @property
    def curve(self) -> Path:
        return PLOTS / f"training/{self.group}/{self.name}.csv"

    @property
    def training_metrics(self) -> Path:
        return METRICS / f"training/{self.group}/{self.name}.json"

    @property
    def epochs(self) -> Path:
        """What it answered at the end of each epoch."""
        return DATA / f"epochs/{self.group}/{self.name}.parquet"

    @property
    def decisions(self) -> Path:
        """Its decisions, where it makes them."""
        return DATA / f"decisions/{self.group}/{self.name}.parquet"

    @property
    def predictions(self) -> Path:
        """The same, among those of all networks that params.yaml names."""
        return DATA / f"predictions/{self.group}/{self.name}.parquet"


def observer(density: int) -> str:
    """Name of the paper's network of this training density, whatever the run: M_50 is 'M50'."""
    return f"M{density}"
