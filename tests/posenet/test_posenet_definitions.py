"""Arithmetic on the published Table 2, counted here from the table as it stands in the document."""

from __future__ import annotations

import pytest

from pipeline.posenet.definitions import lower_than_natural

# VGG, then ResNet, of H, V, G, HS, VS: SPC of bear, black, white, noise, then MAE likewise
SPC = """
0.394 0.217 0.274 0.214  0.703 0.438 0.109 0.470
0.439 0.349 0.430 0.075  0.727 0.767 0.793 0.262
0.775 0.398 0.487 0.170  0.886 0.505 0.346 0.259
0.134 0.273 0.278 0.251  0.276 0.040 -0.062 0.211
0.281 0.231 0.224 0.272  0.102 0.515 0.038 0.172
"""
MAE = """
0.235 0.241 0.242 0.245  0.186 0.247 0.252 0.234
0.238 0.242 0.244 0.267  0.181 0.228 0.245 0.241
0.141 0.195 0.193 0.188  0.135 0.206 0.196 0.189
0.306 0.297 0.301 0.292  0.295 0.305 0.300 0.300
0.292 0.300 0.299 0.290  0.305 0.302 0.305 0.304
"""


def share(table: str) -> float:
    numbers = [float(word) for word in table.split()]
    groups = [numbers[i : i + 4] for i in range(0, len(numbers), 4)]
    return sum(value < bear for bear, *others in groups for value in others) / 30


def test_spc_is_mostly_lower_without_a_natural_image_and_mae_is_not():
    found = lower_than_natural()
    assert found["cells"] == 30
    assert found["spc_lower"] == pytest.approx(share(SPC)) == pytest.approx(23 / 30)
    assert found["mae_lower"] == pytest.approx(share(MAE)) == pytest.approx(6 / 30)
