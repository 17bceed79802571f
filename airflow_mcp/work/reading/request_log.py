"""Logged requests: the newest of them, streamed from many files in bounded memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.exceptions import DatasetError, FailedError
from airflow_mcp.work.reading.dataset_frame import is_gzip

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
CHUNK_ROWS = 10_000
_PARQUET, _JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson")
Array = np.ndarray[Any, Any]


class Chunk(NamedTuple):
    """Some consecutive requests."""

    frame: pd.DataFrame
    """One line per request; empty where it is not readable."""
    readable: Array
    """Boolean, shape (rows,)."""


class RequestSelection(NamedTuple):
    """Which requests are the newest ones."""

    available: int
    taken: int
    undated: int
    by_file: tuple[int, ...]
    """Requests in each file, to notice a file that changes while it is read."""
    skipped: int = 0
    """In the order of files: requests that are too old. Of requests of one time: how many of the earlier ones."""
    cutoff: float | None = None
    """Time of the oldest one taken; None when the order of files counts."""


class RequestLog:
    """Files of logged requests.

    :param uri: file, folder or glob; a path or a URL of fsspec.
    :param timestamp_column: column with the time of each request; empty for the order of files and rows.
    :raises DatasetError: when there is no readable file.
    """

    def __init__(self, uri: str, timestamp_column: str = "") -> None:
        self.uri, self._timestamp_column = uri, timestamp_column
        self._fs, self._paths = self._find()

    @property
    def files(self) -> int:
        """Number of files."""
        return len(self._paths)

    def select(self, last: int) -> RequestSelection:
        """Find the newest requests: a first pass, which reads only the times and keeps no more than ``last`` of them.

        :param last: how many.
        :raises DatasetError: when a file is not readable, the column of times is missing, or holds no times.
        """
        counts, undated = [], 0
        newest: Array = np.empty(0)
        ties = 0
        for path in self._paths:
            counts.append(0)
            for chunk in self._chunks(path, only=self._timestamp_column):
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
        """Give the selected requests in the order of files: a second pass.

        :param selection: from :meth:`select`.
        :raises FailedError: when a file has changed since.
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
                    f"{public_uri(path)} had {expected} requests and has {seen} now: it changed while it was read. "
                    "Nothing was recorded; a retry reads it again."
                )

    def times(self, frame: pd.DataFrame) -> Array:
        """Give the times as seconds, NaN where there is none.

        :param frame: requests.
        :raises DatasetError: when the column is missing.
        """
        if not len(frame.columns):
            return np.full(len(frame), np.nan)  # not one line is readable
        if self._timestamp_column not in frame.columns:
            raise DatasetError(
                f"the logged requests in {public_uri(self.uri)} have no column {self._timestamp_column!r}, needed as "
                f"timestamp_column; they have {', '.join(map(repr, frame.columns[:30]))}. Nothing was replayed."
            )
        return self.seconds(frame[self._timestamp_column])

    @staticmethod
    def seconds(column: pd.Series[Any]) -> Array:
        """Give times as seconds, and numbers as they are; NaN where there is neither."""
        import pandas as pd  # noqa: PLC0415

        if column.dtype.kind in "iuf":
            return np.asarray(column.to_numpy(dtype=float))
        text_format = None if column.dtype.kind == "M" else "ISO8601"
        parsed = pd.to_datetime(column, utc=True, errors="coerce", format=text_format)
        seconds: Array = (parsed - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=float)
        return seconds

    def _find(self) -> tuple[Any, list[str]]:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

        try:
            fs, path = fsspec.core.url_to_fs(self.uri)
            if any(sign in path for sign in "*?["):
                found = [name for name in fs.glob(path) if not fs.isdir(name)]
            else:
                found = fs.find(path) if fs.isdir(path) else [path] if fs.exists(path) else []
        except (OSError, ValueError, ImportError) as error:
            raise DatasetError(
                f"the logged requests in {public_uri(self.uri)} cannot be listed: {type(error).__name__}: "
                f"{str(error).replace(self.uri, public_uri(self.uri))}. Nothing was replayed."
            ) from None
        paths = sorted(str(name) for name in found if not PurePosixPath(str(name)).name.startswith((".", "_")))
        strange = [name for name in paths if _ending(name) not in _PARQUET + _JSON_LINES]
        if strange or not paths:
            what = f"files that are not read: {', '.join(map(public_uri, strange[:5]))}" if strange else "no file"
            raise DatasetError(
                f"{public_uri(self.uri)} has {what}; logged requests are files, folders or globs of "
                f"{', '.join(_PARQUET + _JSON_LINES)} (the latter also with .gz). Nothing was replayed."
            )
        return fs, paths

    def _chunks(self, path: str, only: str | None = None) -> Iterator[Chunk]:
        """Read a file.

        :param only: the only column needed, empty when only the number of requests is: Parquet spares the others.
        """
        try:
            with self._fs.open(path, "rb", compression="gzip" if is_gzip(path) else None) as stream:
                yield from _read_parquet(stream, only) if _ending(path) in _PARQUET else _read_json_lines(stream)
        except (OSError, ValueError, EOFError) as error:  # pyarrow's errors are ValueErrors
            reason = str(error).splitlines()[0] if str(error) else ""
            raise DatasetError(
                f"{public_uri(path)} is not readable: {type(error).__name__}: {reason}. Nothing was recorded."
            ) from None


def _ending(path: str) -> str:
    return PurePosixPath(path.lower().removesuffix(".gz")).suffix


def _read_parquet(stream: IO[bytes], only: str | None) -> Iterator[Chunk]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = pq.ParquetFile(stream)
    columns = None
    if only is not None:
        there = file.schema_arrow.empty_table().to_pandas().columns  # a column that is the index is none of them
        columns = [] if not only else [only] if only in there else None  # to refuse a missing one, name all
    for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
        frame = batch.to_pandas()
        yield Chunk(frame, np.ones(len(frame), dtype=bool))


def _read_json_lines(stream: IO[bytes]) -> Iterator[Chunk]:
    import pandas as pd  # noqa: PLC0415

    lines = (line for line in stream if line.strip())
    while block := list(islice(lines, CHUNK_ROWS)):
        records = [_record(line) for line in block]
        readable = np.array([record is not None for record in records])
        yield Chunk(pd.DataFrame([record or {} for record in records]), readable)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _newest(newest: Array, ties: int, times: Array, last: int) -> tuple[Array, int]:
    """Keep the ``last`` greatest times; count how many requests have the least of them, kept or not.

    :param newest: times kept so far.
    :param ties: how many requests had the least of these.
    :param times: times of more requests.
    """
    before = newest.min() if len(newest) >= last else -np.inf
    merged = np.concatenate([newest, times])
    if len(merged) > last:
        merged = np.partition(merged, len(merged) - last)[len(merged) - last :]
    cutoff = merged.min() if len(merged) else -np.inf
    if cutoff == before:
        return merged, ties + int((times == cutoff).sum())
    return merged, int((newest == cutoff).sum() + (times == cutoff).sum())


def _not_older(times: Array, cutoff: float, to_skip: int) -> tuple[Array, int]:
    """Say which requests are at or after the cutoff, and leave out the first ones of the very cutoff."""
    wanted = times >= cutoff
    tied = np.flatnonzero(times == cutoff)
    wanted[tied[:to_skip]] = False
    return wanted, max(0, to_skip - len(tied))
