"""Pinned datasets of any size: some columns whole, and all rows batch by batch.

The columns of a batch have the values that they have when the dataset is read whole. Parquet and JSON Lines store
types; for CSV, a first pass decides the type of each column over all rows, as pandas does when it reads a file whole.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import FailedError
from airflow_mcp.work.reading.batch_readers import DataFile, Wanted, batch_rows, batches_of
from airflow_mcp.work.reading.column_sample import ColumnSample
from airflow_mcp.work.reading.csv_and_jsonl import csv_header, json_objects
from airflow_mcp.work.reading.dataset_frame import (
    dataset_format,
    frame_of_arrow,
    frame_of_json,
    open_text,
    read_csv,
    readable_dataset,
    require_rows,
    require_unique,
    without_csv_index,
)
from airflow_mcp.work.reading.pandas_index import without_index
from airflow_mcp.work.reading.pinned_file import verified_file

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
_FLAGS = frozenset({"true", "false"})


class DatasetRows:
    """A pinned dataset that is open for reading.

    :param pin: the dataset as used, with its hash.
    :param reader: reads its file.
    :param kept: names of columns to read whole; absent ones are left out.
    :param has_changed: whether the file has changed since it was verified.
    """

    def __init__(
        self, pin: DatasetPin, reader: _Reader, kept: Collection[str], has_changed: Callable[[], bool]
    ) -> None:
        self.pin, self._reader, self._has_changed = pin, reader, has_changed
        self.columns = reader.columns
        """Names of all columns."""
        self.kept = reader.whole([name for name in self.columns if name in kept])
        """Some columns whole, with an index from 0 to n-1."""
        self.sample = ColumnSample()
        """Some rows of the batches that were read."""
        self.batch_rows = reader.batch_rows
        """Number of rows of every batch but the last."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._reader.rows

    def batches(self) -> Iterator[pd.DataFrame]:
        """Read all columns batch by batch; the index continues from batch to batch.

        :raises DatasetError: when the file cannot be read any more.
        :raises FailedError: when the file has changed since it was opened.
        """
        import pandas as pd  # noqa: PLC0415

        found = self._reader.batches()
        start = 0
        while True:
            with readable_dataset(self.pin, self._reader.format):
                frame = next(found, None)
            end = start if frame is None else start + len(frame)
            if self._has_changed() or end > len(self) or (frame is None and end < len(self)):
                raise FailedError(
                    f"dataset {public_uri(self.pin.uri)} changed while it was read. Nothing was recorded; a retry "
                    "reads it again"
                )
            if frame is None:
                return
            frame.columns = self.columns
            frame.index = pd.RangeIndex(start, end)
            start = end
            self.sample.add(frame)
            yield frame


def _state(path: Path) -> tuple[int, ...]:
    """Return what differs when a file is written to, replaced or deleted."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def open_dataset(pin: DatasetPin, kept: Collection[str], text_columns: Collection[str] = ()) -> Iterator[DatasetRows]:
    """Open a pinned dataset; a remote one is copied first.

    :param pin: the dataset; the ending of its name decides the format, see :mod:`.file_formats`.
    :param kept: columns to read whole.
    :param text_columns: columns of a CSV file to read as text, so that ``007`` stays ``007``.
    :raises DatasetError: when :func:`.pinned_file.verified_file` raises it, the ending is unknown, the content is
        broken, rows or columns are missing altogether, or a column name occurs twice.
    """
    file_format = dataset_format(pin)
    with verified_file(pin) as (path, used):
        verified = _state(path)
        with readable_dataset(pin, file_format):
            reader = _READERS[file_format](path, pin, text_columns, kept)
            require_rows(pin, reader.rows, len(reader.columns))
            opened = DatasetRows(used, reader, kept, lambda: _state(path) != verified)
        shown = public_uri(used.uri)
        _log.info("dataset %s: %d rows, %d columns, %s", shown, len(opened), len(opened.columns), used.hash)
        yield opened


class _Reader(Protocol):
    """Reads a file of one format."""

    format: str
    columns: list[str]
    rows: int
    batch_rows: int

    def whole(self, names: list[str]) -> pd.DataFrame:
        """Read some columns whole."""

    def batches(self) -> Iterator[pd.DataFrame]:
        """Read all columns batch by batch."""


class _Parquet:
    """A file of Parquet."""

    format = "parquet"

    def __init__(self, path: Path, pin: DatasetPin, text_columns: Collection[str], kept: Collection[str]) -> None:
        self._path, self._shown = path, public_uri(pin.uri)
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            self.rows = file.metadata.num_rows
        self._stored = without_index(schema)
        require_unique(self._stored, pin)
        # pandas may give a column another name than Arrow does, for example when it is a time.
        self.columns = [str(name) for name in schema.empty_table().to_pandas().columns]
        self.batch_rows = batch_rows(len(self.columns))

    def whole(self, names: list[str]) -> pd.DataFrame:
        stored = [self._stored[self.columns.index(name)] for name in names]
        with pq.ParquetFile(self._path) as file:
            frame = frame_of_arrow(file.read(columns=stored).select(stored))
        frame.columns = names
        return frame.reset_index(drop=True)

    def batches(self) -> Iterator[pd.DataFrame]:
        file = DataFile(str(self._path), self._shown, self.format)
        for table in _of_size(batches_of(file, Wanted()), self.batch_rows):
            yield frame_of_arrow(table)


def _of_size(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Join or divide batches, so that each but the last has so many rows."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        rest = batch
        while rest.num_rows:
            part = rest.slice(0, rows - count)
            rest = rest.slice(part.num_rows)
            waiting.append(part)
            count += part.num_rows
            if count == rows:
                yield pa.Table.from_batches(waiting)
                waiting, count = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


class _Csv:
    """A file of CSV, whose types a first pass has decided."""

    format = "csv"

    def __init__(self, path: Path, pin: DatasetPin, text_columns: Collection[str], kept: Collection[str]) -> None:
        self._path, self._pin = path, pin
        with open_text(path, pin) as stream:
            header = csv_header(stream)
        require_unique(header, pin)  # pandas would rename repeated columns
        self._texts: dict[str, Any] = {name: str for name in text_columns if name in header}
        self.batch_rows = batch_rows(len(header))
        self.columns: list[str] = []
        self.rows = 0
        kinds = self._kinds()
        types = {name: _settled(found) for name, found in kinds.items()} | self._texts
        self._types = {name: found for name, found in types.items() if found is not None}
        undecided = types.keys() - self._types.keys()
        self._whole = self._read([name for name in self.columns if name in undecided | set(kept)])
        self._undecided = [name for name in self.columns if name in undecided]

    def _kinds(self) -> dict[str, set[str]]:
        """Return the kinds of the values of each column for which a type is guessed; counts the rows."""
        kinds: dict[str, set[str]] = {}
        for frame in self._chunks(self._texts):
            self.columns = [str(name) for name in without_csv_index(frame).columns]
            self.rows += len(frame)
            for name in self.columns:
                if name not in self._texts and "text" not in (known := kinds.setdefault(name, set())):
                    known.add(_kind(frame[name]))
        return kinds

    def _chunks(self, types: dict[str, Any]) -> Iterator[pd.DataFrame]:
        import pandas as pd  # noqa: PLC0415

        with open_text(self._path, self._pin) as stream:
            yield from pd.read_csv(stream, dtype=types, low_memory=False, chunksize=self.batch_rows)

    def _read(self, names: list[str]) -> pd.DataFrame:
        with open_text(self._path, self._pin) as stream:
            return read_csv(stream, self._texts, usecols=names)

    def whole(self, names: list[str]) -> pd.DataFrame:
        return self._whole[names]

    def batches(self) -> Iterator[pd.DataFrame]:
        start = 0
        for frame in self._chunks(self._types | dict.fromkeys(self._undecided, str)):
            end = start + len(frame)
            for name in self._undecided:
                frame[name] = self._whole[name].iloc[start:end].to_numpy()
            start = end
            yield frame


def _kind(column: pd.Series[Any]) -> str:
    """Return which type pandas has guessed for a part of a column; ``text`` if no other part can change it."""
    if column.dtype == object:
        return "text" if any(isinstance(value, str) and _is_word(value) for value in column) else "unknown"
    return str(column.dtype)


def _is_word(text: str) -> bool:
    """Return whether a text cannot be a number or a flag."""
    try:
        float(text)
    except ValueError:
        return text.strip().lower() not in _FLAGS
    return False


def _settled(kinds: set[str]) -> Any:
    """Return the type that pandas guesses for a whole column; None if only all its values together say it."""
    if "text" in kinds:
        return str
    if kinds in ({"int64"}, {"bool"}):
        return next(iter(kinds))
    return "float64" if kinds <= {"int64", "float64"} else None


class _JsonLines:
    """A file of JSON Lines."""

    format = "jsonl"

    def __init__(self, path: Path, pin: DatasetPin, text_columns: Collection[str], kept: Collection[str]) -> None:
        self._path, self._pin = path, pin
        names: dict[str, None] = {}
        self.rows = 0

        def some(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            for row in rows:
                names.update(dict.fromkeys(row))
                self.rows += 1
                yield {name: row[name] for name in kept if name in row}

        self._whole = frame_of_json(some(self._objects()))
        self.columns = list(names)
        self.batch_rows = batch_rows(len(self.columns))

    def _objects(self) -> Iterator[dict[str, Any]]:
        with open_text(self._path, self._pin) as stream:
            yield from json_objects(stream, public_uri(self._pin.uri))

    def whole(self, names: list[str]) -> pd.DataFrame:
        return self._whole[names]

    def batches(self) -> Iterator[pd.DataFrame]:
        rows = self._objects()
        while part := list(islice(rows, self.batch_rows)):
            yield frame_of_json(iter(part), self.columns)


_READERS: Mapping[str, Callable[[Path, DatasetPin, Collection[str], Collection[str]], _Reader]] = {
    "parquet": _Parquet,
    "csv": _Csv,
    "jsonl": _JsonLines,
}
"""Format to its reader, which takes the file, its pin, columns of text and columns to read whole. A reader of CSV or
JSON Lines passes over the file when it is made, because only then it knows the rows and columns."""
