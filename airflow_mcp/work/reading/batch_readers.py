"""One reader per file format; each yields record batches of bounded size."""

from __future__ import annotations

import contextlib
import gzip
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet as pq

from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.exceptions import DatasetError, ModelControlPlaneError
from airflow_mcp.work.reading import csv_and_jsonl
from airflow_mcp.work.reading.pandas_index import without_index
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
    requests: LoggedRequests | None = None
    """The prediction log that it belongs to, of which only some rows are read; None reads all rows."""
    row_groups: tuple[int, int] | None = None
    """Row groups of a Parquet file to read: the first, and the one after the last; None reads all."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the file and decompress it."""
        with contextlib.ExitStack() as stack:
            opener = Path(self.path).open if self.filesystem is None else partial(self.filesystem.open, self.path)
            stream = stack.enter_context(opener("rb"))
            if self.is_gzip:
                stream = cast("IO[bytes]", stack.enter_context(gzip.open(stream)))
            yield stream


@dataclass(frozen=True)
class Wanted:
    """Which columns are read, and how."""

    columns: frozenset[str] | None = None
    """None: all that are not ignored."""
    ignored: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    """Columns that stay text in files that store text: no type is guessed for them."""

    def has(self, name: str) -> bool:
        """Return whether a column is read."""
        return name not in self.ignored if self.columns is None else name in self.columns

    def also(self, name: str) -> Wanted:
        """Return the same with a further column."""
        columns = None if self.columns is None else self.columns | {name}
        return replace(self, columns=columns, ignored=self.ignored - {name})

    def of(self, names: Sequence[str]) -> list[str]:
        """Return the columns of a file that are read; without one, the first: its rows count nevertheless."""
        return [name for name in names if self.has(name)] or list(names[:1])


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


def column_names(file: DataFile, wanted: Wanted) -> list[str]:
    """Return the names of the columns of a file that are read.

    :param file: the file.
    :param wanted: which columns are read; None of its own columns means all that are not ignored.
    :raises DatasetError: when one of these names occurs twice.
    """
    names: list[str] = []
    if file.format == "parquet":
        with _parquet(file) as data:
            names = without_index(data.schema_arrow)
    elif file.format == "arrow":
        with file.opened() as stream:
            names = without_index(_arrow_reader(stream).schema)
    elif file.format == "csv":
        with file.opened() as stream:
            names = csv_and_jsonl.csv_header(stream)
    else:
        with file.opened() as stream:
            names = csv_and_jsonl.json_names(stream, file.shown)
    return _unique([name for name in names if wanted.has(name)], file)


def _unique(names: list[str], file: DataFile) -> list[str]:
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DatasetError(
            f"data {file.shown} has more than one column named {', '.join(map(repr, repeated))}; names must differ. "
            "Nothing was read"
        )
    return names


def row_group_count(file: DataFile) -> int:
    """Return the number of row groups of a Parquet file; 1 for other formats, which are read as a whole.

    :raises DatasetError: when it cannot be read.
    """
    if file.format != "parquet":
        return 1
    with readable(file), _parquet(file) as data:
        return int(data.num_row_groups)


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


def _parquet_batches(file: DataFile, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    with _parquet(file) as data:
        names = _unique(wanted.of(without_index(data.schema_arrow)), file)
        if not names:
            names = data.schema_arrow.names[:1]  # the file has an index only, but its rows count
        groups = range(*(file.row_groups or (0, data.num_row_groups)))
        for group in groups:  # one group per reader, so that its memory is released
            yield from data.iter_batches(batch_size=batch_rows(len(names)), row_groups=[group], columns=names)


def _arrow_batches(file: DataFile, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        reader = _arrow_reader(stream, wanted)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            found = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            found = iter(reader)
        names = _unique(wanted.of(without_index(reader.schema)), file)
        for batch in found:
            yield batch.select([batch.schema.names.index(name) for name in names] or [0])


def _arrow_reader(stream: IO[bytes], wanted: Wanted | None = None) -> Any:
    try:
        reader = pyarrow.ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pyarrow.ipc.open_stream(stream)
    names = reader.schema.names
    if wanted is None or not names:
        return reader
    kept = set(wanted.of(without_index(reader.schema)))
    positions = [position for position, name in enumerate(names) if name in kept] or [0]
    return pyarrow.ipc.open_file(stream, options=pyarrow.ipc.IpcReadOptions(included_fields=positions))


def _csv_batches(file: DataFile, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        header = csv_and_jsonl.csv_header(stream)
        names = _unique(wanted.of(header), file)
        for block in csv_and_jsonl.csv_blocks(stream):
            yield from csv_and_jsonl.parse_csv(block, header, names, wanted.texts).to_batches(_MAX_BATCH_ROWS)


def _json_batches(file: DataFile, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        for table in csv_and_jsonl.json_tables(stream, file.shown, columns=wanted.has, texts=wanted.texts):
            yield from table.combine_chunks().to_batches(_MAX_BATCH_ROWS)


def batches_of(file: DataFile, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Read a file batch by batch; of a prediction log, only the rows that are wanted.

    :param file: the file.
    :param wanted: the columns to read.
    :raises DatasetError: when it belongs to a prediction log and does not say who answered.
    """
    log = file.requests
    if log is None:
        yield from BATCH_READERS[file.format](file, wanted)
        return
    for batch in BATCH_READERS[file.format](file, wanted.also(log.column)):
        if log.column not in batch.schema.names:
            raise DatasetError(
                f"data {file.shown} has no column {log.column!r}, which says who answered. Nothing was read"
            )
        roles = batch.column(log.column).cast(pa.string())
        rows = batch.filter(pyarrow.compute.is_in(roles, value_set=pa.array(log.roles, pa.string())))
        # Where no other column is read, the roles stay, because the rows count nevertheless.
        yield rows.select([name for name in rows.schema.names if wanted.has(name)] or [log.column])


BATCH_READERS: Mapping[str, Callable[[DataFile, Wanted], Iterator[pa.RecordBatch]]] = {
    "parquet": _parquet_batches,
    "arrow": _arrow_batches,
    "csv": _csv_batches,
    "jsonl": _json_batches,
}
"""Format to its reader, which takes the file and the columns to read."""
