"""Versions on disk: complete ones under their own name, unfinished ones beside them, and the last plan.

A version is a folder that appears by one rename, so what is there is complete. A server that starts while MLflow is
away serves what the last plan names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow_mcp.core.registry.copies import NOT_OF_THE_MODEL, CopiedFile, manifest_digest
from airflow_mcp.core.serving.versions import ServedVersion

_log = logging.getLogger(__name__)
_PLAN = "plan.json"
_PART = ".part-"


class Cached(NamedTuple):
    """A complete version on disk."""

    path: Path
    digest: str
    """``sha256:`` of the sorted manifest of its files."""


class ModelCache:
    """A folder of versions.

    :param folder: the folder; created when it does not exist.
    :param limit: bytes of all versions; versions that are wanted stay even beyond it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: ServedVersion) -> Path:
        """Return the folder of a complete version."""
        return self.folder / _folder_name(key.model) / _folder_name(key.version)

    def part(self, key: ServedVersion) -> Path:
        """Return the folder of a version that is not complete; created when it does not exist."""
        path = self.folder / f"{_PART}{_folder_name(key.model)}-{_folder_name(key.version)}"
        path.mkdir(exist_ok=True)
        return path

    def find(self, key: ServedVersion) -> Cached | None:
        """Return a version that is complete, and mark it as used; hashes its files, so call it in a thread."""
        path = self.path(key)
        if not path.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Cached(path, digest_of(path))

    def complete(self, key: ServedVersion) -> Cached:
        """Turn an unfinished version into a complete one; hashes its files, so call it in a thread.

        :raises OSError: when it cannot be renamed.
        """
        part, path = self.part(key), self.path(key)
        digest = digest_of(part)
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            shutil.rmtree(path)
        part.rename(path)
        return Cached(path, digest)

    def drop(self, key: ServedVersion) -> None:
        """Delete a version, complete or not, whose files are wrong."""
        shutil.rmtree(self.path(key), ignore_errors=True)
        shutil.rmtree(self.part(key), ignore_errors=True)

    def make_room(self, needed: int, keep: Collection[ServedVersion]) -> None:
        """Delete the versions that were used longest ago until the others and a new one fit.

        :param needed: bytes of the new one.
        :param keep: versions that stay.
        """
        kept = {self.path(key) for key in keep}
        versions = [path for model in self.folder.iterdir() if self._is_model(model) for path in model.iterdir()]
        sizes = {path: _size(path) for path in versions}
        total = sum(sizes.values())
        free = shutil.disk_usage(self.folder).free
        for path in sorted(versions, key=_used):
            if total + needed <= self._limit and needed <= free:
                return
            if path in kept:
                continue
            _log.info("version %s/%s is deleted from the cache to make room", path.parent.name, path.name)
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]
            free += sizes[path]

    def delete_parts(self, keep: Collection[ServedVersion]) -> None:
        """Delete unfinished versions that nobody wants any more."""
        kept = {self.part(key).name for key in keep}
        for path in self.folder.glob(f"{_PART}*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Keep what the registry said last; a failure is logged, because serving goes on without it."""
        target = self.folder / _PLAN
        temporary = target.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(json.dumps(plan), encoding="utf-8")
            temporary.replace(target)
        except OSError as error:
            _log.warning("the plan cannot be kept in %s: %s", target, error)

    def read_plan(self) -> dict[str, Any]:
        """Return what the registry said last; empty when that is not known."""
        try:
            plan = json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return plan if isinstance(plan, dict) else {}

    def _is_model(self, path: Path) -> bool:
        return path.is_dir() and not path.name.startswith(".")


def digest_of(folder: Path) -> str:
    """Return the digest of a model's files, as its load check and its copy record it."""
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in NOT_OF_THE_MODEL and "__pycache__" not in path.parts:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files.append(CopiedFile(path=name, size=path.stat().st_size, sha256=digest))
    return manifest_digest(files)


def _folder_name(name: str) -> str:
    quoted = quote(name, safe=" ")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
