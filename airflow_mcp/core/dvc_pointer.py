"""What DVC writes into Git about a file or folder that it tracks: its hash, in a ``.dvc`` file or in ``dvc.lock``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from airflow_mcp.exceptions import SourceError


def pointer_files(path: str) -> Iterator[str]:
    """Name the files that may say which version of a path is meant, nearest first.

    :param path: tracked file or folder, relative to the repository.
    """
    yield f"{path}.dvc"
    for folder in PurePosixPath(path).parents:
        yield str(folder / "dvc.lock")


def tracked_hash(text: bytes, pointer: str, path: str) -> str:
    """Read the hash of a path.

    :param text: content of the pointer file.
    :param pointer: its path, relative to the repository.
    :param path: tracked file or folder, relative to the repository.
    :return: the hash as DVC writes it (folders end in ``.dir``); empty when the pointer says nothing about the path.
    :raises SourceError: when the pointer is not what DVC writes.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise SourceError(f"{pointer} is no YAML that DVC wrote: {type(error).__name__}") from None
    if not isinstance(document, Mapping):
        raise SourceError(f"{pointer} is not what DVC writes: it holds no mapping")
    folder = PurePosixPath(pointer).parent
    for out in _outputs(document):
        if folder / str(out.get("path", "")) == PurePosixPath(path):
            return str(out.get("md5") or out.get("etag") or out.get("checksum") or "")
    return ""


def _outputs(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    stages = document.get("stages")
    for stage in (document, *(stages.values() if isinstance(stages, Mapping) else ())):
        outs = stage.get("outs") if isinstance(stage, Mapping) else None
        yield from (out for out in (outs if isinstance(outs, list) else ()) if isinstance(out, Mapping))
