"""Read the pointers that Git LFS writes into Git in place of files, and find the server with their content.

The format of pointers and the batch API follow the Git LFS specification, version 1.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_mcp.exceptions import SourceError

LFS_CONFIG = ".lfsconfig"
MAX_POINTER_BYTES = 1024
"""Limit of the specification: a larger file is not a pointer."""
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)


@dataclass(frozen=True)
class LfsPointer:
    """The pointer to a file whose content Git LFS keeps."""

    oid: str
    """SHA-256 of the content, in hexadecimal."""
    size: int
    """Bytes."""

    @property
    def pinned_hash(self) -> str:
        """The hash as a pin records it."""
        return f"sha256:{self.oid}"

    @property
    def object_path(self) -> str:
        """Path of the content below the folder ``lfs/objects`` of a repository."""
        return f"{self.oid[:2]}/{self.oid[2:4]}/{self.oid}"


def read_pointer(text: bytes) -> LfsPointer | None:
    """Read a pointer; None when the text is not a pointer of Git LFS."""
    found = _POINTER.fullmatch(text) if len(text) < MAX_POINTER_BYTES else None
    return LfsPointer(found[1].decode(), int(found[2])) if found else None


def lfs_url(repo: str, config: bytes | None) -> str:
    """Find the address of the LFS server of a repository.

    :param repo: address of the repository.
    :param config: text of its ``.lfsconfig``; None when there is none.
    :return: ``lfs.url`` of the file, or the default ``<repository>.git/info/lfs``. For a repository on a disk the
        address of the repository, which holds the objects.
    :raises SourceError: when ``.lfsconfig`` cannot be read.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string("\n".join(line.strip() for line in (config or b"").decode().splitlines()))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{LFS_CONFIG} of {repo} cannot be read: {type(error).__name__}") from None
    given = parser.get("lfs", "url", fallback="")
    if given:
        return given.rstrip("/")
    if urlsplit(repo).scheme not in ("http", "https"):
        return repo
    return f"{repo.rstrip('/').removesuffix('.git')}.git/info/lfs"
