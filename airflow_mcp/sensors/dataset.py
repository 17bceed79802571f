"""Wait until there is a new version of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.sensors.waiting import WaitingSensor
from airflow_mcp.triggers.data import DatasetGoalTrigger


class DatasetVersionSensor(WaitingSensor):
    """Wait until a place of data has a version, or another one than a version that is known.

    Exactly one of ``root``, ``uri``, ``dvc`` and ``lfs`` says where the data is. It need not be there yet. With
    ``deferrable`` the task looks once and then waits in the triggerer.

    XCom: ``version`` (what ``other_than`` of a later wait takes), and ``root``; or ``uri``, ``fingerprint``; or
    ``repo_url``, ``path``, ``commit``, ``hash``.

    :param root: folder of versions, ``<root>/<version>/<file>``; the newest one counts (templated).
    :param uri: one file or object: a path, a ``file``, ``http`` or ``https`` URL, or an object in a store that Airflow
        can read (templated).
    :param dvc: ``{repo_url, path, revision, git_conn_id}`` of what DVC tracks; its hash is the version (templated).
    :param lfs: the same for a file that Git LFS keeps (templated).
    :param other_than: version that does not count; empty: any counts (templated).
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
        """Read the rendered arguments.

        :raises InvalidArgumentError: when one of them is not usable.
        """
        if not isinstance(self.other_than, str):
            raise InvalidArgumentError(f"other_than is {self.other_than!r}; allowed: a text, or '' for any version")
        place = {"root": self.root, "uri": self.uri, "dvc": self.dvc, "lfs": self.lfs}
        return DatasetGoalTrigger(place=place, other_than=self.other_than, poll_seconds=self.poll_seconds)
