"""CSV and JSON Lines are cut between records only, and what is in a record does not decide whether it can be read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading import csv_and_jsonl
from airflow_mcp.work.reading.csv_and_jsonl import MISSING_TEXTS, csv_blocks, csv_header, parse_csv
from airflow_mcp.work.reading.dataset_batches import open_data
from airflow_mcp.work.reading.dataset_frame import load_dataset

FIELDS = ['5" pipe', "plain", '"a ""b"" c"', '"two\nlines"', '"crlf\r\nin it"', '""', '"," ', 'x"y"z', "", '"""', '12"']


def random_csv(seed: int, rows: int) -> bytes:
    random = np.random.default_rng(seed)
    # Three quotation marks would open a field that the next one of the file closes, so that one field is left out.
    chosen = random.choice([field for field in FIELDS if field != '"""'], (rows, 3))
    return "".join(",".join(row) + "\n" for row in chosen).encode()


def records(blocks: Sequence[bytes]) -> list[list[str]]:
    return [row for block in blocks for row in csv.reader(io.StringIO(block.decode(), newline=""))]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_blocks_have_the_records_of_the_whole_whatever_marks_are_in_it(seed: int, size: int) -> None:
    data = random_csv(seed, 40)
    blocks = list(csv_blocks(io.BytesIO(data), size))
    assert b"".join(blocks) == data
    assert records(blocks) == records([data])
    assert len(blocks) > 1 or size == 1000


@pytest.mark.parametrize("where", [0, 500])
def test_an_inch_mark_is_read_in_a_file_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: int
) -> None:
    monkeypatch.setattr(csv_and_jsonl, "_MAX_RECORD_BYTES", 4096)
    monkeypatch.setattr(csv_blocks, "__defaults__", (256,))
    lines = ["1234,some ordinary text,3.5\n"] * 1000
    lines[where] = '7,5" pipe,1.5\n'
    (tmp_path / "a.csv").write_text("id,descr,v\n" + "".join(lines))
    with open_data([DatasetPin(uri=str(tmp_path / "a.csv"))]) as scan:
        texts = [value for batch in scan.batches() for value in batch.column("descr").to_pylist()]
    assert len(texts) == 1000
    assert texts[where] == '5" pipe'
    assert load_dataset(DatasetPin(uri=str(tmp_path / "a.csv")))[0]["descr"].tolist() == texts


def test_a_line_break_of_windows_within_quotes_is_kept_where_the_parser_divides() -> None:
    block = b"".join(b'%d,"Main St 1\r\nTown"\r\n' % row for row in range(50_000))
    assert len(block) > csv_and_jsonl._PARSER_BLOCK_BYTES
    table = parse_csv(block, ["id", "address"], None)
    assert table["address"].unique().to_pylist() == ["Main St 1\r\nTown"]


def test_a_header_may_have_a_byte_order_mark_line_breaks_and_inch_marks() -> None:
    stream = io.BytesIO('\ufeff"first\nname",5" pipe,c\n1,2,3\n'.encode())
    assert csv_header(stream) == ["first\nname", '5" pipe', "c"]
    assert stream.read() == b"1,2,3\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a;b;c\n1;2;3\n", "one column with ';' in its name; columns must be separated by commas"),
        (b"a\tb\n1\t2\n", r"one column with '\\t' in its name; columns must be separated by commas"),
        ("größe,n\n1,2\n".encode("latin-1"), "its header is not UTF-8 .*; convert the file to UTF-8"),
    ],
)
def test_what_is_no_csv_with_commas_and_utf_8_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    pin = DatasetPin(uri=str(path))
    with pytest.raises(DatasetError, match=message):
        load_dataset(pin)
    with open_data([pin]) as scan, pytest.raises(DatasetError, match=message):
        list(scan.batches())


def test_latin_1_below_the_header_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,n\ngrün,2\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"UnicodeDecodeError: .*; convert the file to UTF-8"):
        load_dataset(DatasetPin(uri=str(tmp_path / "a.csv")))
    (tmp_path / "a.jsonl").write_bytes(b'{"a":"fine"}\n' + '{"a":"grün"}\n'.encode("latin-1"))
    pin = DatasetPin(uri=str(tmp_path / "a.jsonl"))
    with pytest.raises(DatasetError, match="line 2: 'utf-8' codec can't decode"):
        load_dataset(pin)
    with open_data([pin]) as scan, pytest.raises(DatasetError, match="line 2: 'utf-8' codec can't decode"):
        list(scan.batches())


def test_missing_values_of_csv_are_those_of_pandas() -> None:
    assert set(MISSING_TEXTS) == set(STR_NA_VALUES)


def test_the_types_of_a_block_are_marked_as_guesses_and_texts_are_none() -> None:
    table = parse_csv(b"1,a,007\n2,b,7\n", ["n", "text", "code"], None, ["code"])
    assert {field.name: (str(field.type), bool(field.metadata)) for field in table.schema} == {
        "n": ("int64", True),
        "text": ("string", False),
        "code": ("string", False),
    }
    assert table["code"].to_pylist() == ["007", "7"]


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for day in ("day=1", "day=2"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "notes.txt").write_text("x")
    with (
        pytest.raises(DatasetError, match=rf"Left out: day=1, day=2 \(folders, whose files match {tmp_path}/\*/\*\)"),
        open_data([DatasetPin(uri=f"{tmp_path}/*")]),
    ):
        pass
    with (
        pytest.raises(DatasetError, match=r"Left out: notes.txt, notes.txt \(files of other formats\)"),
        open_data([DatasetPin(uri=str(tmp_path))]),
    ):
        pass
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "day=1" / "a.csv", index=False)
    with open_data([DatasetPin(uri=str(tmp_path))]) as scan:
        assert len(scan.files) == 1
    assert "Left out: notes.txt, notes.txt (files of other formats)" in caplog.text
