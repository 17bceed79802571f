from __future__ import annotations

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.batch_readers import DataFile
from airflow_mcp.work.reading.dataset_batches import open_data


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


def arrow_file(path: Path, *, as_stream: bool) -> None:
    table = pa.table({f"n{number}": np.arange(20_000.0) + number for number in range(50)})
    open_writer = pa.ipc.new_stream if as_stream else pa.ipc.new_file
    with open_writer(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7000)


@pytest.mark.parametrize("as_stream", [False, True])
def test_single_columns_are_taken_from_an_arrow_file_and_cannot_be_from_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_stream: bool
) -> None:
    path, read = tmp_path / "data.arrow", 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            content = super().read(size)
            read += len(content or b"")
            return content or b""

    arrow_file(path, as_stream=as_stream)
    monkeypatch.setattr(DataFile, "opened", lambda file: Counted(file.path))
    with open_data([DatasetPin(uri=str(path))]) as scan:
        batches = list(scan.batches(["n30", "n4"]))
        assert scan.is_columnar == (read < path.stat().st_size / 10) == (not as_stream)
        assert [batch.num_rows for batch in batches] == [7000, 7000, 6000]
        table = pa.Table.from_batches(batches)
        assert table.column_names == ["n4", "n30"]
        assert table["n30"].to_pylist() == [row + 30.0 for row in range(20_000)]
        assert [batch.num_rows for batch in scan.batches([])] == [7000, 7000, 6000]


@pytest.mark.parametrize("others", [[], ["b.csv"], ["b.arrow"]])
def test_data_are_columnar_when_every_file_is(tmp_path: Path, others: list[str]) -> None:
    pd.DataFrame({"n0": [1.0]}).to_parquet(tmp_path / "a.parquet")
    arrow_file(tmp_path / "a.feather", as_stream=False)
    for name in others:
        if name == "b.csv":
            pd.DataFrame({"n0": [1.0]}).to_csv(tmp_path / name, index=False)
        else:
            arrow_file(tmp_path / name, as_stream=True)
    with open_data([DatasetPin(uri=str(tmp_path))]) as scan:
        assert scan.is_columnar == (not others)


@pytest.mark.parametrize("name", ["data.parquet", "data.csv", "data.csv.gz"])
def test_an_address_with_a_signature_is_read_and_never_shown(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"n0": [1.0, 2.0]})
    if name == "data.parquet":
        table.to_parquet(tmp_path / name)
    else:
        table.to_csv(tmp_path / name, index=False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))  # gives no parts of files
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with open_data([DatasetPin(uri=f"{address}/{name}?sig=secret")]) as scan:
            assert sum(batch.num_rows for batch in scan.batches()) == 2
            assert [(pin.uri, pin.hash[:7]) for pin in scan.pins] == [(f"{address}/{name}", "sha256:")]
        with pytest.raises(DatasetError) as caught, open_data([DatasetPin(uri=f"{address}/none.csv?sig=secret")]):
            pass
        server.shutdown()
    assert str(caught.value).startswith(f"dataset {address}/none.csv cannot be fetched: FileNotFoundError")
    assert "secret" not in str(caught.value)
