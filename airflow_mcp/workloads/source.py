"""Which code runs: the commit and the bytes of a script."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from pathlib import Path

_GIT_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class CodeVersion:
    """What is known about a script at the moment it was looked at."""

    commit: str | None
    """Commit id of the Git repository that holds the script; None when there is none or it cannot be asked."""
    dirty: bool
    """Whether the script differs from that commit; True as well when nobody can tell (``commit`` is None)."""
    content_hash: str
    """``sha256:<hex>`` of the script's bytes."""
    folder_commit: str | None = None
    """Latest commit that changed anything in the script's folder; None when ``commit`` is. It stays the same while
    the rest of the repository moves on."""


def code_version(path: Path) -> CodeVersion:
    """Look at a script and the Git repository that holds it.

    :param path: path of the script; a symbolic link stands for what it points at.
    :return: commit, difference from it, and hash of the bytes.
    :raises InvalidArgumentError: when the script is missing or cannot be read.
    """
    try:
        script = path.resolve(strict=True)
        content = script.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"script={str(path)!r} cannot be read: {error.strerror}. Allowed: a readable file. Nothing was started."
        ) from error
    commit, dirty = _commit_of(script)
    content_hash = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if commit is None:
        return CodeVersion(None, dirty, content_hash)
    folder_commit = "".join(_git(script, "log", "-1", "--format=%H", "--", ".") or ())
    return CodeVersion(commit, dirty, content_hash, folder_commit or None)


def _commit_of(script: Path) -> tuple[str | None, bool]:
    """Ask Git for the commit and whether the script is exactly what it holds; no answer is (None, True)."""
    status = ("status", "--porcelain=v2", "--branch", "--ignored", "--untracked-files=all", "--", script.name)
    lines = _git(script, *status)
    if lines is None:
        return None, True
    commit = next((line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")), "")
    if not commit or not all(character in "0123456789abcdef" for character in commit):
        return None, True
    return commit, any(not line.startswith("#") for line in lines)


def _git(script: Path, *command: str) -> list[str] | None:
    """Ask Git in the script's folder; None when it does not answer."""
    # A Dag folder is not this user's own: no program of its configuration is run, no index is rewritten.
    safe = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", *safe, "-C", str(script.parent), "--literal-pathspecs", *command],  # noqa: S607  (git is in PATH)
            capture_output=True,
            check=True,
            env={**env, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").splitlines()
