"""The version of a local script: its Git commit and the hash of its bytes."""

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
    """The version of a script at one moment."""

    commit: str | None
    """Commit of the script's Git repository; None when there is none or Git fails."""
    dirty: bool
    """Whether the script differs from that commit; True if ``commit`` is None."""
    content_hash: str
    """``sha256:<hex>`` of the script's bytes."""
    folder_commit: str | None = None
    """Latest commit that changed the script's folder; None when ``commit`` is. Other folders do not affect it."""


def code_version(path: Path) -> CodeVersion:
    """Read the version of a script.

    :param path: path of the script; symbolic links are followed.
    :return: commit, difference from it, and hash of the bytes.
    :raises InvalidArgumentError: when the script is missing or cannot be read.
    """
    try:
        script = path.resolve(strict=True)
        content = script.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"script must be a readable file; got {str(path)!r}: {error.strerror}. Nothing was started"
        ) from error
    commit, dirty = _commit_of(script)
    content_hash = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if commit is None:
        return CodeVersion(None, dirty, content_hash)
    folder_commit = "".join(_git(script, "log", "-1", "--format=%H", "--", ".") or ())
    return CodeVersion(commit, dirty, content_hash, folder_commit or None)


def _commit_of(script: Path) -> tuple[str | None, bool]:
    """Return the commit and whether the script differs from it; (None, True) when Git fails."""
    status = ("status", "--porcelain=v2", "--branch", "--ignored", "--untracked-files=all", "--", script.name)
    lines = _git(script, *status)
    if lines is None:
        return None, True
    commit = next((line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")), "")
    if not commit or not all(character in "0123456789abcdef" for character in commit):
        return None, True
    return commit, any(not line.startswith("#") for line in lines)


def _git(script: Path, *command: str) -> list[str] | None:
    """Run Git in the script's folder and return its lines; None when it fails."""
    # The Dag folder may belong to another user: run no program that its configuration names, rewrite no index.
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
