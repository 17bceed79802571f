"""Folders that belong to this server alone, and deletions in them that never leave them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from airflow_mcp.exceptions import InvalidArgumentError

_MODE = 0o700


def require_private(folder: Path, setting: str) -> None:
    """Make a folder for the user of this process, or check that it is one.

    Its group may write to it: Kubernetes gives volumes to a group of the pod.

    :param folder: the folder.
    :param setting: name of the setting, for the message.
    :raises InvalidArgumentError: when it cannot be made, is a symbolic link, belongs to another user, or other users
        can write to it.
    """
    try:
        folder.mkdir(_MODE, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InvalidArgumentError(f"{setting} {str(folder)!r} cannot be made: {error.strerror}") from None
    if stat.S_ISLNK(found.st_mode):
        problem = "which is a symbolic link"
    elif found.st_uid != os.geteuid():
        problem = f"which belongs to user {found.st_uid}"
    elif found.st_mode & stat.S_IWOTH:
        problem = "to which every user can write"
    else:
        return
    raise InvalidArgumentError(
        f"{setting} must be a folder of user {os.geteuid()}, to which others cannot write; got {str(folder)!r}, "
        f"{problem}. Name a folder that does not exist, and it is created. Nothing was started"
    )


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at a path, and not a symbolic link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def remove(path: Path) -> None:
    """Delete a folder with everything in it, or a file. Of a symbolic link, delete the link alone."""
    if is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def has_links(folder: Path) -> bool:
    """Return whether there is a symbolic link anywhere in a folder."""
    return any(path.is_symlink() for path in folder.rglob("*"))


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder; what a symbolic link leads to is not counted."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            found = path.lstat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size
