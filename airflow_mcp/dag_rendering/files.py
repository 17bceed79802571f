"""Files for the loader: limited in size, inside one folder, and remembered so that a change is noticed."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path

from airflow_mcp.core.pipeline.file.document import MAX_BYTES, Node
from airflow_mcp.core.pipeline.file.pipeline import API_VERSION, KIND
from airflow_mcp.core.pipeline.file.policies import KINDS as POLICY_KINDS
from airflow_mcp.exceptions import PipelineSpecError, SpecProblem

_TRACES = (b"ModelPipeline", b"apiVersion", b"kind:", b"trainingScript")
_OTHER_KINDS = (*POLICY_KINDS, "GovernancePolicy")
"""Documents with the same ``apiVersion`` that may lie beside pipelines."""
Stamp = tuple[int, int, int] | None


class Files:
    """The files that one pipeline depends on.

    :param root: folder that must contain every file, after symbolic links are followed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamps: dict[Path, Stamp] = {}

    def read(self, path: Path, here: SpecProblem) -> bytes:
        """Read a file, up to one byte more than allowed.

        :param path: the file.
        :param here: place and field to report when it cannot be read.
        :raises PipelineSpecError: when it cannot be read, is not a regular file, or is outside the folder.
        """
        self._stamps[path] = _stamp(path)
        try:
            if not path.resolve(strict=True).is_relative_to(self._root.resolve()):
                raise PipelineSpecError(
                    [here._replace(message=f"{path.name} leads out of {self._root.name}/. It was not read")]
                )
            if not stat.S_ISREG(path.stat().st_mode):
                raise PipelineSpecError([here._replace(message=f"{path.name} is not a regular file")])
            with path.open("rb") as opened:
                return opened.read(MAX_BYTES + 1)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of symbolic links
            if isinstance(error, PipelineSpecError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise PipelineSpecError([here._replace(message=f"{path.name} cannot be read: {reason}")]) from None

    def exists(self, path: Path) -> bool:
        """Whether there is a file of this name."""
        self._stamps[path] = stamp = _stamp(path)
        return stamp is not None and stat.S_ISREG(path.stat().st_mode)

    def is_folder(self, path: Path) -> bool:
        """Whether there is a folder of this name."""
        is_there = _is_folder(path)
        self._stamps[path] = (0, 0, 0) if is_there else None
        return is_there

    def unchanged(self) -> bool:
        """Whether every file is unchanged, and every missing file is still missing."""
        return all(_unchanged(path, stamp) for path, stamp in self._stamps.items())


def _unchanged(path: Path, stamp: Stamp) -> bool:
    return _is_folder(path) if stamp == (0, 0, 0) else _stamp(path) == stamp


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # the name is too long, or no file can have it
        return False


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def looks_like_a_pipeline(document: Node | None, data: bytes) -> bool:
    """Whether a YAML file is a pipeline, possibly with a mistake in its kind.

    :param document: its document; None when it cannot be parsed.
    :param data: bytes of the file.
    """
    if document is None:
        return not _is_utf8(data) or any(trace in data for trace in _TRACES)
    if not isinstance(document.content, dict):
        return any(trace in data for trace in _TRACES)
    kind, version = (document.content.get(name) for name in ("kind", "apiVersion"))
    if kind is not None and kind.content in _OTHER_KINDS:
        return False
    if version is not None and _is_near(version.content, API_VERSION):
        return True
    if kind is None:
        return "metadata" in document.content and "spec" in document.content
    return _is_near(kind.content, KIND)


def _is_near(value: object, wanted: str) -> bool:
    return isinstance(value, str) and bool(difflib.get_close_matches(value.lower(), [wanted.lower()], cutoff=0.75))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end == len(data) > MAX_BYTES  # cut within a character
    return True
