"""Logged requests: finds the newest ones and streams them from many files in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.exceptions import DatasetError, FailedError
from airflow_mcp.work.reading.csv_and_jsonl import json_object
from airflow_mcp.work.reading.dataset_frame import with_numbers
from airflow_mcp.work.reading.file_formats import GLOB, REQUEST_LOG_FORMATS, below_glob, ending_of, is_gzip, is_hidden

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
CHUNK_ROWS = 10_000
"""Requests in memory at a time; also how many a model predicts per call."""


class Chunk(NamedTuple):
    """Consecutive requests."""

    frame: pd.DataFrame
    """One row per request; without values where the request is not readable."""
    readable: NDArray[np.bool_]
    """Whether each request is readable; shape (rows,)."""


class RequestSelection(NamedTuple):
    """The newest requests, as a first pass over the files found them."""

    available: int
    """Requests in all files."""
    taken: int
    """Requests selected."""
    undated: int
    """Requests without a time; never selected if there is a column of times."""
    by_file: tuple[int, ...]
    """Requests in each file, to notice a file that changes between the passes."""
    skipped: int = 0
    """Requests to skip from the start: of all requests, or with a column of times, of those at the very cutoff."""
    cutoff: float | None = None
    """Time of the oldest selected request; None without a column of times, when the order of files counts."""


class RequestLog:
    """Files of logged requests.

    :param uri: file, folder or glob, as a path or a URL of fsspec.
    :param timestamp_column: column with the time of each request; empty uses the order of files and rows.
    :param role_column: column with the role of the version that answered; empty reads all requests.
    :param roles: roles whose requests are read; the log is as if it had no others.
    :raises DatasetError: when there is no readable file.
    """

    def __init__(
        self, uri: str, timestamp_column: str = "", role_column: str = "", roles: Collection[str] = ()
    ) -> None:
        self.uri, self._timestamp_column = uri, timestamp_column
        self._role_column, self._roles = role_column, list(roles)
        self._fs, self._paths = self._find()

    @property
    def files(self) -> int:
        """Number of files."""
        return len(self._paths)

    def columns(self) -> list[str]:
        """Return the columns of the newest file; empty when no request in it is readable.

        :raises DatasetError: when the file is not readable.
        """
        return [str(name) for chunk in islice(self._chunks(self._paths[-1]), 1) for name in chunk.frame.columns]

    def select(self, last: int) -> RequestSelection:
        """Find the newest requests in a first pass, which reads only times and keeps at most ``last`` of them.

        :param last: number of requests.
        :raises DatasetError: when a file is not readable, or the column of times is missing.
        """
        counts, undated = [], 0
        newest: NDArray[Any] = np.empty(0)
        ties = 0
        for path in self._paths:
            counts.append(0)
            for chunk in self._chunks(
                path, only=[name for name in (self._timestamp_column, self._role_column) if name]
            ):
                counts[-1] += len(chunk.frame)
                if self._timestamp_column:
                    times = self.times(chunk.frame)
                    undated += int(np.isnan(times).sum())
                    newest, ties = _newest(newest, ties, times[~np.isnan(times)], last)
        total = sum(counts)
        if not self._timestamp_column:
            return RequestSelection(total, min(last, total), 0, tuple(counts), skipped=max(0, total - last))
        taken = min(last, total - undated)
        if not taken:
            return RequestSelection(total, 0, undated, tuple(counts), cutoff=np.inf)
        cutoff = float(newest.min())
        skipped = ties - int((newest == cutoff).sum())
        return RequestSelection(total, taken, undated, tuple(counts), skipped=skipped, cutoff=cutoff)

    def read(self, selection: RequestSelection) -> Iterator[Chunk]:
        """Yield the selected requests in the order of files, in a second pass.

        :param selection: result of :meth:`select`.
        :raises FailedError: when a file has changed since then.
        """
        to_skip = selection.skipped
        for path, expected in zip(self._paths, selection.by_file, strict=True):
            seen = 0
            for chunk in self._chunks(path):
                seen += len(chunk.frame)
                if selection.cutoff is None:
                    wanted = np.arange(len(chunk.frame)) >= to_skip
                    to_skip = max(0, to_skip - len(chunk.frame))
                else:
                    wanted, to_skip = _not_older(self.times(chunk.frame), selection.cutoff, to_skip)
                if wanted.any():
                    yield Chunk(chunk.frame[wanted].reset_index(drop=True), chunk.readable[wanted])
            if seen != expected:
                raise FailedError(
                    f"{public_uri(path)} changed while it was read: it had {expected} requests and now has {seen}. "
                    "Nothing was recorded; a retry reads it again"
                )

    def times(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Return the times of requests in seconds; NaN where there is none.

        :param frame: requests.
        :raises DatasetError: when the column is missing.
        """
        if not len(frame.columns):
            return np.full(len(frame), np.nan)  # no line of the chunk is readable
        if self._timestamp_column not in frame.columns:
            raise DatasetError(
                f"the logged requests in {public_uri(self.uri)} have no column {self._timestamp_column!r}, needed as "
                f"timestamp_column; they have {', '.join(map(repr, frame.columns[:30]))}. Nothing was replayed"
            )
        return self.seconds(frame[self._timestamp_column])

    @staticmethod
    def seconds(column: pd.Series[Any]) -> NDArray[Any]:
        """Return times in seconds, and numbers unchanged; NaN for anything else.

        Each value counts for itself, whatever the other values of its chunk are.

        :param column: times, ISO 8601 texts or numbers.
        """
        import pandas as pd  # noqa: PLC0415

        if column.dtype.kind in "iuf":
            given = column.to_numpy(dtype=float, na_value=np.nan)
            return np.where(np.isfinite(given), given, np.nan)
        numbers = np.array([_plain_number(value) for value in column]) if column.dtype == object else None
        others = column if numbers is None else column.where(np.isnan(numbers), None)
        text_format = None if column.dtype.kind == "M" else "ISO8601"
        parsed = pd.to_datetime(others, utc=True, errors="coerce", format=text_format)
        seconds: NDArray[Any] = (parsed - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=float)
        return seconds if numbers is None else np.where(np.isnan(numbers), seconds, numbers)

    def _find(self) -> tuple[Any, list[str]]:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

        try:
            fs, path = fsspec.core.url_to_fs(self.uri)
            hint, outside = "", -1
            if GLOB & set(path):
                matches = fs.glob(path)
                found = [
                    name for name in matches if not fs.isdir(name) and not is_hidden(below_glob(str(name), path)[:-1])
                ]
                hint = f": the glob matches folders; their files match {public_uri(self.uri)}/*" if matches else ""
            elif fs.isdir(path):
                found, outside = fs.find(path), len(PurePosixPath(path).parts)
            else:
                found = [path] if fs.exists(path) else []
        except (OSError, ValueError, ImportError) as error:
            raise DatasetError(
                f"the logged requests in {public_uri(self.uri)} cannot be listed: {type(error).__name__}: "
                f"{str(error).replace(self.uri, public_uri(self.uri))}. Nothing was replayed"
            ) from None
        paths = sorted(str(name) for name in found if not is_hidden(PurePosixPath(str(name)).parts[outside:]))
        unknown = [name for name in paths if ending_of(name) not in REQUEST_LOG_FORMATS]
        if unknown or not paths:
            what = f"files of other formats: {', '.join(map(public_uri, unknown[:5]))}" if unknown else f"no file{hint}"
            raise DatasetError(
                f"{public_uri(self.uri)} must be a file, folder or glob of {', '.join(REQUEST_LOG_FORMATS)}; "
                f"got {what}. Nothing was replayed"
            )
        return fs, paths

    def _chunks(self, path: str, only: Sequence[str] | None = None) -> Iterator[Chunk]:
        """Read the requests of a file that are wanted.

        :param only: the only columns needed, empty to count requests; Parquet then reads no others. None reads all.
        """
        try:
            with self._fs.open(path, "rb", compression="gzip" if is_gzip(path) else None) as stream:
                is_parquet = REQUEST_LOG_FORMATS[ending_of(path)] == "parquet"
                for chunk in _read_parquet(stream, only) if is_parquet else _read_json_lines(stream):
                    yield self._of_roles(chunk) if self._role_column else chunk
        except (OSError, ValueError, EOFError) as error:  # pyarrow's errors are ValueErrors
            reason = str(error).splitlines()[0] if str(error) else ""
            raise DatasetError(
                f"{public_uri(path)} is not readable: {type(error).__name__}: {reason}. Nothing was recorded"
            ) from None

    def _of_roles(self, chunk: Chunk) -> Chunk:
        """Return the requests of the roles, and those that are not readable, which are counted as such."""
        if not len(chunk.frame.columns):
            return chunk
        if self._role_column not in chunk.frame.columns:
            raise DatasetError(
                f"the logged requests in {public_uri(self.uri)} have no column {self._role_column!r}, which says who "
                "answered. Nothing was read"
            )
        wanted = chunk.frame[self._role_column].isin(self._roles).to_numpy() | ~chunk.readable
        return Chunk(chunk.frame[wanted].reset_index(drop=True), chunk.readable[wanted])


def _read_parquet(stream: IO[bytes], only: Sequence[str] | None) -> Iterator[Chunk]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = pq.ParquetFile(stream)
    columns = None
    if only is not None:
        present = file.schema_arrow.empty_table().to_pandas().columns  # without columns that pandas makes its index
        columns = list(only) if set(only) <= set(present) else None  # all, for the message about a missing one
    for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
        # Whole numbers stay whole where a chunk has missing values, so that 7 is not 7.0 in some chunks only.
        frame = with_numbers(batch.to_pandas(integer_object_nulls=True))
        yield Chunk(frame, np.ones(len(frame), dtype=bool))


def _read_json_lines(stream: IO[bytes]) -> Iterator[Chunk]:
    import pandas as pd  # noqa: PLC0415

    lines = (line for line in stream if line.strip())
    while block := list(islice(lines, CHUNK_ROWS)):
        records = [_record(line) for line in block]
        readable = np.array([record is not None for record in records])
        # Objects are the values of JSON as they are; other types would follow from what else is in the chunk.
        yield Chunk(pd.DataFrame([record or {} for record in records], dtype=object), readable)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        return json_object(line)
    except ValueError:
        return None


def _plain_number(value: Any) -> float:
    """Return a finite number; NaN for a flag, a text or any other value."""
    try:
        number = float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else np.nan
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _newest(newest: NDArray[Any], ties: int, times: NDArray[Any], last: int) -> tuple[NDArray[Any], int]:
    """Keep the ``last`` latest times, and count all requests that have the earliest of these times, kept or not.

    :param newest: times kept so far.
    :param ties: requests seen so far that have the earliest of these.
    :param times: times of further requests.
    """
    before = newest.min() if len(newest) >= last else -np.inf
    merged = np.concatenate([newest, times])
    if len(merged) > last:
        merged = np.partition(merged, len(merged) - last)[len(merged) - last :]
    cutoff = merged.min() if len(merged) else -np.inf
    if cutoff == before:
        return merged, ties + int((times == cutoff).sum())
    return merged, int((newest == cutoff).sum() + (times == cutoff).sum())


def _not_older(times: NDArray[Any], cutoff: float, to_skip: int) -> tuple[NDArray[Any], int]:
    """Return which requests are at or after the cutoff, without the first ``to_skip`` at the cutoff itself."""
    wanted = times >= cutoff
    tied = np.flatnonzero(times == cutoff)
    wanted[tied[:to_skip]] = False
    return wanted, max(0, to_skip - len(tied))
