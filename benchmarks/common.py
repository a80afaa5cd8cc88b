"""What benchmarks share: the scenes that they draw, the clock, and the kind of machine."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.params import load_params
from pipeline.shapes.scenes import Shapes, draw_counts, draw_shapes
from pipeline.shards import item_rng

CPU_INFO = Path("/proc/cpuinfo")
DENSITY = 50
SCENE = load_params().shapes.scene
COUNTS = partial(draw_counts, density=DENSITY, scene=SCENE)


def draw_scenes(number: int) -> list[Shapes]:
    """Scenes of density 50, laid out and not yet drawn."""
    scenes = []
    for i in range(number):
        rng = item_rng(0, f"benchmark/{i}")
        scenes.append(draw_shapes(rng, *COUNTS(rng), SCENE))
    return scenes


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cpu_model() -> str:
    text = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def arithmetic() -> list[str]:
    """What torch finds in this CPU: its vector instructions, bf16 and AMX."""
    import torch  # here, since benchmarks that draw and store in several processes need none

    found = [torch.backends.cpu.get_cpu_capability()]
    # torch.cpu has no public question for these (2.11)
    return found + ["bf16"] * torch.cpu._is_avx512_bf16_supported() + ["AMX"] * torch.cpu._is_amx_tile_supported()


def kind_of_machine() -> str:
    """The CPU's maker and family, and its arithmetic: a file's name, e.g. 'amd-epyc-avx2'."""
    words = re.findall(r"AMD|Intel|EPYC|Ryzen|Xeon|Core(?=.TM)", model := cpu_model())
    return re.sub(r"[^a-z0-9]+", "-", " ".join([*(words or [model]), *arithmetic()]).lower()).strip("-")
