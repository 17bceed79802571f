"""Trigger with an event for each new commit of a Git remote, without a checkout."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.code.git_refs import check_question
from airflow_mcp.core.code.source import path_inside
from airflow_mcp.core.watermark import Sighting
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger


class GitCommitTrigger(WatchTrigger):
    """Watch a branch, a tag, or the newest tag of a pattern on a Git remote.

    Several commits between two looks give one event, for the newest. A commit gives only one event, even if a forced
    push goes back to it (the last 200 are remembered).

    Payload: ``kind`` (``commit``), ``repo_url``, ``ref`` (full name), ``commit``, ``is_tag``, ``path``.

    :param repo_url: ``https``, ``http``, ``ssh`` or ``file`` URL, or ``user@host:path``; without a password.
    :param revision: branch or tag; None is the default branch.
    :param tags: instead of ``revision``: a pattern such as ``v*``, which chooses the newest version.
    :param git_conn_id: Airflow connection with login and password for an ``https`` or ``http`` URL.
    :param path: folder or file inside the repository; other commits give no event. None watches everything.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        repo_url: str,
        revision: str | None = None,
        tags: str | None = None,
        git_conn_id: str | None = None,
        path: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        check_question(revision, tags)
        self.repo_url, self.revision, self.tags, self.git_conn_id = repo_url, revision, tags, git_conn_id
        self.path = path_inside("path", path) if path else None
        self._remote = GitRemote(repo_url, git_conn_id)
        self._last: tuple[str, str] = ("", "")

    @property
    def subject(self) -> str:
        """The watched branch or tags in words, for messages."""
        return f"Git {self.tags or self.revision or 'default branch'} of {self._remote.url}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("repo_url", "revision", "tags", "git_conn_id", "path")}

    async def look(self) -> Sighting | None:
        """Return the present commit of the remote."""
        found = await self._remote.afind(self.revision, self.tags)
        if found is None:
            return None
        mark = await self._object_at(found.sha) if self.path else found.sha
        payload = {
            "kind": "commit",
            "repo_url": self._remote.url,
            "ref": found.ref,
            "commit": found.sha,
            "is_tag": found.is_tag,
            "path": self.path,
        }
        return Sighting(mark, payload, once=found.sha) if mark else None

    async def _object_at(self, commit: str) -> str:
        """Return the id of the object at the path in a commit; the last answer is remembered."""
        if self._last[0] != commit:
            async with self._remote.commit(commit) as content:
                self._last = (commit, await content.object_id(self.path or ""))
        return self._last[1]
