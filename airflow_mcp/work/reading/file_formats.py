"""Which file formats are read, by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

FORMATS: Mapping[str, str] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv.gz": "csv",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
}
"""Ending of a file name to its format, for datasets that are read whole. To read another format, add its ending here,
read it in :mod:`.dataset_frame`, and in ``BATCH_READERS`` of :mod:`.batch_readers`."""
BATCH_FORMATS: Mapping[str, str] = {**FORMATS, ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
"""The same for datasets that are read batch by batch."""
REQUEST_LOG_FORMATS: Mapping[str, str] = {ending: name for ending, name in FORMATS.items() if name != "csv"}
"""The same for logged requests; CSV does not keep the types of values."""


GLOB = frozenset("*?[")
"""Signs that make an address a glob."""


def ending_of(name: str) -> str:
    """Return the ending of a file name in lower case; ``.gz`` includes the ending before it, as in ``.csv.gz``."""
    endings = [ending.lower() for ending in PurePosixPath(name).suffixes[-2:]]
    return "".join(endings if is_gzip(name) else endings[-1:])


def is_gzip(name: str) -> bool:
    """Return whether a file of this name is compressed with gzip."""
    return name.lower().endswith(".gz")


def is_hidden(parts: Sequence[str]) -> bool:
    """Return whether a file, or a folder that it is in, belongs to another program: a name begins with ``_`` or ``.``.

    :param parts: names of the folders and the file, below the folder that was asked for.
    """
    return any(part.startswith((".", "_")) for part in parts)


def below_glob(path: str, pattern: str) -> tuple[str, ...]:
    """Return the parts of a path that a glob has found by its signs: the folders before the first sign were asked for.

    :param path: what was found.
    :param pattern: the glob, in the form of the file system.
    """
    parts = PurePosixPath(pattern).parts
    asked = next((number for number, part in enumerate(parts) if GLOB & set(part)), len(parts))
    return PurePosixPath(path).parts[asked:]
