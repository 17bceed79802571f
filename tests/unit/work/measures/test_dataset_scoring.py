from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationRequest
from airflow_mcp.exceptions import RefusedError
from airflow_mcp.work.measures.dataset_scoring import score_models
from airflow_mcp.work.measures.feature_importance import rows_for_importance
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.reading import dataset_rows
from airflow_mcp.work.reading.dataset_rows import open_dataset

SIZE = 1_000


class Model:
    """Stands for a loaded model: a function of the rows that gives the probability of class 1."""

    uri = "models:/m-1"

    def __init__(self, chance: Callable[[pd.DataFrame], Any]) -> None:
        self.chance, self.classes = chance, [0, 1]

    def prepare(self, frame: pd.DataFrame, target: str) -> pd.DataFrame:
        return frame.drop(columns=[target])

    def predict(self, rows: pd.DataFrame) -> Any:
        return np.asarray(rows["x0"] > 0).astype(int)

    def probabilities(self, rows: pd.DataFrame) -> tuple[Any, str]:
        positive = np.asarray(self.chance(rows))
        return (None, "it is tired") if np.isnan(positive).any() else (np.column_stack([1 - positive, positive]), "")


def of_x0(rows: pd.DataFrame) -> Any:
    return 1 / (1 + np.exp(-rows["x0"]))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_rows, "batch_rows", lambda columns: SIZE)


def written(folder: Path, rows: int, columns: int = 2) -> Path:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({f"x{number}": random.normal(size=rows) for number in range(columns)})
    path = folder / f"{rows}.parquet"
    frame.assign(y=(frame["x0"] + random.normal(size=rows) > 0).astype(int)).to_parquet(path, row_group_size=SIZE)
    return path


def score(path: Path, *models: Model, **options: Any) -> list[ScoredModel]:
    pin = DatasetPin(uri=str(path))
    candidate = {"model_uri": "models:/m-1"}
    asked = {"identity": "i", "run_id": "r", "candidate": candidate, "champion": None, "dataset": pin, "target": "y"}
    with open_dataset(pin, ["y"]) as data:
        return score_models(models, data, EvaluationRequest(**asked, model_type="classifier", **options))  # type: ignore[arg-type]


def test_memory_grows_by_label_predictions_and_probabilities_only(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = written(tmp_path, rows, columns=40)
        tracemalloc.start()
        try:
            (found,) = score(path, Model(of_x0))
            assert len(found.true) == len(found.predicted) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2 * SIZE)  # what is imported and cached at the first time
    # Many rows: beside them, a batch that waits for the garbage collector is small.
    further = peak(110 * SIZE) - peak(10 * SIZE)
    assert further < 100 * SIZE * 120, "81 bytes per row; the columns have 328"


def test_probabilities_that_one_batch_lacks_are_lacking_for_all(tmp_path: Path) -> None:
    path = written(tmp_path, 3 * SIZE + 1)
    late = Model(lambda rows: np.where(rows.index >= 3 * SIZE, np.nan, 0.5))
    first = Model(lambda rows: np.where(rows.index < 1, np.nan, 0.5))
    for found in score(path, late, first):
        assert (found.probabilities, found.why_not) == (None, "it is tired")
        assert found.measure().undefined["roc_auc"] == "it is tired"


def test_rounding_that_depends_on_the_batch_is_accepted_and_more_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 2 * SIZE)
    assert score(path, Model(lambda rows: of_x0(rows) * (1 - len(rows) * 1e-10)))
    with pytest.raises(RefusedError, match=r"answers 128 of 128 rows differently .* on at most 1000 rows"):
        score(path, Model(lambda rows: of_x0(rows - rows.mean())))
    assert score(written(tmp_path, SIZE), Model(lambda rows: of_x0(rows - rows.mean())))


def test_the_first_rows_and_those_of_importance_are_kept_with_their_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, 4 * SIZE)
    whole = pd.read_parquet(path)
    candidate, champion = score(
        path, Model(of_x0), Model(of_x0), latency_calls=1_005, latency_warmup=5, importance_rows=50
    )
    first, chosen = list(range(1_010)), rows_for_importance(4 * SIZE, 50)
    assert champion.inputs.index.tolist() == first
    assert candidate.inputs.index.tolist() == sorted({*first, *chosen})
    pd.testing.assert_frame_equal(candidate.inputs, whole.loc[candidate.inputs.index, ["x0", "x1"]])
