from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from airflow_mcp.core.evidence import DatasetPin
from airflow_mcp.runtime.data_scan import open_data


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_the_names_of_the_columns_are_read_once(tmp_path: Path, ending: str) -> None:
    path, data = tmp_path / f"data.{ending}", pd.DataFrame({"b": [1, 2], "a": [3, 4]})
    if ending == "parquet":
        data.to_parquet(path)
    elif ending == "csv":
        data.to_csv(path, index=False)
    else:
        data.to_json(path, orient="records", lines=True)
    with open_data([DatasetPin(uri=str(path))]) as scan:
        assert list(scan.columns) == ["b", "a"]
        path.unlink()
        assert list(scan.columns) == ["b", "a"]
