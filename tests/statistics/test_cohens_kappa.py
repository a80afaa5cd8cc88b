"""Cohen's kappa of right and wrong answers: by hand, against scikit-learn, and where it is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.statistics.kappa import cohens_kappa, expected_agreement, kappa_of_answers


def test_by_hand():
    # accuracies 0.5 and 0.75: by chance 0.5 x 0.75 + 0.5 x 0.25 = 0.5; 3 of 4 agree: (0.75 - 0.5) / 0.5
    assert expected_agreement(0.5, 0.75) == 0.5
    assert cohens_kappa(0.75, 0.5) == 0.5
    assert kappa_of_answers([1, 1, 0, 0], [1, 1, 1, 0]) == 0.5


def test_it_is_scikit_learns_along_either_axis():
    rng = np.random.default_rng(0)
    a = rng.random((3, 500)) < 0.7
    b = np.where(rng.random((3, 500)) < 0.5, a, rng.random((3, 500)) < 0.6)
    wanted = [cohen_kappa_score(*rows) for rows in zip(a, b, strict=True)]
    assert kappa_of_answers(a, b) == pytest.approx(wanted)
    assert kappa_of_answers(a.T, b.T, axis=0) == pytest.approx(wanted)


def test_it_is_undefined_where_agreement_is_certain():
    answers = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 1]])
    found = kappa_of_answers(answers, answers)
    assert np.isnan(found).tolist() == [True, True, False]
    assert found[2] == 1
