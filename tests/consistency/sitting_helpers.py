"""What tests of the sitting share: margin sets that are drawn in a moment, and jsPsych where it is to be had."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import requests
from conftest import REPOSITORY, made_once
from ruamel.yaml import YAML

from pipeline.consistency.sitting.library import REGISTRY, packages
from pipeline.shapes.dataset import draw_shard
from pipeline.shapes.margin_sets import exact_counts
from pipeline.shapes.params import Scene
from pipeline.shapes.paths import margin_name
from pipeline.stage import UserError


def draw_sets(folder: Path, density: int, margins: Iterable[int], images: int, resolution: int = 32) -> None:
    """Margin sets below the current folder, which `folder` should be, as the stage margin_sets draws them."""
    assert folder.samefile(Path.cwd())
    scene = Scene(**YAML(typ="safe").load(REPOSITORY / "params.yaml")["shapes"]["scene"])
    for margin in margins:
        counts = partial(exact_counts, density=density, margin=margin)
        name = margin_name(density, margin)
        draw_shard(map, name=name, images=images, seed=0, counts=counts, scene=scene, resolution=resolution)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with jsPsych's packages; skips where the registry is not to be had."""
    try:
        requests.head(REGISTRY, timeout=10).raise_for_status()
    except requests.RequestException as error:
        pytest.skip(f"{REGISTRY}, from which jsPsych comes, is not to be had: {str(error)[:100]}")

    def fetch(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STUDIES_CACHE", str(folder))
            packages()

    try:
        return made_once(tmp_path_factory, "jspsych", fetch) / "jspsych"
    except UserError as error:
        if "not to be had" not in str(error):
            raise
        pytest.skip(str(error))
