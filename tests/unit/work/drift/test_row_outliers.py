from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.work.drift.row_sampling import sample_numbers
from airflow_mcp.work.reading.dataset_batches import FileScan, open_data


def numbered(columns: int, rows: int) -> pd.DataFrame:
    """Return data in which every number shows its row and column."""
    place = np.arange(rows)[:, None] * 1000.0 + np.arange(columns)
    return pd.DataFrame(place, columns=[f"n{number}" for number in range(columns)])


def stored(path: Path, data: pd.DataFrame) -> list[DatasetPin]:
    if path.suffix == ".csv":
        data.to_csv(path, index=False)
    else:
        data.to_parquet(path, row_group_size=300)
    return [DatasetPin(uri=str(path))]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_numbers_of_a_drawn_row_stay_together(tmp_path: Path, ending: str) -> None:
    data = numbered(150, 1000)
    names = list(data.columns)
    with open_data(stored(tmp_path / f"d.{ending}", data)) as scan:
        rows = sample_numbers(scan, names, 200, seed=3)
    assert rows.shape == (200, 150)
    assert np.array_equal(rows - rows[:, :1], np.tile(np.arange(150.0), (200, 1)))
    assert len(np.unique(rows[:, 0])) == 200
    with open_data(stored(tmp_path / "again.parquet", data)) as scan:
        assert np.array_equal(rows, sample_numbers(scan, names, 200, seed=3))
        assert not np.array_equal(rows, sample_numbers(scan, names, 200, seed=4))


@pytest.mark.parametrize(("ending", "most"), [("parquet", 64), ("csv", 150)])
def test_few_columns_of_wide_data_are_read_at_once_where_that_is_cheap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, most: int
) -> None:
    passes, read = [], FileScan.batches

    def watched(scan: FileScan, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        passes.append(len(columns or ()))
        return read(scan, columns)

    monkeypatch.setattr(FileScan, "batches", watched)
    data = numbered(150, 10)
    with open_data(stored(tmp_path / f"d.{ending}", data)) as scan:
        sample_numbers(scan, list(data.columns), 5, seed=0)
    assert max(passes) == most
    assert sum(passes) == 150
