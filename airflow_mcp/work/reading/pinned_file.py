"""The file of a pinned dataset: fetched if it is remote, and hashed before it is used."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airflow_mcp.core.data.dataset import data_file_name, public_uri, repository_data
from airflow_mcp.core.data.object_version import is_object_version, object_version
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.sources.data_hash import CHUNK_BYTES, data_hash, hash_algorithm

_HASH_PATTERN = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}(\.dir)?")


@contextlib.contextmanager
def verified_file(pin: DatasetPin) -> Iterator[tuple[Path, DatasetPin]]:
    """Return the pinned data as a local file with the pinned hash, or as a folder that DVC tracks.

    A remote file is copied to a temporary folder first, so that the bytes that are read are those that were hashed.

    :param pin: the dataset; when it has no hash, the hash is only computed.
    :return: local path, and the pin with its hash and without credentials in its URI.
    :raises DatasetError: when the data is missing, unreadable, empty, a folder that was not pinned by its hash, or not
        the data that was pinned.
    """
    if pin.hash and not _HASH_PATTERN.fullmatch(pin.hash):
        raise DatasetError(
            f"the hash of dataset {public_uri(pin.uri)} must be 'sha256:<64 hex digits>', 'md5:<32 hex digits>', or "
            f"'md5:<32 hex digits>.dir' for a folder; got {pin.hash!r}. The data was not used"
        )
    with tempfile.TemporaryDirectory(prefix="airflow-mcp-data-") as folder:
        path, known = _local_path(pin.uri), ""
        if path is None and repository_data(pin.uri) is not None:
            path, known = _of_repository(pin, Path(folder))
        path = path or _fetch(pin, Path(folder))
        used = pin.model_copy(update={"uri": public_uri(pin.uri), "hash": known or data_hash(path, pin)})
        if pin.hash and used.hash != pin.hash:
            raise DatasetError(
                f"dataset {public_uri(pin.uri)} is not the one that was pinned: expected {pin.hash}, "
                f"found {used.hash}. The data was not used; pin the new version, or restore the old file"
            )
        yield path, used


def _local_path(uri: str) -> Path | None:
    """Return the local path of a URI; None when it is remote."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def _of_repository(pin: DatasetPin, folder: Path) -> tuple[Path, str]:
    """Fetch data that DVC or Git LFS tracks; also return its hash if it was checked with the wanted algorithm."""
    from airflow_mcp.work.sources.repository_data import fetch_data  # noqa: PLC0415  (few datasets need Git)

    path = folder / data_file_name(pin.uri)
    known = fetch_data(pin.uri, path, os.environ)
    return path, known if path.is_dir() or known.startswith(f"{hash_algorithm(pin)}:") else ""


def _fetch(pin: DatasetPin, folder: Path) -> Path:
    """Copy a remote file with fsspec, which takes credentials of stores from its environment."""
    uri = pin.uri
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(
            f"dataset {public_uri(uri)} is remote and fsspec is not installed: pip install airflow-mcp[runtime]. "
            "The data was not used"
        ) from None
    target = folder / (data_file_name(uri) or "data")
    try:
        files, path = fsspec.core.url_to_fs(uri)
        with files.open(path, "rb") as source, target.open("wb") as copy:
            while chunk := source.read(CHUNK_BYTES):
                copy.write(chunk)
        files.invalidate_cache()  # ask the store again: the file may have been replaced while it was copied
        now = object_version(files.info(path)) if is_object_version(pin.version) else pin.version
    except Exception as error:  # every store's client raises errors of its own
        raise DatasetError(
            f"dataset {public_uri(uri)} cannot be fetched: {_error_text(error, uri)}. The data was not used"
        ) from None
    if now != pin.version:
        raise DatasetError(
            f"dataset {public_uri(uri)} is not the one that was pinned: expected {pin.version}, its store has "
            f"{now or 'no version of it'}. The data was not used; pin the new version"
        )
    return target


def _error_text(error: Exception, uri: str) -> str:
    """Return the text of an error, or only its type if the address has credentials: clients may show them escaped."""
    name = type(error).__name__
    if public_uri(uri) != uri:
        return f"{name} {getattr(error, 'status', '')}".rstrip()
    return f"{name}: {error}"
