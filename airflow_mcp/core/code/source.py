"""The code that a workload runs: a Git repository, one commit, and a folder inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from airflow_mcp.exceptions import InvalidArgumentError

SCHEMES = ("https", "http", "ssh", "file")
COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_SSH = re.compile(r"(?P<user>[\w.-]+)@(?P<host>[\w.-]+):(?P<path>[^/].*)")
_KEYS = ("repo_url", "revision", "path", "git_conn_id", "ref")


@dataclass(frozen=True)
class CodeSource:
    """One commit of a Git repository."""

    url: str
    """Address without credentials."""
    commit: str
    """Full commit id, 40 hexadecimal digits."""
    path: str = ""
    """Folder inside the repository; empty for its root."""
    connection: str = ""
    """Airflow connection with login and password (or token); empty for a repository that needs none."""
    ref: str = field(default="", compare=False)
    """Branch or tag that led to the commit, for the record; empty when the commit was given."""

    @property
    def pinned(self) -> str:
        """Commit and folder, which together decide the content."""
        return f"{self.commit}:{self.path}" if self.path else self.commit


def code_source(name: str, value: Any) -> CodeSource:
    """Read an argument that names code.

    :param name: name of the argument, for the message.
    :param value: a mapping with ``repo_url`` and ``revision`` (full commit id), maybe ``path``,
        ``git_conn_id`` and ``ref`` (the branch or tag that led to the commit).
    :raises InvalidArgumentError: when it is not such a mapping.
    """
    if not isinstance(value, Mapping) or not {"repo_url", "revision"} <= value.keys():
        raise InvalidArgumentError(
            f"{name} must be a mapping with repo_url and revision, optionally path, git_conn_id and ref; got "
            f"{value!r}. If it comes from another task, that task pushed no XCom. Nothing was started"
        )
    unknown = sorted(value.keys() - set(_KEYS))
    if unknown:
        raise InvalidArgumentError(f"{name} must have only the keys {', '.join(_KEYS)}; got {', '.join(unknown)}")
    commit = str(value["revision"])
    if not COMMIT.fullmatch(commit):
        raise InvalidArgumentError(
            f"{name}.revision must be a full commit id, 40 hexadecimal digits in lower case, because branches and tags "
            f"move; got {commit!r}. Nothing was started"
        )
    return CodeSource(
        url=repository_url(f"{name}.repo_url", value["repo_url"]),
        commit=commit,
        path=path_inside(f"{name}.path", value.get("path") or ""),
        connection=str(value.get("git_conn_id") or ""),
        ref=str(value.get("ref") or ""),
    )


def repository_url(name: str, url: Any) -> str:
    """Check the address of a Git repository and return it as a URL.

    :param name: name of the argument, for the message.
    :param url: the address; ``git@host:path`` becomes ``ssh://git@host/path``.
    :raises InvalidArgumentError: when it is not such an address, or has a password in it.
    """
    text = str(url)
    short = _SHORT_SSH.fullmatch(text)
    if short and "://" not in text:
        text = f"ssh://{short['user']}@{short['host']}/{short['path']}"
    parts = urlsplit(text)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if password or (user and parts.scheme != "ssh"):
        raise InvalidArgumentError(
            f"{name} must not have a user or password in it; got "
            f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}. Put them into an Airflow connection "
            "and name it as git_conn_id. Nothing was started"
        )
    is_complete = parts.path.strip("/") and (parts.netloc or parts.scheme == "file")
    if parts.scheme not in SCHEMES or not is_complete or parts.query or parts.fragment or _has_control(text):
        raise InvalidArgumentError(
            f"{name} must be the {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]} URL of a Git repository, for example "
            f"https://example.com/team/models; got {text!r}. Nothing was started"
        )
    return text


def path_inside(name: str, path: Any) -> str:
    """Check that a path stays inside a repository, and return it without ``.`` and double slashes.

    :param name: name of the argument, for the message.
    :param path: path with forward slashes, relative to the repository or to a folder in it.
    :return: the path; empty for the folder itself.
    :raises InvalidArgumentError: when it is absolute or goes up.
    """
    text = str(path)
    parts = PurePosixPath(text).parts
    if text.startswith("/") or ".." in parts or ".git" in parts or "\\" in text or _has_control(text):
        raise InvalidArgumentError(
            f"{name} must be a path inside the repository, relative and without '..'; got {text!r}. Nothing was started"
        )
    return "/".join(parts)


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)
