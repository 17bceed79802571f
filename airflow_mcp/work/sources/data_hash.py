"""Hashes of local data: SHA-256 or MD5 of a file, DVC's hash of a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from airflow_mcp.core.data.dataset import public_uri, repository_data
from airflow_mcp.core.data.dvc_pointer import folder_hash
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError

CHUNK_BYTES = 1 << 20
"""1 MiB, read at a time."""


def data_hash(path: Path, pin: DatasetPin) -> str:
    """Hash a file, or a folder that DVC tracks, with the algorithm of the pinned hash.

    :param path: file or folder.
    :param pin: the pinned dataset; decides the algorithm.
    :raises DatasetError: when the data is unreadable, empty, or a folder that was not pinned by its hash.
    """
    if path.is_dir():
        return _folder_hash(path, pin)
    try:
        with path.open("rb") as stream:
            digest, size = stream_hash(stream, hash_algorithm(pin))
    except OSError as error:
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} cannot be read: {error.strerror}. The data was not used"
        ) from None
    if size == 0:
        raise DatasetError(f"dataset {public_uri(pin.uri)} is empty (0 bytes). The data was not used")
    return digest


def hash_algorithm(pin: DatasetPin) -> str:
    """Return the algorithm of the pinned hash; SHA-256 if there is none."""
    return "md5" if pin.hash.startswith("md5:") else "sha256"


def _folder_hash(folder: Path, pin: DatasetPin) -> str:
    """Hash a folder as DVC does; refuse one that neither was pinned by such a hash nor comes from DVC."""
    if not pin.hash.endswith(".dir") and repository_data(pin.uri) is None:
        raise DatasetError(f"dataset {public_uri(pin.uri)} is a folder; one file is needed. The data was not used")
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                hashes[path.relative_to(folder).as_posix()] = stream_hash(stream, "md5")[0].removeprefix("md5:")
    if not hashes:
        raise DatasetError(f"dataset {public_uri(pin.uri)} is a folder without files. The data was not used")
    return f"md5:{folder_hash(hashes)}"


def stream_hash(stream: IO[bytes], algorithm: str) -> tuple[str, int]:
    """Hash a stream to its end.

    :param stream: the stream.
    :param algorithm: ``sha256`` or ``md5``.
    :return: ``<algorithm>:<hex>`` and the number of bytes.
    """
    digest, size = hashlib.new(algorithm, usedforsecurity=False), 0
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return f"{algorithm}:{digest.hexdigest()}", size
