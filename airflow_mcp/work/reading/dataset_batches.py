"""Reading data of any size as batches: files, folders, globs and object stores, in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from airflow_mcp.core.data.dataset import data_file_name, public_uri, repository_data
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, ModelControlPlaneError
from airflow_mcp.work.reading import csv_and_jsonl
from airflow_mcp.work.reading.dataset_frame import FORMATS, ending_of, is_gzip, verified_file

_log = logging.getLogger(__name__)
SCAN_FORMATS = {**FORMATS, ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
"""File name endings that are read, and as what."""
_BATCH_BYTES = 64 << 20
_MAX_BATCH_ROWS, _MIN_BATCH_ROWS = 131_072, 4096
_GLOB = frozenset("*?[")
COLUMNS_AT_ONCE = 64
"""Columns that a pass over columnar data reads, at most: of a row group of Parquet, all of them are held."""


class Scan(Protocol):
    """Data that can be read, once or several times."""

    @property
    def pins(self) -> tuple[DatasetPin, ...]:
        """The data, as used."""

    @property
    def is_columnar(self) -> bool:
        """Whether reading single columns is cheap."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns that are known before reading."""

    def batches(self, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read batch by batch; the schema may differ between them.

        :param columns: columns that are needed; None means all.
        """


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset."""

    path: str
    """Local path, or path within the file system."""
    shown: str
    """Address for messages, without credentials."""
    format: str
    filesystem: Any = None
    """fsspec's file system; None for a local file."""
    is_packed: bool = False
    """Whether gzip has packed it."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the file, unpacked."""
        with contextlib.ExitStack() as stack:
            opener = Path(self.path).open if self.filesystem is None else partial(self.filesystem.open, self.path)
            stream = stack.enter_context(opener("rb"))
            if self.is_packed:
                stream = cast("IO[bytes]", stack.enter_context(gzip.open(stream)))
            yield stream


@dataclass(frozen=True)
class FileScan:
    """Files, read one after the other."""

    files: tuple[DataFile, ...]
    pins: tuple[DatasetPin, ...]

    @cached_property
    def is_columnar(self) -> bool:
        """Whether reading single columns is cheap: of Parquet, and of Arrow's file format but not of its streams."""
        return all(file.format == "parquet" or (file.format == "arrow" and _has_footer(file)) for file in self.files)

    @cached_property
    def columns(self) -> Sequence[str]:
        """Names of the columns of all files, in the order in which they are met.

        Of CSV these are the first lines, of JSON Lines the keys of the first block: others may turn up later.
        """
        names: dict[str, None] = {}
        for file in self.files:
            with _readable(file):
                names |= dict.fromkeys(_column_names(file))
        return tuple(names)

    def batches(self, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read batch by batch, file by file.

        :param columns: columns that are needed; None means all.
        :raises DatasetError: for a file that cannot be read, naming it.
        """
        wanted = None if columns is None else frozenset(columns)
        for file in self.files:
            batches = _READERS[file.format](file, wanted)
            while True:
                with _readable(file):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield batch


@contextlib.contextmanager
def open_data(pins: Sequence[DatasetPin]) -> Iterator[FileScan]:
    """Find the files of a dataset and keep them readable.

    :param pins: each a file, a folder, a glob, an fsspec URL, or data kept beside a Git repository. A hash is verified;
        without one nothing is verified, and the pin is recorded without. What is on a web server is one file and is
        copied first: not every server gives parts of it.
    :raises DatasetError: when there is no file, when one is of no known format, or is not the one that was pinned.
    """
    if not pins:
        raise DatasetError("No data was given; give one file, folder, glob or URL at least. Nothing was read.")
    with contextlib.ExitStack() as kept:
        files: list[DataFile] = []
        used: list[DatasetPin] = []
        for pin in pins:
            if pin.hash or repository_data(pin.uri) is not None or pin.uri.startswith(("http://", "https://")):
                path, verified = kept.enter_context(verified_file(pin))
                files += _found(str(path), verified.uri) if path.is_dir() else [_pinned(path, pin)]
                used.append(verified)
            else:
                files += _found(pin.uri, public_uri(pin.uri))
                used.append(pin.model_copy(update={"uri": public_uri(pin.uri)}))
        _log.info("data: %d files from %s", len(files), ", ".join(pin.uri for pin in used))
        yield FileScan(tuple(files), tuple(used))


def _pinned(path: Path, pin: DatasetPin) -> DataFile:
    """Give a verified file; a copy of a remote one does not have its name."""
    shown = public_uri(pin.uri)
    name = data_file_name(pin.uri)
    return DataFile(str(path), shown, _format_of(name, shown), is_packed=is_gzip(name))


def _found(uri: str, shown: str) -> list[DataFile]:
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(
            f"Data {shown} cannot be found without fsspec: pip install airflow-mcp[runtime]. Nothing was read."
        ) from None
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        if _GLOB & set(path) and not filesystem.exists(path):
            paths = [found for found in filesystem.glob(path) if filesystem.isfile(found)]
        elif filesystem.isdir(path):
            paths = [found for found in filesystem.find(path) if _is_data(found, path)]
        else:
            paths = [path] if filesystem.exists(path) else []
        local = "file" in filesystem.protocol if isinstance(filesystem.protocol, tuple) else False
    except Exception as error:  # every file system has errors of its own
        raise DatasetError(
            f"Data {shown} cannot be found: {type(error).__name__}: {_one_line(error, uri)}. Nothing was read."
        ) from None
    if not paths:
        endings = ", ".join(SCAN_FORMATS)
        raise DatasetError(f"Data {shown} does not exist, or holds no file that ends in {endings}. Nothing was read.")
    return [
        DataFile(
            name,
            name if local else f"{shown} ({PurePosixPath(name).name})",
            _format_of(name, name),
            None if local else filesystem,
            is_packed=is_gzip(name),
        )
        for name in sorted(paths)
    ]


def _is_data(path: str, folder: str) -> bool:
    """Whether a file of a folder is data; names that begin with ``_`` or ``.`` are notes of other programs."""
    inside = PurePosixPath(path).parts[len(PurePosixPath(folder).parts) :]
    hidden = any(part.startswith((".", "_")) for part in inside)
    return not hidden and ending_of(path) in SCAN_FORMATS


def _format_of(name: str, shown: str) -> str:
    ending = ending_of(name)
    if ending not in SCAN_FORMATS:
        raise DatasetError(
            f"Data {shown} ends in {ending!r}; readable are {', '.join(SCAN_FORMATS)}. Nothing was read."
        )
    return SCAN_FORMATS[ending]


@contextlib.contextmanager
def _readable(file: DataFile) -> Iterator[None]:
    """Turn what readers raise into an error that names the file."""
    try:
        yield
    except ModelControlPlaneError:
        raise
    except Exception as error:  # Arrow, codecs and file systems each raise their own kinds
        raise DatasetError(
            f"Data {file.shown} is not readable as {file.format}: {type(error).__name__}: "
            f"{_one_line(error, file.path).rstrip('.')}. Nothing was compared."
        ) from None


def _one_line(error: Exception, secret: str) -> str:
    return " ".join(str(error).replace(secret, public_uri(secret)).split())[:300]


# --- formats ----------------------------------------------------------------------------------------------------------


def _column_names(file: DataFile) -> list[str]:
    if file.format == "parquet":
        with _parquet(file) as data:
            return _once(data.schema_arrow.names, file)
    if file.format == "arrow":
        with file.opened() as stream:
            return _once(_arrow_reader(stream).schema.names, file)
    if file.format == "csv":
        with file.opened() as stream:
            return _once(csv_and_jsonl.csv_header(stream), file)
    first = next(_json_batches(file, None), None)
    return first.schema.names if first is not None else []


def _once(names: list[str], file: DataFile) -> list[str]:
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DatasetError(
            f"Data {file.shown} has more than one column named {', '.join(map(repr, repeated))}; names must differ. "
            "Nothing was read."
        )
    return names


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
            # Rows of which no column is wanted still count.
            names = data.schema_arrow.names[:1]
        for group in range(data.num_row_groups):  # one at a time, so that what was read is given back
            yield from data.iter_batches(batch_size=batch_rows(len(names)), row_groups=[group], columns=names)


def batch_rows(columns: int) -> int:
    """Give a number of rows that keeps a batch of so many columns small."""
    return max(_MIN_BATCH_ROWS, min(_MAX_BATCH_ROWS, _BATCH_BYTES // (8 * max(columns, 1))))


def _has_footer(file: DataFile) -> bool:
    """Whether a file is of Arrow's file format, which says where each column is."""
    with _readable(file), file.opened() as stream:
        return isinstance(_arrow_reader(stream), pa.ipc.RecordBatchFileReader)


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


def _csv_batches(file: DataFile, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        names = _once(csv_and_jsonl.csv_header(stream), file)
        for block in csv_and_jsonl.csv_blocks(stream):
            yield from csv_and_jsonl.parse_csv(io.BytesIO(block), names, columns).to_batches(_MAX_BATCH_ROWS)


def _json_batches(file: DataFile, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with file.opened() as stream:
        for table in csv_and_jsonl.json_tables(stream, file.shown):
            wanted = [name for name in table.schema.names if columns is None or name in columns]
            kept = table.select(wanted or table.schema.names[:1])
            yield from kept.combine_chunks().to_batches(_MAX_BATCH_ROWS)


_READERS = {
    "parquet": _parquet_batches,
    "arrow": _arrow_batches,
    "csv": _csv_batches,
    "jsonl": _json_batches,
}
