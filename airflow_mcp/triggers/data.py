"""Watch for new versions of data: an event for each, or one answer for a sensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.watermark import Sighting
from airflow_mcp.hooks.data_place import DataPlace
from airflow_mcp.triggers.goal import GoalTrigger
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger


class DatasetVersionTrigger(WatchTrigger):
    """Watch data; exactly one of ``root``, ``uri``, ``dvc`` and ``lfs`` says which.

    A version below ``root`` gives one event, when it is the newest; a content that DVC or Git LFS keeps gives one
    event, also when a later commit goes back to it. A file or object gives an event for each change.

    Payload: ``kind`` (``data``) and ``root``, ``version``; or ``uri``, ``fingerprint``; or ``repo_url``, ``path``,
    ``commit``, ``hash``.

    :param root: folder of versions, ``<root>/<version>/<file>``, that the triggerer can read; a folder counts as soon
        as it is there, so move a complete one into place.
    :param uri: a path, or a ``file``, ``http`` or ``https`` URL; or an object in a store that Airflow can read, such as
        ``s3://…``.
    :param dvc: ``repo_url``, ``path`` of the tracked file or folder, and perhaps ``revision`` (branch or tag; default:
        the default branch) and ``git_conn_id`` (Airflow connection with login and password for the repository).
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
        """What is watched, in words."""
        return self.place.subject

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return self.place.arguments()

    async def look(self) -> Sighting | None:
        """Look at the data."""
        return await self.place.look()


class DatasetGoalTrigger(GoalTrigger):
    """Wait for a version of data, for its sensor.

    :param place: where the data is, as :class:`~airflow_mcp.hooks.data_place.DataPlace` takes it.
    :param other_than: version that does not count; empty: any counts.
    :param poll_seconds: seconds between two looks, at least 1; longer while the place cannot be looked at.
    """

    def __init__(
        self, *, place: Mapping[str, Any], other_than: str = "", poll_seconds: float = DEFAULT_POLL_SECONDS
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.place, self.other_than = DataPlace(**place), other_than

    @property
    def subject(self) -> str:
        """What is waited for, in words."""
        return self.place.subject

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {"place": self.place.arguments(), "other_than": self.other_than}

    async def find(self) -> dict[str, Any] | None:
        """Look once."""
        return new_version(await self.place.look(), self.other_than)


def new_version(found: Sighting | None, other_than: str) -> dict[str, Any] | None:
    """Say what was found: the payload with ``version``, what ``other_than`` is compared with; None for nothing new.

    :param found: what is there.
    :param other_than: version that does not count.
    """
    if found is None or found.mark == other_than:
        return None
    return {**{name: value for name, value in found.payload.items() if name != "kind"}, "version": found.mark}
