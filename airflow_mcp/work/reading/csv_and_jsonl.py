"""CSV and JSON Lines in blocks of whole lines. Each block has its own types, so a column may change its type midway."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from airflow_mcp.exceptions import DatasetError

BLOCK_BYTES = 16 << 20
"""16 MiB: a block and its parsed columns are in memory together."""
_MAX_RECORD_BYTES = 256 << 20
"""A longer record is an unclosed quotation mark rather than data; without a limit it would fill the memory."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MISSING = ("", "#N/A", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "<NA>", "-nan", "-NaN")
"""Texts that mean a missing value in CSV, as in pandas."""


def csv_header(stream: IO[bytes]) -> list[str]:
    """Read the first record of a CSV file and leave the stream after it."""
    record = stream.readline()
    while record.count(b'"') % 2 and (line := stream.readline()):
        record += line
    return next(csv.reader(io.StringIO(record.removeprefix(_BYTE_ORDER_MARK).decode("utf-8"))), [])


def csv_blocks(stream: IO[bytes], size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Divide CSV into blocks of whole records; a line break within quotes does not end a record.

    :param stream: positioned after the header.
    :param size: approximate bytes per block.
    """
    return _blocks(stream, size, _end_of_records, "is a quotation mark left open?")


def _blocks(stream: IO[bytes], size: int, end_of: Callable[[bytes], int], question: str) -> Iterator[bytes]:
    """Divide a stream at the ends of records; refuse a record that does not end."""
    rest = b""
    while chunk := stream.read(size):
        rest += chunk
        end = end_of(rest)
        if end:
            yield rest[:end]
            rest = rest[end:]
        elif len(rest) > _MAX_RECORD_BYTES:
            raise ValueError(f"a record is longer than {_MAX_RECORD_BYTES >> 20} MiB; {question}")
    if rest.strip():
        yield rest


def _end_of_records(data: bytes) -> int:
    """Return the position after the last line break that is outside quotes; 0 if there is none."""
    end = data.rfind(b"\n") + 1
    quotes = data.count(b'"', 0, end)
    while end and quotes % 2:
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(b'"', before, end)
        end = before
    return end


def parse_csv(block: IO[bytes], names: list[str], columns: Collection[str] | None) -> pa.Table:
    """Read a block of CSV without a header.

    :param block: the block.
    :param names: names of all its columns.
    :param columns: columns to read; None reads all.
    """
    wanted = [name for name in names if columns is None or name in columns] or names[:1]
    return pyarrow.csv.read_csv(
        block,
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            null_values=list(_MISSING), strings_can_be_null=True, include_columns=wanted
        ),
    )


def json_tables(stream: IO[bytes], shown: str, size: int = BLOCK_BYTES) -> Iterator[pa.Table]:
    """Read JSON Lines in blocks.

    :param stream: the file.
    :param shown: address of the file, for messages.
    :param size: approximate bytes per block.
    :raises DatasetError: when a line is not a JSON object; names its number.
    """
    lines = 0
    for block in _blocks(stream, size, lambda read: read.rfind(b"\n") + 1, "is it one JSON object per line?"):
        if block.strip():
            yield from _json_block(block, lines, shown)
        lines += block.count(b"\n")


def _json_block(block: bytes, lines: int, shown: str) -> Iterator[pa.Table]:
    try:
        yield pyarrow.json.read_json(
            io.BytesIO(block), read_options=pyarrow.json.ReadOptions(block_size=max(len(block) + 1, 1 << 20))
        )
    except pa.ArrowInvalid:
        # A line is broken, or a column has several types. Rows with the same types are then read together.
        groups: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = defaultdict(list)
        for number, line in enumerate(block.split(b"\n"), start=lines + 1):
            if line.strip():
                row = _json_object(line, number, shown)
                groups[tuple((name, _type_of(value)) for name, value in row.items())].append(row)
        for rows in groups.values():
            yield pa.Table.from_pylist(rows)


def _json_object(line: bytes, number: int, shown: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"data {shown} is not readable as jsonl: line {number}: {error}. Nothing was read") from None
    if not isinstance(row, dict):
        raise DatasetError(
            f"data {shown} is not readable as jsonl: line {number} is not a JSON object. Nothing was read"
        )
    return row


def _type_of(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__
