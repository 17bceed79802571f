"""CSV and JSON Lines in blocks of whole records.

CSV stores text only: the parser guesses a type for each column of each block, and marks its guesses. JSON has types of
its own; only its times are guessed, from text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.arrow_values import as_times, column_of_json, guessed

BLOCK_BYTES = 16 << 20
"""16 MiB: a block and its parsed columns are in memory together."""
_MAX_RECORD_BYTES = 256 << 20
"""A longer record is an unclosed quotation mark rather than data; without a limit it would fill the memory."""
_PARSER_BLOCK_BYTES = 1 << 20
"""1 MiB, Arrow's default: blocks of this size are converted on all CPUs."""
_NOT_FOR_ARROW = (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError)
"""How Arrow refuses JSON Lines that are then read line by line."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _FIELD_ENDS = ord('"'), np.frombuffer(b",\r\n", dtype=np.uint8)
_QUOTED = re.compile(rb'(?:^|(?<=[,\r\n]))"[^"]*(?:""[^"]*)*(?:"|\Z)')
"""A quoted field: a quotation mark opens one only where a field begins, so the inches of ``5" pipe`` do not."""
MISSING_TEXTS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""Texts that mean a missing value in CSV: those of pandas."""


def csv_header(stream: IO[bytes]) -> list[str]:
    """Read the first record of a CSV file and leave the stream after it.

    :raises ValueError: when the header shows that the file is not separated by commas, or not UTF-8.
    """
    record = stream.readline().removeprefix(_BYTE_ORDER_MARK)
    while not _end_of_records(record) and (line := stream.readline()):
        record += line
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"its header is not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    names = next(csv.reader(io.StringIO(text)), [])
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), "")):
        raise ValueError(f"its header is one column with {other!r} in its name; columns must be separated by commas")
    return names


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
    if b'"' not in data:
        return data.rfind(b"\n") + 1
    codes = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(codes == _QUOTE)
    if not _are_pairs(codes, quotes):
        return _end_after_quoted_fields(data)
    end = len(data)
    while end := data.rfind(b"\n", 0, end) + 1:
        if int(np.searchsorted(quotes, end)) % 2 == 0:
            return end
        # The line break is within quotes: go on before the mark that opens them.
        end = int(quotes[np.searchsorted(quotes, end) - 1])
    return 0


def _are_pairs(codes: np.ndarray[Any, Any], quotes: np.ndarray[Any, Any]) -> bool:
    """Return whether the marks can be counted: every second one opens a field, or repeats the one before it."""
    opening, closing = quotes[::2], quotes[1::2]
    before = codes[np.maximum(opening, 1) - 1]
    opens = (opening == 0) | np.isin(before, _FIELD_ENDS)
    opens[1:] |= opening[1:] == closing[: len(opening) - 1] + 1
    return bool(opens.all())


def _end_after_quoted_fields(data: bytes) -> int:
    """Return what :func:`_end_of_records` does, field by field."""
    end = start = 0
    for field in _QUOTED.finditer(data):
        end = data.rfind(b"\n", start, field.start()) + 1 or end
        start = field.end()
        if start == len(data) and not _is_closed(field.group()):
            return end
    return data.rfind(b"\n", start) + 1 or end


def _is_closed(field: bytes) -> bool:
    return len(field) > 1 and field.count(b'"') % 2 == 0


def parse_csv(block: bytes, names: list[str], columns: Collection[str] | None, texts: Collection[str] = ()) -> pa.Table:
    """Read a block of CSV without a header.

    :param block: the block.
    :param names: names of all its columns.
    :param columns: columns to read; None reads all.
    :param texts: columns to read as text, so that ``007`` stays ``007``.
    :return: the columns; those whose type was guessed are marked.
    """
    wanted = [name for name in names if columns is None or name in columns] or names[:1]
    # Arrow loses the line feed of a CRLF within quotes where one of its blocks ends (apache/arrow#51368).
    is_whole = b"\r" in block and b'"' in block
    table = pyarrow.csv.read_csv(
        io.BytesIO(block),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, block_size=len(block) + 1 if is_whole else _PARSER_BLOCK_BYTES
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            null_values=list(MISSING_TEXTS),
            strings_can_be_null=True,
            include_columns=wanted,
            column_types={name: pa.string() for name in wanted if name in texts},
        ),
    )
    return guessed(table, (field.name for field in table.schema if not pa.types.is_string(field.type)))


def json_object(line: bytes) -> dict[str, Any]:
    """Read one line of JSON Lines, in the types of JSON.

    :raises ValueError: when it is not a JSON object.
    """
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  (the line is wrong, not the type of an argument)
    return row


def json_objects(lines: Iterator[bytes], shown: str, before: int = 0) -> Iterator[dict[str, Any]]:
    """Read JSON Lines as they are, in the types of JSON; empty lines are left out.

    :param lines: lines of the file.
    :param shown: address of the file, for messages.
    :param before: lines of the file before these.
    :raises DatasetError: when a line is not a JSON object; names its number.
    """
    for number, line in enumerate(lines, start=before + 1):
        if line.strip():
            try:
                yield json_object(line)
            except ValueError as error:
                raise DatasetError(
                    f"data {shown} is not readable as jsonl: line {number}: {error}. Nothing was read"
                ) from None


def json_tables(
    stream: IO[bytes], shown: str, size: int = BLOCK_BYTES, *, columns: Callable[[str], bool], texts: Collection[str]
) -> Iterator[pa.Table]:
    """Read JSON Lines in blocks.

    :param stream: the file.
    :param shown: address of the file, for messages.
    :param size: approximate bytes per block.
    :param columns: whether a column is wanted; without one, the first column is read so that its rows count.
    :param texts: columns whose texts are never read as times.
    :return: the columns; those whose texts were guessed to be times are marked.
    :raises DatasetError: when a line is not a JSON object; names its number.
    """
    known: dict[str, None] = {}
    for block, lines in _json_blocks(stream, size):
        yield _with_times(_json_block(block, lines, shown, columns, known), texts)


def json_names(stream: IO[bytes], shown: str, size: int = BLOCK_BYTES) -> list[str]:
    """Return the names of the columns in the first block of JSON Lines, in the order in which they first occur.

    :param stream: the file.
    :param shown: address of the file, for messages.
    :param size: approximate bytes of the block.
    :raises DatasetError: when a line is not a JSON object; names its number.
    """
    for block, lines in _json_blocks(stream, size):
        try:
            return list(_parse_json(block, ()).schema.names)
        except _NOT_FOR_ARROW:
            return _names_in(json_objects(iter(block.split(b"\n")), shown, lines))
    return []


def _json_blocks(stream: IO[bytes], size: int) -> Iterator[tuple[bytes, int]]:
    """Yield the blocks that are not empty, each with the number of lines before it."""
    lines = 0
    for block in _blocks(stream, size, lambda read: read.rfind(b"\n") + 1, "is it one JSON object per line?"):
        if block.strip():
            yield block, lines
        lines += block.count(b"\n")


def _names_in(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _json_block(
    block: bytes, lines: int, shown: str, columns: Callable[[str], bool], known: dict[str, None]
) -> pa.Table:
    """Read a block with Arrow, or line by line when Arrow cannot: a line is broken, or a column has several types.

    :param known: columns that hold text, although Arrow would take it for times; more are added.
    """
    try:
        table = _parse_json(block, known)
        if times := [field.name for field in table.schema if pa.types.is_timestamp(field.type)]:
            known |= dict.fromkeys(times)
            table = _parse_json(block, known).select(table.schema.names)
        names = [name for name in table.schema.names if columns(name)]
        return table.select(names or table.schema.names[:1])
    except _NOT_FOR_ARROW:
        rows = list(json_objects(iter(block.split(b"\n")), shown, lines))
    every = _names_in(rows)
    names = [name for name in every if columns(name)] or every[:1]
    return pa.table({name: column_of_json([row.get(name) for row in rows]) for name in names})


def _parse_json(block: bytes, known: Collection[str]) -> pa.Table:
    """Read a block with Arrow.

    :raises: one of :data:`_NOT_FOR_ARROW` when it cannot.
    """
    if not block.isascii():
        block.decode("utf-8")  # Arrow reads other encodings as well, and the values cannot be used later
    return pyarrow.json.read_json(
        io.BytesIO(block),
        read_options=pyarrow.json.ReadOptions(block_size=max(len(block) + 1, 1 << 20)),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([(name, pa.string()) for name in known]), unexpected_field_behavior="infer"
        ),
    )


def _with_times(table: pa.Table, texts: Collection[str]) -> pa.Table:
    found = {}
    for name in table.schema.names:
        if name not in texts and pa.types.is_string(table.schema.field(name).type):
            times = as_times(table[name].combine_chunks())
            if times is not None:
                found[name] = times
    columns = [found.get(name, table[name]) for name in table.schema.names]
    return guessed(pa.table(columns, names=table.schema.names), found)
