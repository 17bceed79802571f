"""Triggers for new versions of data: one gives an event for each, the other ends at the first, for a sensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.watermark import Sighting
from airflow_mcp.hooks.data_place import DataPlace
from airflow_mcp.triggers.goal import GoalTrigger
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger


class DatasetVersionTrigger(WatchTrigger):
    """Watch data at one place; exactly one of ``root``, ``uri``, ``dvc`` and ``lfs`` is given.

    A version below ``root`` gives one event, when it is the newest. A content that DVC or Git LFS tracks gives one
    event, even if a later commit goes back to it. A file or object gives an event for each change.

    Payload: ``kind`` (``data``) and ``root``, ``version``; or ``uri``, ``fingerprint``; or ``repo_url``, ``path``,
    ``commit``, ``hash``.

    :param root: folder of versions, ``<root>/<version>/<file>``, that the triggerer can read; a folder counts as soon
        as it exists, so write it elsewhere and then move it into place.
    :param uri: a path, or a ``file``, ``http`` or ``https`` URL; or an object in a store that Airflow can read, such as
        ``s3://…``.
    :param dvc: ``repo_url``, ``path`` of the tracked file or folder, and optionally ``revision`` (branch or tag; the
        default is the default branch) and ``git_conn_id`` (Airflow connection with login and
        password for the repository).
    :param lfs: the same for a file that Git LFS keeps.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        uri: str | None = None,
        dvc: Mapping[str, str] | None = None,
        lfs: Mapping[str, str] | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.place = DataPlace(root=root, uri=uri, dvc=dvc, lfs=lfs)

    @property
    def subject(self) -> str:
        """The watched data in words, for messages."""
        return self.place.subject

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return self.place.arguments()

    async def look(self) -> Sighting | None:
        """Return the present version of the data."""
        return await self.place.look()


class DatasetGoalTrigger(GoalTrigger):
    """Wait for a version of data, for a sensor.

    :param place: the place of the data, with the arguments of :class:`~airflow_mcp.hooks.data_place.DataPlace`.
    :param other_than: version to ignore; empty accepts any.
    :param poll_seconds: seconds between two looks, at least 1; longer while the place cannot be read.
    """

    def __init__(
        self, *, place: Mapping[str, Any], other_than: str = "", poll_seconds: float = DEFAULT_POLL_SECONDS
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.place, self.other_than = DataPlace(**place), other_than

    @property
    def subject(self) -> str:
        """The awaited data in words, for messages."""
        return self.place.subject

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"place": self.place.arguments(), "other_than": self.other_than}

    async def find(self) -> dict[str, Any] | None:
        """Return the version if it is a new one."""
        return new_version(await self.place.look(), self.other_than)


def new_version(found: Sighting | None, other_than: str) -> dict[str, Any] | None:
    """Return the payload of a new version, with the key ``version``; None when there is no new one.

    :param found: the present version.
    :param other_than: version to ignore.
    """
    if found is None or found.mark == other_than:
        return None
    return {**{name: value for name, value in found.payload.items() if name != "kind"}, "version": found.mark}
