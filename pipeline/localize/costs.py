"""What each counter costs: its size, and the arithmetic to look at an image and to learn."""

from __future__ import annotations

import json

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from pipeline.localize.network import as_input, count_flops, resnet18
from pipeline.localize.paths import CLASSIFY, network_curve, training_metrics
from pipeline.params import Params


def cost_table(params: Params) -> pd.DataFrame:
    """Size, and floating-point operations to look at an image and to be trained; of the first run."""
    side = params.at_scale.shapes.resolution
    network, pixels = resnet18(), torch.zeros(2, side, side, dtype=torch.uint8)
    with torch.no_grad():
        looking = count_flops(lambda: network(as_input(pixels)))
    learning = count_flops(lambda: cross_entropy(network(as_input(pixels)), torch.tensor([0, 1])).backward())
    rows = [
        {
            "counter": CLASSIFY,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "gflops_to_look": looking / len(pixels) / 1e9,
            "gflops_to_learn": learning / len(pixels) / 1e9,
            "images_seen": int(pd.read_csv(network_curve(params.localize.density))["images_seen"].iloc[-1]),
        }
    ]
    for counter in params.localize.counters:
        numbers = json.loads(training_metrics(counter, params.localize.runs[0]).read_text())
        rows.append({"counter": counter} | {name: numbers[name] for name in list(rows[0])[1:]})
    table = pd.DataFrame(rows)
    return table.assign(tflops_of_training=table["gflops_to_learn"] * table["images_seen"] / 1e3)
