from __future__ import annotations

import hashlib
import json
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.dataset_frame import load_dataset, require_columns
from airflow_mcp.work.reading.pinned_file import verified_file

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "my data.csv"
    FRAME.to_csv(path, index=False)
    return path


def test_every_format_gives_the_same_rows(tmp_path: Path, csv_file: Path) -> None:
    FRAME.to_parquet(tmp_path / "data.parquet")
    FRAME.to_csv(tmp_path / "packed.CSV.GZ", index=False, compression="gzip")
    for name in ("data.jsonl", "packed.jsonl.gz"):
        FRAME.to_json(tmp_path / name, orient="records", lines=True)
    for path in (csv_file, *tmp_path.glob("data.*"), *tmp_path.glob("packed.*")):
        frame, pin = load_dataset(DatasetPin(uri=str(path)))
        pd.testing.assert_frame_equal(frame, FRAME)
        assert pin.hash == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_and_fsspec_urls_are_read(csv_file: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/data.csv", "wb") as stream:
        stream.write(csv_file.read_bytes())
    for uri in (csv_file.as_uri(), "memory://bucket/data.csv"):
        frame, pin = load_dataset(DatasetPin(uri=uri))
        pd.testing.assert_frame_equal(frame, FRAME)
        assert pin.hash == "sha256:" + hashlib.sha256(csv_file.read_bytes()).hexdigest()


def test_text_columns_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("code,n\n007,1\n,2\n")
    frame, _ = load_dataset(DatasetPin(uri=str(path)), ["code", "elsewhere"])
    assert frame["code"].iloc[0] == "007"
    assert frame["code"].isna().tolist() == [False, True]


def test_json_lines_keep_their_own_types(tmp_path: Path) -> None:
    rows = [
        {"zip": "01234", "signup_time": 1_700_000_000, "created_at": 1.7e9, "date": "2024-01-05", "id": 2**63 + 1},
        {"zip": "00501", "signup_time": 1_700_000_001, "created_at": 1.8e9, "date": "2024-01-06", "late": True},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    frame, _ = load_dataset(DatasetPin(uri=str(path)))
    assert frame["zip"].tolist() == ["01234", "00501"]
    assert frame["date"].tolist() == ["2024-01-05", "2024-01-06"]
    assert (frame["signup_time"].dtype, frame["created_at"].dtype) == ("int64", "float64")
    assert frame["late"].tolist() == [None, True]
    assert frame["id"].isna().tolist() == [False, True]
    assert list(frame.columns) == ["zip", "signup_time", "created_at", "date", "id", "late"]


def test_decimals_are_numbers_unless_a_digit_would_be_lost(tmp_path: Path) -> None:
    long = Decimal("0.12345678901234567890")
    table = pa.table(
        {
            "price": pa.array([Decimal("0.30"), Decimal("1.25"), None], pa.decimal128(9, 2)),
            "count": pa.array([Decimal(3), Decimal(4), Decimal(5)], pa.decimal128(9, 0)),
            "long": pa.array([long, Decimal("0.5"), None], pa.decimal128(30, 20)),
        }
    )
    pq.write_table(table, tmp_path / "data.parquet")
    frame, _ = load_dataset(DatasetPin(uri=str(tmp_path / "data.parquet")))
    assert frame["price"].dtype == "float64"
    assert frame["price"].tolist()[:2] == [0.3, 1.25]
    assert frame["count"].dtype == "int64"
    assert frame["long"].tolist()[0] == long


def test_whole_numbers_beside_missing_ones_are_not_rounded(tmp_path: Path) -> None:
    columns: dict[str, list[int | None]] = {"small": [1, None], "large": [2**53 + 1, None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "b.jsonl").write_text("\n".join([*lines, json.dumps({"odd": 10**400}), json.dumps({"odd": 1.5})]))
    for name in ("a.parquet", "b.jsonl"):
        frame, _ = load_dataset(DatasetPin(uri=str(tmp_path / name)))
        assert (str(frame["small"].dtype), frame["small"][0]) == ("float64", 1.0)
        assert frame["large"][0] == 2**53 + 1
    assert frame["odd"].tolist()[2:] == [10**400, 1.5]


@pytest.mark.parametrize(
    ("uri", "message"), [("", "must be one file, not a folder"), ("/*.csv", "one file; got a glob")]
)
def test_a_folder_or_a_glob_is_refused_as_such(tmp_path: Path, csv_file: Path, uri: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(DatasetPin(uri=f"{tmp_path}{uri}"))
    odd = csv_file.rename(tmp_path / "[1].csv")
    assert len(load_dataset(DatasetPin(uri=str(odd)))[0]) == len(FRAME)


def test_types_of_csv_are_decided_over_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("code,filler\n" + f"7,{'x' * 50}\n" * 40_000 + "V45,\n")
    frame, _ = load_dataset(DatasetPin(uri=str(path)))
    assert {type(value) for value in frame["code"]} == {str}


def test_a_row_with_more_values_than_names_makes_no_index(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(DatasetError, match="its rows have more values than its header has names"):
        load_dataset(DatasetPin(uri=str(path)))


def test_an_index_that_pandas_stored_is_left_out(tmp_path: Path) -> None:
    FRAME.set_index("a").to_parquet(tmp_path / "data.parquet")
    assert list(load_dataset(DatasetPin(uri=str(tmp_path / "data.parquet")))[0].columns) == ["b"]


def test_the_pinned_bytes_are_accepted_and_others_are_refused(csv_file: Path) -> None:
    right = "sha256:" + hashlib.sha256(csv_file.read_bytes()).hexdigest()
    assert load_dataset(DatasetPin(uri=str(csv_file), hash=right))[1].hash == right
    with (csv_file).open("a") as stream:
        stream.write("4,w\n")
    with pytest.raises(DatasetError, match=f"expected {right}, found sha256:"):
        load_dataset(DatasetPin(uri=str(csv_file), hash=right))


@pytest.mark.parametrize("digest", ["md5:00", "sha256:xyz", "00" * 32])
def test_a_hash_of_another_form_is_refused(csv_file: Path, digest: str) -> None:
    with pytest.raises(DatasetError, match="must be 'sha256:<64 hex digits>'"):
        load_dataset(DatasetPin(uri=str(csv_file), hash=digest))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", r"is empty \(0 bytes\)"),
        ("header.csv", b"a,b\n", "got 0 rows and 2 columns"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "more than one column named 'a'"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "not readable as csv"),
        ("latin.csv", b"a,b\n\xff\xfe,2\n", "not readable as csv"),
        ("broken.parquet", b"PAR1 no", "not readable as parquet"),
        ("broken.jsonl", b'{"a": 1}\n{"a"', "not readable as jsonl"),
        ("data.xlsx", b"x", "must end in one of .csv, .*; got '.xlsx'"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load_dataset(DatasetPin(uri=str(path)))


def test_what_is_not_there_or_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        load_dataset(DatasetPin(uri=str(tmp_path / "none.csv")))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DatasetError, match="is a folder"):
        load_dataset(DatasetPin(uri=str(tmp_path / "folder.csv")))
    with pytest.raises(DatasetError, match="cannot be fetched"):
        load_dataset(DatasetPin(uri="memory://bucket/none.csv"))
    with pytest.raises(DatasetError, match="cannot be fetched"):
        load_dataset(DatasetPin(uri="nosuchscheme://bucket/none.csv"))


def test_credentials_in_a_uri_reach_neither_message_nor_pin() -> None:
    assert public_uri("https://me:secret@host/d.csv?sig=secret") == "https://host/d.csv"
    assert public_uri("data/a?b.csv") == "data/a?b.csv"
    with pytest.raises(DatasetError, match="cannot be fetched") as caught:
        load_dataset(DatasetPin(uri="nosuchscheme://me:secret@host/d.csv?sig=secret"))
    assert "secret" not in str(caught.value)


def test_a_script_may_be_given_any_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(b"zip")
    with verified_file(DatasetPin(uri=str(path))) as (local, used):
        assert local == path
        assert used.hash == "sha256:" + hashlib.sha256(b"zip").hexdigest()


def test_absent_columns_are_all_named() -> None:
    with pytest.raises(DatasetError, match=r"no column 'c', 'd', needed as slices; it has 'a', 'b'\."):
        require_columns(FRAME, ["a", "c", "d"], "slices")


class Etags(BaseHTTPRequestHandler):
    """Serves one small file under an ETag that the test changes."""

    etag = "1"

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{Etags.etag}"')
        self.send_header("Content-Length", "8")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"a,b\n1,2\n")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def test_a_file_whose_server_calls_it_otherwise_since_it_was_pinned_is_refused() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Etags) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pin = DatasetPin(uri=f"http://127.0.0.1:{server.server_port}/train.csv", version="etag-1")
        assert len(load_dataset(pin)[0]) == 1
        Etags.etag = "2"
        with pytest.raises(DatasetError, match="expected etag-1, its store has etag-2"):
            load_dataset(pin)
        assert len(load_dataset(pin.model_copy(update={"version": "2026-11"}))[0]) == 1, "a label is not compared"
        server.shutdown()


class Forbidding(Etags):
    """Reports that the file exists, and refuses to serve it."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()


@pytest.mark.parametrize("query", ["", "?sig=%41secret/key"])
def test_what_a_stores_client_raises_is_an_error_of_the_dataset_without_credentials(query: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Forbidding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/train.csv"
        with pytest.raises(DatasetError) as caught, verified_file(DatasetPin(uri=address + query)):
            pass
        server.shutdown()
    assert str(caught.value).startswith(f"dataset {address} cannot be fetched: ClientResponseError")
    assert "403" in str(caught.value)
    assert "secret" not in str(caught.value)
