"""An event for each new commit of a Git remote, without a checkout."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.code.git_refs import check_question
from airflow_mcp.core.code.source import path_inside
from airflow_mcp.core.watermark import Sighting
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger


class GitCommitTrigger(WatchTrigger):
    """Watch a branch, a tag, or the newest of some tags on a Git remote.

    Of several commits between two looks the newest counts. A commit gives one event only, also when a forced push
    brings it back later (the last 200 are remembered).

    Payload: ``kind`` (``commit``), ``url``, ``ref`` (full name), ``commit``, ``is_tag``, ``path``.

    :param url: ``https``, ``http``, ``ssh`` or ``file`` URL, or ``user@host:path``; without a password.
    :param ref: branch or tag; None is the default branch.
    :param tags: instead of ``ref``: a pattern such as ``v*``, of which the newest version counts.
    :param connection: Airflow connection with login and password for an ``https`` or ``http`` URL.
    :param path: folder or file inside the repository; commits that do not change it give no event. None is everything.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        url: str,
        ref: str | None = None,
        tags: str | None = None,
        connection: str | None = None,
        path: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        check_question(ref, tags)
        self.url, self.ref, self.tags, self.connection = url, ref, tags, connection
        self.path = path_inside("path", path) if path else None
        self._remote = GitRemote(url, connection)
        self._last: tuple[str, str] = ("", "")

    @property
    def subject(self) -> str:
        """What is watched, in words."""
        return f"Git {self.tags or self.ref or 'default branch'} of {self._remote.url}"

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("url", "ref", "tags", "connection", "path")}

    async def look(self) -> Sighting | None:
        """Ask the remote."""
        found = await self._remote.afind(self.ref, self.tags)
        if found is None:
            return None
        mark = await self._object_at(found.sha) if self.path else found.sha
        payload = {
            "kind": "commit",
            "url": self._remote.url,
            "ref": found.ref,
            "commit": found.sha,
            "is_tag": found.is_tag,
            "path": self.path,
        }
        return Sighting(mark, payload, once=found.sha) if mark else None

    async def _object_at(self, commit: str) -> str:
        """Name what the path holds in a commit; a commit that was asked about last is not asked about again."""
        if self._last[0] != commit:
            async with self._remote.commit(commit) as content:
                self._last = (commit, await content.object_id(self.path or ""))
        return self._last[1]
