"""Pinned datasets: one file, hashed before it is used, read into a pandas DataFrame."""

from __future__ import annotations

import contextlib
import csv
import gzip
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mcp.core.data.dataset import data_file_name, public_uri, repository_data
from airflow_mcp.core.data.object_version import is_object_version, object_version
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.sources.data_hash import CHUNK_BYTES, data_hash, hash_algorithm

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
_HASH_PATTERN = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}(\.dir)?")
FORMATS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv.gz": "csv",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
}
"""File name endings that are read, and as what."""


def ending_of(name: str) -> str:
    """Give the ending of a file name in lower case, as :data:`FORMATS` has it: that of gzip with the one before it."""
    endings = [ending.lower() for ending in PurePosixPath(name).suffixes[-2:]]
    return "".join(endings if is_gzip(name) else endings[-1:])


def is_gzip(name: str) -> bool:
    """Say whether a file of this name is packed by gzip."""
    return name.lower().endswith(".gz")


@contextlib.contextmanager
def verified_file(pin: DatasetPin) -> Iterator[tuple[Path, DatasetPin]]:
    """Give the pinned data as a local file whose bytes have the pinned hash, or a folder that DVC tracks.

    A remote file is copied to a temporary folder first: the bytes that were hashed are the bytes that are read.

    :param pin: the dataset; with an empty hash nothing is compared and the hash is computed.
    :return: local path, and the pin with its hash set and without credentials in its URI.
    :raises DatasetError: when the data is missing, unreadable, empty, a folder that was not pinned by its hash, or is
        not what was pinned.
    """
    if pin.hash and not _HASH_PATTERN.fullmatch(pin.hash):
        raise DatasetError(
            f"Hash {pin.hash!r} of dataset {public_uri(pin.uri)} is not of the form 'sha256:<64 hex digits>' or "
            "'md5:<32 hex digits>', with '.dir' behind it for a folder. "
            "The data was not used."
        )
    with tempfile.TemporaryDirectory(prefix="airflow-mcp-data-") as folder:
        path, known = _local_path(pin.uri), ""
        if path is None and repository_data(pin.uri) is not None:
            path, known = _of_repository(pin, Path(folder))
        path = path or _fetch(pin, Path(folder))
        used = pin.model_copy(update={"uri": public_uri(pin.uri), "hash": known or data_hash(path, pin)})
        if pin.hash and used.hash != pin.hash:
            raise DatasetError(
                f"Dataset {public_uri(pin.uri)} is not the one that was pinned: expected {pin.hash}, "
                f"found {used.hash}. The data was not used; pin the new version, or restore the old file."
            )
        yield path, used


def load_dataset(pin: DatasetPin, text_columns: Collection[str] = ()) -> tuple[pd.DataFrame, DatasetPin]:
    """Read a pinned dataset.

    :param pin: the dataset: CSV with a header line, Parquet, or JSON Lines, by the ending of its name.
    :param text_columns: columns of a CSV file to read as text, so that ``007`` stays ``007``.
    :return: the rows with a fresh index 0…n-1, and the pin with its hash set.
    :raises DatasetError: see :func:`verified_file`; also for an unknown ending, broken content, no rows, no columns,
        or a column name that occurs twice.
    """
    file_format = _format_of(pin)
    with verified_file(pin) as (path, used):
        frame = _read(path, file_format, used, text_columns)
    if frame.shape[1] == 0 or frame.shape[0] == 0:
        raise DatasetError(
            f"Dataset {public_uri(pin.uri)} has {frame.shape[0]} rows and {frame.shape[1]} columns; at least one of "
            "each is needed. Nothing was measured."
        )
    frame.columns = [str(name) for name in frame.columns]
    _refuse_duplicates(list(frame.columns), used)
    _log.info("dataset %s: %d rows, %d columns, %s", public_uri(used.uri), *frame.shape, used.hash)
    return frame.reset_index(drop=True), used


def require_columns(frame: pd.DataFrame, names: Collection[str], purpose: str) -> None:
    """Refuse a dataset that lacks columns.

    :param names: columns needed.
    :param purpose: what they are needed for, for the message.
    :raises DatasetError: naming every absent column and those present.
    """
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise DatasetError(
            f"Dataset has no column {', '.join(map(repr, absent))}, needed as {purpose}; it has "
            f"{_shortened(list(frame.columns))}. Nothing was measured."
        )


def _local_path(uri: str) -> Path | None:
    """Local path of a URI; None when it is remote."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def _of_repository(pin: DatasetPin, folder: Path) -> tuple[Path, str]:
    """Fetch data beside a repository; give its hash too where it was checked by the algorithm that is wanted."""
    from airflow_mcp.work.sources.repository_data import fetch_checked_data  # noqa: PLC0415  (few datasets need Git)

    path = folder / data_file_name(pin.uri)
    known = fetch_checked_data(pin.uri, path, os.environ)
    return path, known if path.is_dir() or known.startswith(f"{hash_algorithm(pin)}:") else ""


def _fetch(pin: DatasetPin, folder: Path) -> Path:
    """Copy remote data with fsspec; bucket credentials come from the pod, as for every fsspec user."""
    uri = pin.uri
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(
            f"Dataset {public_uri(uri)} is remote and fsspec is not installed: pip install airflow-mcp[runtime]. "
            "The data was not used."
        ) from None
    target = folder / (data_file_name(uri) or "data")
    try:
        files, path = fsspec.core.url_to_fs(uri)
        with files.open(path, "rb") as source, target.open("wb") as copy:
            while chunk := source.read(CHUNK_BYTES):
                copy.write(chunk)
        files.invalidate_cache()
        now = object_version(files.info(path)) if is_object_version(pin.version) else pin.version
    except Exception as error:  # every store's client has errors of its own
        raise DatasetError(
            f"Dataset {public_uri(uri)} cannot be fetched: {_said(error, uri)}. The data was not used."
        ) from None
    if now != pin.version:
        raise DatasetError(
            f"Dataset {public_uri(uri)} is not the one that was pinned: expected {pin.version}, its store has "
            f"{now or 'no version of it'}. The data was not used; pin the new version."
        )
    return target


def _said(error: Exception, uri: str) -> str:
    """Repeat an error, unless the address has credentials: a client may write them in a spelling of its own."""
    name = type(error).__name__
    if public_uri(uri) != uri:
        return f"{name} {getattr(error, 'status', '')}".rstrip()
    return f"{name}: {error}"


def _format_of(pin: DatasetPin) -> str:
    ending = ending_of(data_file_name(pin.uri))
    if ending not in FORMATS:
        raise DatasetError(
            f"Dataset {public_uri(pin.uri)} ends in {ending!r}; readable are {', '.join(FORMATS)}. "
            "Nothing was measured."
        )
    return FORMATS[ending]


def _read(path: Path, file_format: str, pin: DatasetPin, text_columns: Collection[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    try:
        if file_format == "parquet":
            return pd.read_parquet(path)
        compression: Any = "gzip" if is_gzip(data_file_name(pin.uri)) else None
        if file_format == "csv":
            header = _csv_header(path, gzip.open if compression else open)
            _refuse_duplicates(header, pin)
            types: dict[Any, Any] = {name: str for name in text_columns if name in header}
            return pd.read_csv(path, dtype=types, compression=compression)
        return pd.read_json(path, lines=True, compression=compression)
    except DatasetError:
        raise
    except Exception as error:  # pandas, pyarrow and codecs each raise their own kinds
        reason = str(error).splitlines()[0] if str(error) else ""
        raise DatasetError(
            f"Dataset {public_uri(pin.uri)} is not readable as {file_format}: {type(error).__name__}: {reason}. "
            "Nothing was measured."
        ) from None


def _csv_header(path: Path, opener: Callable[..., Any]) -> list[str]:
    """First row of a CSV file, before pandas renames repeated columns."""
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader(stream), [])


def _refuse_duplicates(names: list[str], pin: DatasetPin) -> None:
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DatasetError(
            f"Dataset {public_uri(pin.uri)} has more than one column named {', '.join(map(repr, repeated))}; names "
            "must differ. Nothing was measured."
        )


def _shortened(names: list[str], limit: int = 30) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
