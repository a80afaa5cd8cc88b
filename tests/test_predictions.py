"""Tables of trials: complete, unique, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.predictions import read_predictions, write_predictions
from pipeline.stage import UserError


def trials(observer: str = "M50", n: int = 6) -> pd.DataFrame:
    correct = pd.array([True, False, None] * (n // 3), dtype="boolean")
    return pd.DataFrame(
        {
            "logit_circle": np.linspace(-1, 1, n, dtype=np.float32),
            "observer": observer,
            "condition": "test/density-10",
            "image": [f"{i:06d}" for i in range(n)],
            "category": ["circle", "square", "tie"] * (n // 3),
            "response": "circle",
            "correct": correct,
        }
    )


def test_round_trip_of_several_files(tmp_path):
    write_predictions(tmp_path / "a.parquet", trials("M10"))
    write_predictions(tmp_path / "b.parquet", trials("M20"))
    both = read_predictions([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert both["observer"].astype(str).tolist() == ["M10"] * 6 + ["M20"] * 6
    assert both["correct"].tolist()[:2] == [True, False]
    assert both["correct"].isna().tolist()[:3] == [False, False, True]
    np.testing.assert_array_equal(both["logit_circle"][:6], np.linspace(-1, 1, 6, dtype=np.float32))


def test_same_bytes_and_common_columns_first(tmp_path):
    write_predictions(tmp_path / "a.parquet", trials())
    write_predictions(tmp_path / "b.parquet", trials())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    names = pq.read_schema(tmp_path / "a.parquet").names
    assert names == ["observer", "condition", "image", "category", "response", "correct", "logit_circle"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t.drop(columns="response"), r"lack the columns \['response'\]"),
        (lambda t: pd.concat([t, t.head(1)]), "hold a trial twice: .*000000"),
        (lambda t: t.assign(image=None), "have empty cells"),
    ],
)
def test_incomplete_trials_are_not_written(tmp_path, spoil, reason):
    with pytest.raises(ValueError, match=reason):
        write_predictions(tmp_path / "a.parquet", spoil(trials()))
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    write_predictions(path, trials())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.parquet: not a whole Parquet file"):
        read_predictions([path])
    pd.DataFrame({"x": [1]}).to_parquet(path)
    with pytest.raises(UserError, match=r"a\.parquet: lacks the columns"):
        read_predictions([path])
