"""The folder of the prediction log's segments, which several servers may share.

Each server holds a lock on a file of its own there for as long as it lives, so that no other takes over its segments.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path

from airflow_mcp.core.serving.prediction_log import OPEN, SEGMENT_SUFFIX, is_closed_segment, owner_of

FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_LOCK = "_owner-{}.lock"


class LogFolder:
    """The local folder of one server's segments.

    :param path: the folder; made when it is first owned.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = secrets.token_hex(6)
        """Part of the name of each segment of this server."""
        self._lock: int | None = None

    def own(self) -> None:
        """Make the folder and lock this server's file in it, unless that is done.

        :raises OSError: when the folder cannot be made, or its file system has no locks.
        """
        if self._lock is not None:
            return
        self.path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        found = self.path.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:  # never a shared folder such as /tmp
            self.path.chmod(_FOLDER_MODE)
        new = self.path / f"_new-{self.owner}"
        lock = os.open(new, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._lock_file(self.owner))  # only now, so that nobody sees it without its lock
        except OSError:
            os.close(lock)
            new.unlink(missing_ok=True)
            raise
        self._lock = lock

    def disown(self) -> None:
        """Release the lock; every segment of this server is closed."""
        if self._lock is not None:
            self._lock_file(self.owner).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def take_over(self) -> None:
        """Close the segments that servers which have ended left open; those of live servers stay as they are."""
        left: dict[str, list[Path]] = {}
        for path in self.path.glob(f"{OPEN}*{SEGMENT_SUFFIX}"):  # before the locks: a segment is younger than its lock
            left.setdefault(owner_of(path.name), []).append(path)
        for path in self.path.glob(_LOCK.format("*")):
            left.setdefault(path.stem.partition("-")[2], [])
        for owner in left.keys() - {self.owner}:
            self._take_over(owner, left[owner])

    def _take_over(self, owner: str, segments: list[Path]) -> None:
        lock_file = self._lock_file(owner)
        try:
            lock = os.open(lock_file, os.O_RDWR)
        except FileNotFoundError:  # it closed everything, or somebody else has taken over
            _close(segments)
            return
        except OSError:
            return  # of another user: whether it lives is unknown
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _close(segments)
            lock_file.unlink(missing_ok=True)
        except OSError:
            return  # it lives, or that is unknown
        finally:
            os.close(lock)

    def closed(self) -> dict[str, int]:
        """Return the bytes of each closed segment by name, those of all servers with this folder."""
        sizes = {}
        for path in self.path.glob("*"):
            if is_closed_segment(path.name):
                with contextlib.suppress(FileNotFoundError):  # stored meanwhile
                    sizes[path.name] = path.stat().st_size
        return sizes

    def _lock_file(self, owner: str) -> Path:
        return self.path / _LOCK.format(owner)


def _close(segments: list[Path]) -> None:
    for path in segments:
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_name(path.name.removeprefix(OPEN)))
