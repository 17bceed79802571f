from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.work.measures import prediction_table
from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.prediction_table import write_predictions
from airflow_mcp.work.measures.scoring import ScoredModel

NOBODY: Any = None


@pytest.mark.parametrize(
    ("labels", "stored"),
    [
        ([0, 1, 1, 0, 1], [0, 1, 1, 0, 1]),
        ([1.0, 2.0, 1.0, 2.0, 2.5], [1.0, 2.0, 1.0, 2.0, 2.5]),
        ([True, False, True, True, True], [True, False, True, True, True]),
        (["a", "b", "a", "b", "b"], ["a", "b", "a", "b", "b"]),
        ([1, 1, 1, 1, "x"], ["1", "1", "1", "1", "x"]),
        ([1, 1, 1, 1, 2**63], ["1", "1", "1", "1", str(2**63)]),
    ],
)
def test_every_part_has_the_type_that_all_rows_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[Any], stored: list[Any]
) -> None:
    monkeypatch.setattr(prediction_table, "PART_ROWS", 2)
    column = pd.Series(labels)
    known = sorted(set(labels), key=str)
    classes = Classes(tuple(known), None)
    true = np.array([known.index(label) for label in labels])
    probabilities = np.linspace(0, 1, 5 * len(known)).reshape(5, -1)
    scored = [
        ScoredModel(NOBODY, None, true, true[::-1], classes, probabilities),
        ScoredModel(NOBODY, None, true, true),
    ]
    write_predictions(tmp_path / "t.parquet", column, scored)
    found = pd.read_parquet(tmp_path / "t.parquet")
    assert list(found.columns) == [*("row", "label", "candidate_prediction", "candidate_score", "champion_prediction")]
    assert found["row"].tolist() == [0, 1, 2, 3, 4]
    assert found["label"].tolist() == stored
    assert found["candidate_prediction"].tolist() == stored[::-1]
    assert found["candidate_score"].tolist() == scored[0].scores().tolist()  # type: ignore[union-attr]
    assert found["champion_prediction"].tolist() == true.tolist()
