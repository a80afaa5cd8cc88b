"""The trials that a kappa needs: its standard error against simulations, copying against simulated copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency import trials_needed
from pipeline.consistency.trials_needed import copied, needed, standard_error
from pipeline.stage import UserError


@pytest.mark.parametrize(("p_a", "p_b", "both"), [(0.7, 0.6, 0.55), (0.9, 0.8, 0.74), (0.5, 0.5, 0.25)])
def test_the_standard_error_is_that_of_simulated_experiments(p_a, p_b, both):
    rng = np.random.default_rng(0)
    trials = 1000
    cells = np.array([both, p_a - both, p_b - both, 1 - p_a - p_b + both])
    right = {0: (1, 1), 1: (1, 0), 2: (0, 1), 3: (0, 0)}
    kappas = []
    for counts in rng.multinomial(trials, cells, size=400):
        answers = np.repeat([right[i] for i in range(4)], counts, axis=0)
        kappas.append(cohen_kappa_score(*answers.T))
    observed = both + cells[3]
    # the standard deviation of 400 draws is known to 3.5%
    assert standard_error(p_a, p_b, observed, trials) == pytest.approx(np.std(kappas), rel=0.12)


def test_the_standard_error_by_hand():
    """Fleiss, Cohen and Everitt's formula on a table of 100 trials: 40, 10, 20 and 30."""
    kappa = (0.7 - 0.5) / 0.5
    diagonal = 0.4 * (1 - (0.5 + 0.6) * (1 - kappa)) ** 2 + 0.3 * (1 - (0.5 + 0.4) * (1 - kappa)) ** 2
    off = (1 - kappa) ** 2 * (0.1 * (0.6 + 0.5) ** 2 + 0.2 * (0.4 + 0.5) ** 2)
    by_hand = ((diagonal + off - (kappa - 0.5 * (1 - kappa)) ** 2) / 100) ** 0.5 / 0.5
    assert standard_error(0.5, 0.6, 0.7, 100) == pytest.approx(by_hand)
    assert np.isnan(standard_error([1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [100, 0])).all()


@pytest.mark.parametrize(("p", "alone", "share"), [(0.7, 0.7, 0.4), (0.6, 0.95, 0.3), (0.5, 0.2, 0.8)])
def test_copying_is_read_off_simulated_copies(p, alone, share):
    rng = np.random.default_rng(1)
    trials = 400_000
    first = rng.random(trials) < p
    second = np.where(rng.random(trials) < share, first, rng.random(trials) < alone)
    kappa = cohen_kappa_score(first, second)
    accuracy = second.mean()
    found = copied(kappa, first.mean(), accuracy)
    nearer_half = abs(p - 0.5) <= abs(accuracy - 0.5)
    assert found == pytest.approx(share, abs=0.01) if nearer_half else found < share
    assert np.isnan(copied(np.nan, 1.0, 1.0))


def test_trials_needed_fall_with_the_square_of_the_width():
    row = {"experiment": "cue", "pair": "net - net", "accuracy_first": 0.7, "accuracy_second": 0.7}
    known = {**row, "trials": 400, "observed": 0.79, "kappa": 0.5, "low": 0.4, "high": 0.6}
    always_right = {
        **row,
        "trials": 400,
        "accuracy_first": 1.0,
        "observed": 0.7,
        "kappa": None,
        "low": None,
        "high": None,
    }
    (found,) = needed(pd.DataFrame([known, known, always_right])).to_dict("records")
    assert (found["pairs"], found["undefined"], found["trials"]) == (2, 1, 400)
    assert found["half_width"] == pytest.approx(0.1)
    assert (found["trials_for_0.1"], found["trials_for_0.05"]) == (pytest.approx(400), pytest.approx(1600))
    assert found["copied"] == pytest.approx(0.5)


def test_every_set_of_params_is_there(workspace):
    workspace(**{"consistency.sets": {"mine": {"predictions": "x", "observers": ["kind"], "compare": "groups"}}})
    with pytest.raises(
        UserError, match=r"plots/consistency/mine/pairs.json: not there; run 'dvc repro analyse_consistency@mine'"
    ):
        trials_needed.main()
    rng = np.random.default_rng(0)
    rows = [
        {"experiment": "cue", "pair": kind, "trials": 400, "accuracy_first": 0.7, "accuracy_second": 0.6}
        | {"observed": 0.8, "kappa": 0.5, "low": 0.5 - width, "high": 0.5 + width}
        for kind in ("a - a", "a - b")
        for width in rng.uniform(0.05, 0.1, 5)
    ]
    path = Path("plots/consistency/mine/pairs.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    assert trials_needed.main() == "2 kinds of pairs"
    assert [row["pair"] for row in json.loads(Path("metrics/consistency/trials_needed.json").read_text())["mine"]] == [
        "a - a",
        "a - b",
    ]
    assert Path("plots/consistency_figures/trials_needed.png").stat().st_size > 5000
