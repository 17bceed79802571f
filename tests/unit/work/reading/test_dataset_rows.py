from __future__ import annotations

import json
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, FailedError
from airflow_mcp.work.models.input_columns import cast_columns
from airflow_mcp.work.reading import dataset_rows
from airflow_mcp.work.reading.dataset_frame import load_dataset
from airflow_mcp.work.reading.dataset_rows import open_dataset

ROWS = 40
SIZE = 7
"""Rows of a batch here: the last batch has fewer."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_rows, "batch_rows", lambda columns: SIZE)


def late(value: Any, other: Any) -> list[Any]:
    """Return a column in which one value of another kind comes in the last but one batch."""
    return [*[value] * (ROWS - 8), other, *[value] * 7]


CSV_COLUMNS: dict[str, list[Any]] = {
    "whole": list(range(ROWS)),
    "fraction": late("1", "1.5"),
    "gap": late("7", ""),
    "zeros": late("007", "7"),
    "word": late("12", "twelve"),
    "first_word": ["x", *["12"] * (ROWS - 1)],
    "flag": late("True", "False"),
    "flag_and_gap": late("True", ""),
    "flag_and_number": late("True", "1"),
    "flag_and_word": late("true", "maybe"),
    "huge": late("1", str(2**63 + 1)),
    "enormous": late("1.5", str(10**25)),
    "enormous_only": late("1", str(10**25)),
    "nothing": [""] * ROWS,
    "late_only": late("", "2.5"),
    "year": late("2024", "2024-05-01"),
    "infinite": late("1", "inf"),
    "quoted": late("a,b", 'say "x"'),
    "known_text": late("007", ""),
}


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_has_the_values_and_types_of_the_whole_in_every_batch(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"data.{ending}"
    pd.DataFrame(CSV_COLUMNS).to_csv(path, index=False)
    pin = DatasetPin(uri=str(path))
    whole, used = load_dataset(pin, ["known_text"])
    with open_dataset(pin, ["gap", "flag_and_gap", "word", "absent"], ["known_text"]) as data:
        parts = list(data.batches())
        pd.testing.assert_frame_equal(data.kept, whole[["gap", "word", "flag_and_gap"]])
        assert (data.pin, len(data), data.columns) == (used, ROWS, list(whole.columns))
    assert [len(part) for part in parts] == [SIZE] * 5 + [5]
    for part in parts:
        pd.testing.assert_frame_equal(part, whole.loc[part.index])


PARQUET = pd.DataFrame(
    {
        "whole": range(ROWS),
        "gap": pd.array(late(7, None), dtype="Int64"),
        "text": late("a", None),
        "kind": pd.Categorical(late("north", "south")),
        "time": pd.to_datetime(late("2024-05-01", None)),
        "flag": late(True, None),
        "price": late(Decimal("1.50"), Decimal("2.00")),
        "list": [[1, 2]] * ROWS,
        "small": np.arange(ROWS, dtype=np.float32),
    }
)
SIGNATURE = [("whole", "double"), ("gap", "double"), ("text", "string"), ("kind", "string"), ("time", "datetime")]
SIGNATURE += [("price", "double"), ("small", "float")]


def check_inputs(pin: DatasetPin, types: list[tuple[str, str]]) -> None:
    """The batches together are what a model gets from the whole; columns that are kept are those of the whole."""
    columns = [(name, kind, True) for name, kind in types]
    whole, used = load_dataset(pin)
    kept = [name for name in whole.columns if name != "list"]
    with open_dataset(pin, kept) as data:
        parts = [cast_columns(part, columns, "m") for part in data.batches()]
        pd.testing.assert_frame_equal(data.kept, whole[kept])
        assert (data.pin, len(data), data.columns) == (used, len(whole), list(whole.columns))
    assert [len(part) for part in parts] == [SIZE] * 5 + [5]
    pd.testing.assert_frame_equal(pd.concat(parts), cast_columns(whole, columns, "m"))


@pytest.mark.parametrize("group", [3, 10, 40])
def test_parquet_gives_a_model_what_the_whole_gives(tmp_path: Path, group: int) -> None:
    path = tmp_path / "data.parquet"
    PARQUET.set_index(pd.Index(range(100, 100 + ROWS), name="id")).to_parquet(path, row_group_size=group)
    check_inputs(DatasetPin(uri=str(path)), SIGNATURE)


def test_json_lines_give_a_model_what_the_whole_gives_also_when_a_name_comes_late(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    late_number = [{"late": 2.5} if row == ROWS - 2 else {} for row in range(ROWS)]
    mixed = late(1, 1.5)
    lines = [{"whole": row, "mixed": mixed[row], "text": "a", **late_number[row]} for row in range(ROWS)]
    path.write_text("\n".join(map(json.dumps, lines)))
    check_inputs(
        DatasetPin(uri=str(path)), [("whole", "double"), ("mixed", "double"), ("text", "string"), ("late", "double")]
    )


def test_the_sample_has_the_types_of_the_whole_and_every_gap(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    frame = PARQUET.drop(columns=["list", "kind"]).assign(zeros=0, late=late(None, "x"))
    frame.to_parquet(path)
    with open_dataset(DatasetPin(uri=str(path)), []) as data:
        assert [len(part) for part in data.batches()] == [SIZE] * 5 + [5]
        sample = data.sample.joined()
    whole, _ = load_dataset(DatasetPin(uri=str(path)))
    assert sample.dtypes.to_dict() == whole.dtypes.to_dict()
    assert sample.isna().any().to_dict() == whole.isna().any().to_dict()
    assert sample["late"].notna().any()
    assert len(sample) < 2 * SIZE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,a\n1,2\n", "more than one column named 'a'"),
        ("a.csv", b"a,b\n", "got 0 rows and 2 columns"),
        ("a.csv", b"a,b\n1,2,3\n", "more values than its header has names"),
        ("a.csv", b"a,b\n" + b"1,2\n" * 20 + b"1,2,3\n", "not readable as csv: ParserError.*line 22, saw 3"),
        ("a.csv", b"a\n" + b"x\n" * 20 + "\xe4\n".encode("latin-1"), "convert the file to UTF-8"),
        ("a.jsonl", b'{"a": 1}\n' * 20 + b"[1]\n", "line 21: it is not a JSON object"),
        ("a.jsonl", b"\n", "got 0 rows"),
        ("a.parquet", b"PAR1", "is not readable as parquet"),
        ("a.txt", b"a", "must end in one of"),
    ],
)
def test_what_is_broken_is_refused_before_anything_is_predicted(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message), open_dataset(DatasetPin(uri=str(tmp_path / name)), ["a"]):
        pass


@pytest.mark.parametrize("lines", [10, 20, 30])
def test_a_file_that_changes_while_it_is_read_is_read_again_by_a_retry(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 20)
    with open_dataset(DatasetPin(uri=str(path)), ["a"]) as data:
        path.write_text('{"a": 2}\n' * lines)
        with pytest.raises(FailedError, match="changed while it was read"):
            list(data.batches())


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_rows, "batch_rows", lambda columns: 2_000)
    frame = pd.DataFrame({f"x{number}": np.random.default_rng(number).normal(size=40_000) for number in range(20)})

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.parquet"
        frame[:rows].to_parquet(path, row_group_size=4_000)
        with open_dataset(DatasetPin(uri=str(path)), ["x0"]) as data:
            tracemalloc.start()
            try:
                assert sum(len(part) for part in data.batches()) == rows
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(4_000)  # what is imported and cached at the first time
    few, many = peak(8_000), peak(40_000)
    assert many - few < 32_000 * 20, "a tenth of what the further rows need: 20 columns of 8 bytes"
