"""Datasets of any size, read batch by batch: files, folders, globs and object stores."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

import pyarrow as pa

from airflow_mcp.core.data.dataset import data_file_name, public_uri, repository_data
from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.batch_readers import DataFile, Wanted, batches_of, column_names, has_footer, readable
from airflow_mcp.work.reading.file_formats import BATCH_FORMATS, GLOB, below_glob, ending_of, is_gzip, is_hidden
from airflow_mcp.work.reading.pinned_file import verified_file
from airflow_mcp.work.run.mlflow_run import redacted

_log = logging.getLogger(__name__)
COLUMNS_AT_ONCE = 64
"""Columns that one pass over columnar data reads at most. Parquet is read by row groups, of which all columns that are
read are in memory together: 64 columns of a million doubles are 512 MB. More passes only cost more openings."""


class Scan(Protocol):
    """A dataset that can be read batch by batch, repeatedly."""

    @property
    def pins(self) -> tuple[DatasetPin, ...]:
        """The data, with hashes where they were verified and without credentials."""

    @property
    def is_columnar(self) -> bool:
        """Whether single columns can be read cheaply."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns, as far as they are known before reading."""

    def batches(self, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read batch by batch; the schema may differ between them.

        :param columns: columns to read; None reads all that are not ignored.
        """

    def reading(self, *, texts: Collection[str] = (), ignored: Collection[str] = ()) -> Self:
        """Return the same data, read in another way.

        :param texts: columns that stay text where a file stores text.
        :param ignored: columns that are not read.
        """


@dataclass(frozen=True)
class FileScan:
    """A dataset of files, read one after the other."""

    files: tuple[DataFile, ...]
    pins: tuple[DatasetPin, ...]
    wanted: Wanted = field(default_factory=Wanted)

    @cached_property
    def is_columnar(self) -> bool:
        """Whether single columns can be read cheaply: in Parquet and in Arrow's file format, but not in its streams."""
        return all(file.format == "parquet" or (file.format == "arrow" and has_footer(file)) for file in self.files)

    @cached_property
    def columns(self) -> Sequence[str]:
        """Names of the columns of all files that are not ignored, in the order of the files.

        For CSV they come from the header, for JSON Lines from the first block of lines: later lines may have more.
        """
        names: dict[str, None] = {}
        for file in self.files:
            with readable(file):
                names |= dict.fromkeys(column_names(file, self.wanted))
        return tuple(names)

    def batches(self, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read batch by batch, file by file.

        :param columns: columns to read; None reads all that are not ignored.
        :raises DatasetError: when a file cannot be read.
        """
        wanted = replace(self.wanted, columns=None if columns is None else frozenset(columns))
        for file in self.files:
            batches = batches_of(file, wanted)
            while True:
                with readable(file):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield batch

    def reading(self, *, texts: Collection[str] = (), ignored: Collection[str] = ()) -> FileScan:
        """Return the same data, read in another way.

        :param texts: columns that stay text where a file stores text.
        :param ignored: columns that are not read.
        """
        wanted = Wanted(None, self.wanted.ignored | frozenset(ignored), self.wanted.texts | frozenset(texts))
        return FileScan(self.files, self.pins, wanted)


def is_read_as_copy(pin: DatasetPin) -> bool:
    """Return whether data is fetched or verified as a whole before it is read."""
    return bool(pin.hash) or repository_data(pin.uri) is not None or pin.uri.startswith(("http://", "https://"))


@contextlib.contextmanager
def open_data(pins: Sequence[DatasetPin]) -> Iterator[FileScan]:
    """Find the files of a dataset and keep them readable.

    :param pins: each a file, a folder, a glob, an fsspec URL, data tracked by DVC or Git LFS, or a prediction log. A
        hash is verified; a pin without a hash stays without. A file on a web server is copied first, because not every
        server supports reading parts of a file.
    :raises DatasetError: when there is no file, or a file has an unknown format or not the pinned hash.
    """
    if not pins:
        raise DatasetError("data must name at least one file, folder, glob or URL; got none. Nothing was read")
    with contextlib.ExitStack() as kept:
        files: list[DataFile] = []
        used: list[DatasetPin] = []
        for given in pins:
            log = given if isinstance(given, LoggedRequests) else None
            pin = given if log is None else log.pin
            if is_read_as_copy(pin):
                path, verified = kept.enter_context(verified_file(pin))
                found = _found(str(path), verified.uri) if path.is_dir() else [_pinned(path, pin)]
                used.append(verified)
            else:
                found = _found(pin.uri, public_uri(pin.uri))
                used.append(pin.model_copy(update={"uri": public_uri(pin.uri)}))
            files += [replace(file, requests=log) for file in found]
        _log.info("data: %d files from %s", len(files), ", ".join(pin.uri for pin in used))
        yield FileScan(tuple(files), tuple(used))


def _pinned(path: Path, pin: DatasetPin) -> DataFile:
    """Return a verified file. Its format follows from the address: a copy of a remote file may have another name."""
    shown = public_uri(pin.uri)
    name = data_file_name(pin.uri)
    return DataFile(str(path), shown, _format_of(name, shown), is_gzip=is_gzip(name))


def _found(uri: str, shown: str) -> list[DataFile]:
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(
            f"data {shown} cannot be found without fsspec: pip install airflow-mcp[runtime]. Nothing was read"
        ) from None
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        hint = ""
        if GLOB & set(path) and not filesystem.exists(path):
            found = filesystem.glob(path)
            # Names that a glob spells out are read; folders that it only passes through may be hidden.
            seen = [name for name in found if not is_hidden(below_glob(name, path)[:-1])]
            paths = [name for name in seen if filesystem.isfile(name)]
            hint = _left_out(sorted(set(seen) - set(paths)), f"folders, whose files match {shown}/*")
        elif filesystem.isdir(path):
            found = filesystem.find(path)
            paths = [name for name in found if _is_data(name, path)]
            others = [name for name in set(found) - set(paths) if not is_hidden(_inside(name, path))]
            hint = _left_out(others, "files of other formats")
        else:
            paths = [path] if filesystem.exists(path) else []
        local = "file" in filesystem.protocol if isinstance(filesystem.protocol, tuple) else False
    except Exception as error:  # every file system raises errors of its own
        raise DatasetError(
            f"data {shown} cannot be found: {type(error).__name__}: {redacted(error, 300, uri)}. Nothing was read"
        ) from None
    if not paths:
        endings = ", ".join(BATCH_FORMATS)
        raise DatasetError(
            f"data {shown} does not exist, or has no file that ends in {endings}.{hint} Nothing was read"
        )
    if hint:
        _log.warning("data %s:%s", shown, hint)
    return [
        DataFile(
            name,
            name if local else f"{shown} ({PurePosixPath(name).name})",
            _format_of(name, name),
            None if local else filesystem,
            is_gzip=is_gzip(name),
        )
        for name in sorted(paths)
    ]


def _is_data(path: str, folder: str) -> bool:
    """Return whether a file of a folder is data."""
    return not is_hidden(_inside(path, folder)) and ending_of(path) in BATCH_FORMATS


def _inside(path: str, folder: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts[len(PurePosixPath(folder).parts) :]


def _left_out(names: Sequence[str], what: str) -> str:
    """Return words about what a folder or glob has besides data; empty when there is nothing else."""
    if not names:
        return ""
    some = ", ".join(sorted(PurePosixPath(name).name for name in names)[:3])
    return f" Left out: {some}{' and more' * (len(names) > 3)} ({what})."


def _format_of(name: str, shown: str) -> str:
    ending = ending_of(name)
    if ending not in BATCH_FORMATS:
        raise DatasetError(
            f"the name of data {shown} must end in one of {', '.join(BATCH_FORMATS)}; got {ending!r}. Nothing was read"
        )
    return BATCH_FORMATS[ending]
