"""One reader per file format; each yields record batches of bounded size."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from airflow_mcp.exceptions import DatasetError, ModelControlPlaneError
from airflow_mcp.work.reading import csv_and_jsonl
from airflow_mcp.work.run.mlflow_run import redacted

_BATCH_BYTES = 64 << 20
"""64 MiB: two batches are in memory at a time, one that is read and one that is counted."""
_MAX_BATCH_ROWS, _MIN_BATCH_ROWS = 131_072, 4096
"""Bounds of the rows of a batch, whatever the number of columns."""


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset."""

    path: str
    """Local path, or path in the file system."""
    shown: str
    """Address for messages, without credentials."""
    format: str
    filesystem: Any = None
    """File system of fsspec; None for a local file."""
    is_gzip: bool = False
    """Whether it is compressed with gzip."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the file and decompress it."""
        with contextlib.ExitStack() as stack:
            opener = Path(self.path).open if self.filesystem is None else partial(self.filesystem.open, self.path)
            stream = stack.enter_context(opener("rb"))
            if self.is_gzip:
                stream = cast("IO[bytes]", stack.enter_context(gzip.open(stream)))
            yield stream


@contextlib.contextmanager
def readable(file: DataFile) -> Iterator[None]:
    """Turn whatever readers raise into an error that names the file.

    :param file: the file that is read.
    :raises DatasetError: in place of any other error.
    """
    try:
        yield
    except ModelControlPlaneError:
        raise
    except Exception as error:  # Arrow, codecs and file systems each raise their own errors
        raise DatasetError(
            f"data {file.shown} is not readable as {file.format}: {type(error).__name__}: "
            f"{redacted(error, 300, file.path).rstrip('.')}. Nothing was compared"
        ) from None


def column_names(file: DataFile) -> list[str]:
    """Return the names of the columns of a file.

    :param file: the file.
    :raises DatasetError: when a name occurs twice.
    """
    if file.format == "parquet":
        with _parquet(file) as data:
            return _unique(data.schema_arrow.names, file)
    if file.format == "arrow":
        with file.opened() as stream:
            return _unique(_arrow_reader(stream).schema.names, file)
    if file.format == "csv":
        with file.opened() as stream:
            return _unique(csv_and_jsonl.csv_header(stream), file)
    first = next(_json_batches(file, None), None)
    return first.schema.names if first is not None else []


def _unique(names: list[str], file: DataFile) -> list[str]:
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DatasetError(
            f"data {file.shown} has more than one column named {', '.join(map(repr, repeated))}; names must differ. "
            "Nothing was read"
        )
    return names


def has_footer(file: DataFile) -> bool:
    """Return whether a file is in Arrow's file format, whose footer locates every column, rather than a stream."""
    with readable(file), file.opened() as stream:
        return isinstance(_arrow_reader(stream), pa.ipc.RecordBatchFileReader)


def batch_rows(columns: int) -> int:
    """Return the number of rows of a batch, so that a batch of so many columns stays small.

    :param columns: number of columns; each value counts 8 bytes.
    """
    return max(_MIN_BATCH_ROWS, min(_MAX_BATCH_ROWS, _BATCH_BYTES // (8 * max(columns, 1))))


@contextlib.contextmanager
def _parquet(file: DataFile) -> Iterator[pq.ParquetFile]:
    if file.filesystem is None:
        with pq.ParquetFile(file.path) as data:
            yield data
    else:
        with file.opened() as stream, pq.ParquetFile(stream) as data:
            yield data


def _parquet_batches(file: DataFile, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with _parquet(file) as data:
        names = [name for name in data.schema_arrow.names if columns is None or name in columns]
        if not names:
            # No wanted column is in this file, but its rows count: read any column.
            names = data.schema_arrow.names[:1]
        for group in range(data.num_row_groups):  # one group per reader, so that its memory is released
            yield from data.iter_batches(batch_size=batch_rows(len(names)), row_groups=[group], columns=names)


def _arrow_batches(file: DataFile, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        reader = _arrow_reader(stream, columns)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            found = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            found = iter(reader)
        for batch in found:
            wanted = [name for name in batch.schema.names if columns is None or name in columns]
            yield batch.select(wanted or batch.schema.names[:1])


def _arrow_reader(stream: IO[bytes], columns: Collection[str] | None = None) -> Any:
    try:
        reader = pyarrow.ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pyarrow.ipc.open_stream(stream)
    names = reader.schema.names
    if columns is None or not names:
        return reader
    wanted = [position for position, name in enumerate(names) if name in columns] or [0]
    return pyarrow.ipc.open_file(stream, options=pyarrow.ipc.IpcReadOptions(included_fields=wanted))


def _csv_batches(file: DataFile, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        names = _unique(csv_and_jsonl.csv_header(stream), file)
        for block in csv_and_jsonl.csv_blocks(stream):
            yield from csv_and_jsonl.parse_csv(io.BytesIO(block), names, columns).to_batches(_MAX_BATCH_ROWS)


def _json_batches(file: DataFile, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        for table in csv_and_jsonl.json_tables(stream, file.shown):
            wanted = [name for name in table.schema.names if columns is None or name in columns]
            kept = table.select(wanted or table.schema.names[:1])
            yield from kept.combine_chunks().to_batches(_MAX_BATCH_ROWS)


BATCH_READERS: Mapping[str, Callable[[DataFile, Collection[str] | None], Iterator[pa.RecordBatch]]] = {
    "parquet": _parquet_batches,
    "arrow": _arrow_batches,
    "csv": _csv_batches,
    "jsonl": _json_batches,
}
"""Format to its reader, which takes the file and the columns to read (None reads all)."""
