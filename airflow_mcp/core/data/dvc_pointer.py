"""Read the files that DVC writes into Git, and find the content in a DVC remote."""

from __future__ import annotations

import configparser
import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from airflow_mcp.exceptions import SourceError

DVC_CONFIG = ".dvc/config"
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class TrackedOutput:
    """A file or folder as a ``.dvc`` file or ``dvc.lock`` records it."""

    hash: str
    """As DVC writes it; that of a folder ends in ``.dir``."""
    size: int | None = None
    """Bytes of all its files."""
    is_legacy: bool = False
    """Whether DVC before 3.0 recorded it: it ignores line ends of text, and its remote has another layout."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.hash.endswith(".dir")

    @property
    def pinned_hash(self) -> str:
        """The hash as a pin records it; empty when it is not a hash of the bytes."""
        return f"md5:{self.hash}" if _MD5.fullmatch(self.hash) and not self.is_legacy else ""

    def object_path(self, md5: str = "") -> str:
        """Return the path of the content in the remote; empty when it is not stored by its MD5.

        :param md5: hash of one file of the folder; empty for this output itself.
        """
        found = md5 or self.hash
        if not _MD5.fullmatch(found):
            return ""
        path = f"{found[:2]}/{found[2:]}"
        return path if self.is_legacy else f"files/md5/{path}"


def pointer_files(path: str) -> Iterator[str]:
    """Return the files that may record the version of a path, nearest first.

    :param path: tracked file or folder, relative to the repository.
    """
    yield f"{path}.dvc"
    for folder in PurePosixPath(path).parents:
        yield str(folder / "dvc.lock")


def tracked_output(text: bytes, pointer: str, path: str) -> TrackedOutput | None:
    """Read what a pointer file records about a path.

    :param text: content of the pointer file.
    :param pointer: its path, relative to the repository.
    :param path: tracked file or folder, relative to the repository.
    :return: None when the pointer does not mention the path.
    :raises SourceError: when DVC did not write the pointer.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise SourceError(
            f"{pointer} is not a file that DVC wrote: it is not valid YAML ({type(error).__name__})"
        ) from None
    if not isinstance(document, Mapping):
        raise SourceError(f"{pointer} is not a file that DVC wrote: it does not hold a mapping")
    folder = PurePosixPath(pointer).parent
    for out in _outputs(document):
        found = str(out.get("md5") or out.get("etag") or out.get("checksum") or "")
        if found and folder / str(out.get("path", "")) == PurePosixPath(path):
            size = out.get("size")
            is_legacy = bool(out.get("md5")) and out.get("hash") != "md5"
            return TrackedOutput(found, size if isinstance(size, int) else None, is_legacy)
    return None


def _outputs(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    stages = document.get("stages")
    for stage in (document, *(stages.values() if isinstance(stages, Mapping) else ())):
        outs = stage.get("outs") if isinstance(stage, Mapping) else None
        yield from (out for out in (outs if isinstance(outs, list) else ()) if isinstance(out, Mapping))


def remote_url(config: bytes, name: str = "") -> str:
    """Find the address of a DVC remote in ``.dvc/config``.

    :param config: text of the file.
    :param name: name of the remote; empty for the repository's default.
    :return: a URL or an absolute path.
    :raises SourceError: when there is no such remote, or its address is relative: that folder exists only on the
        machine that wrote the file.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(config.decode())
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{DVC_CONFIG} cannot be read: {type(error).__name__}") from None
    remotes = {section.strip("'").removeprefix("remote ").strip('"'): section for section in parser.sections()}
    wanted = name or parser.get("core", "remote", fallback="")
    url = parser.get(remotes[wanted], "url", fallback="") if wanted in remotes and wanted != "core" else ""
    if not url:
        known = ", ".join(sorted(remotes.keys() - {"core"})) or "none"
        raise SourceError(
            f"{DVC_CONFIG} has no remote {wanted or '(no default is set)'!r} with a url. Known remotes: {known}"
        )
    if not urlsplit(url).scheme and not posixpath.isabs(url):
        raise SourceError(
            f"the DVC remote {wanted!r} has the relative address {url!r}, which exists only on the machine that wrote "
            "it. Set a URL or an absolute path with dvc remote modify"
        )
    return url


def read_folder(text: bytes, where: str) -> dict[str, str]:
    """Read the list of files that DVC stores for a folder.

    :param text: content of the object ``….dir``.
    :param where: address of the object, for the message.
    :return: MD5 of each file, by its path relative to the folder.
    :raises SourceError: when it is not such a list.
    """
    try:
        entries = json.loads(text)
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (ValueError, TypeError, KeyError):
        raise SourceError(f"{where} is not the list of a folder that DVC wrote") from None


def folder_hash(files: Mapping[str, str]) -> str:
    """Hash a folder as DVC does: the MD5 of the sorted list of its files and their MD5s.

    :param files: MD5 of each file, by its path relative to the folder.
    :return: ``<hex>.dir``.
    """
    entries = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    text = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(text, usedforsecurity=False).hexdigest()}.dir"
