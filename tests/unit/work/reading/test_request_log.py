"""The newest requests of a log: found in bounded memory, next to sorting everything."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mcp.exceptions import DatasetError, FailedError
from airflow_mcp.work.reading import request_log
from airflow_mcp.work.reading.request_log import RequestLog

RANDOM = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "CHUNK_ROWS", 7)


def taken(log: RequestLog, last: int) -> list[int]:
    selection = log.select(last)
    found = [int(number) for chunk in log.read(selection) for number in chunk.frame["n"]]
    assert len(found) == selection.taken
    return found


def write(folder: Path, frame: pd.DataFrame, files: int = 3) -> str:
    """Spread a frame over Parquet and JSON Lines files."""
    for number in range(files):
        part = frame.iloc[number::files]
        if number % 2:
            part.to_json(folder / f"part-{number}.jsonl", orient="records", lines=True)
        else:
            part.to_parquet(folder / f"part-{number}.parquet", index=False)
    return str(folder)


@pytest.mark.parametrize("last", [1, 5, 20, 49, 50, 500])
@pytest.mark.parametrize("spread", [3, 1000])
def test_the_newest_are_those_that_sorting_would_give(tmp_path: Path, last: int, spread: int) -> None:
    frame = pd.DataFrame({"n": range(50), "ts": RANDOM.integers(0, spread, 50)})
    log = RequestLog(write(tmp_path, frame), "ts")
    in_order = pd.concat([frame.iloc[number::3] for number in range(3)])
    expected = in_order.sort_values("ts", kind="stable").tail(last)["n"]
    assert sorted(taken(log, last)) == sorted(expected)


@pytest.mark.parametrize("last", [1, 8, 30, 500])
def test_without_times_the_order_of_files_and_rows_counts(tmp_path: Path, last: int) -> None:
    frame = pd.DataFrame({"n": range(30)})
    log = RequestLog(write(tmp_path, frame))
    in_order = [number for part in range(3) for number in range(part, 30, 3)]
    assert taken(log, last) == in_order[-last:]


def test_times_as_text_and_as_times_are_the_same(tmp_path: Path) -> None:
    times = pd.date_range("2026-01-01", periods=40, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"n": range(40), "ts": times}).sample(frac=1, random_state=3)
    frame.iloc[:20].to_parquet(tmp_path / "a.parquet", index=False)
    lines = [
        json.dumps({"n": int(n), "ts": ts.isoformat()}) for n, ts in zip(frame["n"][20:], frame["ts"][20:], strict=True)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    assert sorted(taken(RequestLog(str(tmp_path), "ts"), 12)) == list(range(28, 40))


@pytest.mark.parametrize("odd", ["n/a", "1700000040", True, None, [1], 10**400, float("inf"), float("nan")])
def test_one_odd_time_undates_its_request_only(tmp_path: Path, odd: Any) -> None:
    rows = [{"n": number, "ts": odd if number == 40 else 1_700_000_000 + number} for number in range(50)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = RequestLog(str(tmp_path / "log.jsonl"), "ts")
    assert log.select(12).undated == 1
    assert taken(log, 12) == [number for number in range(37, 50) if number != 40]


def test_values_do_not_depend_on_what_else_is_in_their_chunk(tmp_path: Path) -> None:
    ids = [None if number % 7 == 3 and number < 20 else number for number in range(40)]
    prices = [Decimal(number) / 10 for number in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in ids))
    table = pa.table({"id": pa.array(ids, pa.int64()), "price": pa.array(prices, pa.decimal128(9, 1))})
    pq.write_table(table, tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        log = RequestLog(str(tmp_path / name))
        frames = [chunk.frame for chunk in log.read(log.select(40))]
        assert len(frames) == 6
        texts = [str(value) for frame in frames for value in frame["id"].dropna()]
        assert texts == [str(number) for number in ids if number is not None]
    assert [value for frame in frames for value in frame["price"]] == [float(price) for price in prices]


def test_requests_without_a_time_are_counted_and_not_taken(tmp_path: Path) -> None:
    lines = ['{"n": 1, "ts": "2026-01-01T00:00:00Z"}', '{"n": 2, "ts": "soon"}', '{"n": 3}', "broken", "[1]"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    log = RequestLog(str(tmp_path / "log.jsonl"), "ts")
    selection = log.select(10)
    assert (selection.available, selection.taken, selection.undated) == (5, 1, 4)
    assert taken(log, 10) == [1]


def test_of_requests_without_a_single_time_none_is_taken(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"n": 1, "ts": "soon"}\n{"n": 2, "ts": null}\nbroken\n')
    log = RequestLog(str(tmp_path / "log.jsonl"), "ts")
    selection = log.select(10)
    assert (selection.available, selection.taken, selection.undated) == (3, 0, 3)
    assert taken(log, 10) == []


def test_lines_that_are_no_objects_keep_their_place(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"n": 1}\n\nbroken\n{"n": 2}\n[3]\n')
    log = RequestLog(str(tmp_path / "log.jsonl"))
    (chunk,) = log.read(log.select(3))
    assert chunk.readable.tolist() == [False, True, False]
    assert len(chunk.frame) == 3


def test_compressed_lines_hidden_files_and_globs(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as stream:
        stream.write('{"n": 1}\n{"n": 2}\n')
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part.crc").write_bytes(b"x")
    assert taken(RequestLog(str(tmp_path)), 5) == [1, 2]
    assert taken(RequestLog(f"file://{tmp_path}/*.gz"), 1) == [2]


def test_files_in_the_folders_of_other_programs_are_no_requests(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    for folder in (".ipynb_checkpoints", "_delta_log"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "b.jsonl").write_text('{"n": 2}\n')
        (tmp_path / folder / "c.json").write_text("{}")
    assert taken(RequestLog(str(tmp_path)), 5) == [1]
    hidden = tmp_path / "_logs"
    hidden.mkdir()
    (hidden / "d.jsonl").write_text('{"n": 3}\n')
    assert taken(RequestLog(str(hidden)), 5) == [3]


def test_a_glob_that_matches_folders_only_says_so(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=1" / "a.jsonl").write_text('{"n": 1}\n')
    with pytest.raises(
        DatasetError, match=r"got no file: the glob matches folders; their files match .*/\*/\*\. Nothing"
    ):
        RequestLog(f"{tmp_path}/*")
    assert taken(RequestLog(f"{tmp_path}/*/*"), 5) == [1]


def test_a_remote_log_is_read_too() -> None:
    import fsspec

    with fsspec.open("memory://logs/day=1/a.jsonl", "wb") as stream:
        stream.write(b'{"n": 1}\n{"n": 2}\n')
    assert taken(RequestLog("memory://logs"), 5) == [1, 2]


def test_an_empty_log_has_no_requests(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    log = RequestLog(str(tmp_path / "log.jsonl"), "ts")
    assert (log.select(5).taken, taken(log, 5)) == (0, [])


def test_the_ending_of_a_packed_log_counts_in_either_case(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "A.JSONL.GZ", "wt") as stream:
        stream.write('{"n": 1}\n{"n": 2}\n')
    assert taken(RequestLog(str(tmp_path / "A.JSONL.GZ")), 1) == [2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"n\n1\n", r"glob of \.parquet, .*; got files of other formats: .*log\.csv"),
        ("log.parquet", b"PAR1 broken", r"log\.parquet is not readable"),
        ("log.jsonl.gz", b"not compressed", r"log\.jsonl\.gz is not readable"),
    ],
)
def test_files_that_are_not_read_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        RequestLog(str(tmp_path)).select(5)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"must be a file, folder or glob of .*; got no file"):
        RequestLog(str(tmp_path / "nowhere"))


def test_a_missing_column_of_times_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no column 'when', needed as timestamp_column; they have 'n'"):
        RequestLog(write(tmp_path, pd.DataFrame({"n": [1, 2, 3]})), "when").select(2)


@pytest.mark.parametrize(("timestamp_column", "needed"), [("ts", ["ts"]), ("", [])])
def test_the_first_pass_reads_no_column_of_parquet_but_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timestamp_column: str, needed: list[str]
) -> None:
    import pyarrow.parquet as pq

    frame = pd.DataFrame({"n": range(20), "ts": range(20), "text": "long"})
    frame.to_parquet(tmp_path / "log.parquet", index=False)
    read: list[list[str]] = []
    iter_batches = pq.ParquetFile.iter_batches

    def spied(file: Any, **options: Any) -> Iterator[Any]:
        for batch in iter_batches(file, **options):
            read.append(batch.schema.names)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    log = RequestLog(str(tmp_path), timestamp_column)
    selection = log.select(8)
    assert (selection.available, selection.taken, selection.by_file) == (20, 8, (20,))
    assert read == [needed] * 3
    assert [int(n) for chunk in log.read(selection) for n in chunk.frame["n"]] == list(range(12, 20))


def test_times_that_are_the_index_of_a_stored_frame_are_no_column(tmp_path: Path) -> None:
    pd.DataFrame({"n": [1, 2], "ts": [3, 4]}).set_index("ts").to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DatasetError, match="no column 'ts', needed as timestamp_column; they have 'n'"):
        RequestLog(str(tmp_path), "ts").select(2)


def test_a_log_that_grows_while_it_is_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n')
    log = RequestLog(str(path))
    selection = log.select(5)
    with path.open("a") as stream:
        stream.write('{"n": 3}\n')
    with pytest.raises(FailedError, match="had 2 requests and now has 3"):
        list(log.read(selection))
