"""Wait for a new version of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.sensors.waiting import WaitingSensor
from airflow_mcp.triggers.data import DatasetGoalTrigger


class DatasetVersionSensor(WaitingSensor):
    """Wait until a data location has a version, or a version other than a known one.

    Exactly one of ``root``, ``uri``, ``dvc`` and ``lfs`` must be given. The data need not exist yet. With
    ``deferrable`` the task looks once and then waits in the triggerer.

    XCom: ``version`` (for ``other_than`` of a later wait), and ``root``; or ``uri``, ``fingerprint``; or
    ``repo_url``, ``path``, ``commit``, ``hash``.

    :param root: folder of versions, ``<root>/<version>/<file>``; the newest version counts (templated).
    :param uri: one file or object: a path, a ``file``, ``http`` or ``https`` URL, or an object in a store that Airflow
        can read (templated).
    :param dvc: ``{repo_url, path, revision, git_conn_id}`` of data tracked by DVC; its hash is the version (templated).
    :param lfs: the same for a file in Git LFS (templated).
    :param other_than: known version, which does not count; empty: any version counts (templated).
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("root", "uri", "dvc", "lfs", "other_than")
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        root: str | None = None,
        uri: str | None = None,
        dvc: Mapping[str, str] | None = None,
        lfs: Mapping[str, str] | None = None,
        other_than: str = "",
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.root = root
        self.uri = uri
        self.dvc = dvc
        self.lfs = lfs
        self.other_than = other_than

    def goal_trigger(self) -> DatasetGoalTrigger:
        """Return the trigger for the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        if not isinstance(self.other_than, str):
            raise InvalidArgumentError(f"other_than must be text, or '' for any version; got {self.other_than!r}")
        place = {"root": self.root, "uri": self.uri, "dvc": self.dvc, "lfs": self.lfs}
        return DatasetGoalTrigger(place=place, other_than=self.other_than, poll_seconds=self.poll_seconds)
