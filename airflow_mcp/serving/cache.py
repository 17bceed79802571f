"""Versions on disk: complete ones under their own name, unfinished ones beside them, and the last plan.

A version is a folder that appears by one rename, so what is there is complete. Its digest is kept beside it, so a
version whose files have changed since is fetched again. Symbolic links in the cache are never followed. A server that
starts while MLflow is away serves what the last plan names.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow_mcp.core.registry.copies import NOT_OF_THE_MODEL, CopiedFile, manifest_digest
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.private_folder import has_links, is_folder, remove, require_private, size_of

_log = logging.getLogger(__name__)
_PLAN = "plan.json"
_OWN, _LOCK = ".own-", "lock"
_PART = ".part-"


class Cached(NamedTuple):
    """A complete version on disk."""

    path: Path
    digest: str
    """``sha256:`` of the sorted manifest of its files."""


class ModelCache:
    """A folder of versions, which several servers may share.

    :param folder: the folder; created when it does not exist.
    :param limit: bytes of all versions; versions that are wanted stay even beyond it.
    :raises InvalidArgumentError: when the folder does not belong to the user of this server alone.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        require_private(folder, "cache_folder")
        self.folder = folder
        self._limit = limit
        self._own: Path | None = None
        for path in folder.glob(f"{_OWN}*"):
            _remove_if_left(path)

    def path(self, key: ServedVersion) -> Path:
        """Return the folder of a complete version."""
        return self.folder / _folder_name(key.model) / _folder_name(key.version)

    def part(self, key: ServedVersion) -> Path:
        """Return the folder of a version that this server has not completed; created when it does not exist.

        :raises OSError: when it cannot be created.
        """
        path = self._own_folder() / _part_name(key)
        path.mkdir(exist_ok=True)
        return path

    def find(self, key: ServedVersion) -> Cached | None:
        """Return a version that is complete, and mark it as used; hashes its files, so call it in a thread.

        One that is damaged is deleted, so that it is fetched again.
        """
        path = self.path(key)
        if not is_folder(path.parent) or not os.path.lexists(path):
            return None
        problem = _damage(path)
        if not problem:
            try:
                digest = digest_of(path)
                problem = "" if digest == _read(_digest_file(path)) else "its files are not those that were fetched"
            except OSError as error:
                problem = f"its files cannot be read: {error.strerror}"
        if problem:
            _log.warning("version %s in the cache is damaged: %s. It is deleted", key, problem)
            _remove_version(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Cached(path, digest)

    def complete(self, key: ServedVersion) -> Cached:
        """Turn an unfinished version into a complete one; hashes its files, so call it in a thread.

        What another server has completed meanwhile stays, if its files are the same.

        :raises OSError: when nothing was fetched, or it cannot be renamed.
        """
        part, path = self.part(key), self.path(key)
        if _damage(part):
            raise OSError(errno.ENOENT, _damage(part))
        digest = digest_of(part)
        if not is_folder(path.parent):
            remove(path.parent)
        path.parent.mkdir(exist_ok=True)
        found = self.find(key)
        if found is not None and found.digest == digest:
            remove(part)
            return found
        _remove_version(path)
        self._write(_digest_file(path), digest)
        part.rename(path)
        return Cached(path, digest)

    def drop(self, key: ServedVersion) -> None:
        """Delete a version, complete or not, whose files are wrong."""
        if is_folder(self.path(key).parent):
            _remove_version(self.path(key))
        self.drop_part(key)

    def drop_part(self, key: ServedVersion) -> None:
        """Delete what this server has of a version that is not complete."""
        if self._own is not None:
            remove(self._own / _part_name(key))

    def make_room(self, needed: int, keep: Collection[ServedVersion]) -> None:
        """Delete the versions that were used longest ago until the others and a new one fit.

        :param needed: bytes of the new one that have not arrived yet.
        :param keep: versions that stay, complete or not.
        """
        self._delete_parts(keep)
        kept = {self.path(key) for key in keep}
        versions = [path for model in self._folders(self.folder) for path in self._folders(model)]
        sizes = {path: size_of(path) for path in versions}
        total = sum(sizes.values()) + sum(size_of(own) for own in self.folder.glob(f"{_OWN}*") if is_folder(own))
        free = shutil.disk_usage(self.folder).free
        for path in sorted(versions, key=_used):
            if total + needed <= self._limit and needed <= free:
                return
            if path in kept:
                continue
            _log.info("version %s/%s is deleted from the cache to make room", path.parent.name, path.name)
            _remove_version(path)
            total -= sizes[path]
            free += sizes[path]

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Keep what the registry said last; a failure is logged, because serving goes on without it."""
        target = self.folder / _PLAN
        try:
            self._write(target, json.dumps(plan))
        except OSError as error:
            _log.warning("the plan cannot be kept in %s: %s", target, error)

    def read_plan(self) -> dict[str, Any]:
        """Return what the registry said last; empty when that is not known."""
        try:
            plan = json.loads(_read(self.folder / _PLAN))
        except (OSError, ValueError):
            return {}
        return plan if isinstance(plan, dict) else {}

    def _delete_parts(self, keep: Collection[ServedVersion]) -> None:
        """Delete unfinished versions of this server that nobody wants any more."""
        kept = {_part_name(key) for key in keep}
        for path in self._own.glob(f"{_PART}*") if self._own is not None else ():
            if path.name not in kept:
                remove(path)

    def _folders(self, folder: Path) -> list[Path]:
        return [path for path in folder.iterdir() if is_folder(path) and not path.name.startswith(".")]

    def _write(self, target: Path, text: str) -> None:
        temporary = self._own_folder() / target.name
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)

    def _own_folder(self) -> Path:
        """Return the folder of what this server has not completed; it is locked for as long as this server lives."""
        if self._own is None:
            token = secrets.token_hex(8)  # process numbers may be the same in two containers
            new, own = self.folder / f".new-{token}", self.folder / f"{_OWN}{token}"
            new.mkdir(mode=0o700)
            lock = os.open(new / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                new.rename(own)  # only now, so that nobody sees it without its lock
            except OSError:
                os.close(lock)
                remove(new)
                raise
            self._own = own
            weakref.finalize(self, _give_back, own, lock)
        return self._own


def _give_back(own: Path, lock: int) -> None:
    remove(own)
    os.close(lock)


def _remove_if_left(own: Path) -> None:
    """Delete the unfinished versions of a server that has ended."""
    if not is_folder(own):
        return
    try:
        lock = os.open(own / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        remove(own)  # half deleted: the lock is there before the folder has its name
        return
    except OSError:
        return  # whether its server lives is unknown
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(own)
    except OSError:
        return  # it lives, or that is unknown
    finally:
        os.close(lock)


def _damage(folder: Path) -> str:
    """Return why a folder cannot hold the files of a version; empty when it can."""
    if not is_folder(folder):
        return "it is not a folder"
    if has_links(folder):
        return "it has symbolic links"
    if not (folder / "MLmodel").is_file():
        return "it has no file MLmodel"
    return ""


def _remove_version(path: Path) -> None:
    """Delete a complete version; the folder of its model must not be a symbolic link."""
    remove(path)
    remove(_digest_file(path))


def _digest_file(path: Path) -> Path:
    """Return where the digest is kept that a version had when it was completed."""
    return path.with_name(f".digest-{path.name}")


def _read(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as stream:
        return stream.read()


def _part_name(key: ServedVersion) -> str:
    return f"{_PART}{_folder_name(key.model)}-{_folder_name(key.version)}"


def digest_of(folder: Path, leave_out: Collection[str] = NOT_OF_THE_MODEL) -> str:
    """Return the digest of a model's files, as its load check and its copy record it.

    :param folder: the folder of the model.
    :param leave_out: paths of files that are not part of the model.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in leave_out and "__pycache__" not in path.parts:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files.append(CopiedFile(path=name, size=path.stat().st_size, sha256=digest))
    return manifest_digest(files)


def _folder_name(name: str) -> str:
    quoted = quote(name, safe=" ")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
