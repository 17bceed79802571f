"""The lease of a split: servers give all requests to the champion when nobody renews it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_mcp.core.serving.traffic import TAG_ROLLOUT_LEASE

if TYPE_CHECKING:
    from airflow_mcp.core.serving.traffic import RolloutDocument
    from airflow_mcp.mlflow_client.operations import MlflowOperations

LEASE = timedelta(minutes=5)
"""Longer than a restart of a triggerer or the way of a task through the queue, during which nobody renews it."""
_RENEWED_EVERY = timedelta(minutes=1)


class RolloutLease:
    """The lease of the splits of one model: a time in a tag of the champion's version.

    It needs no claim: whoever writes it only says that somebody looks after the rollout now.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    """

    def __init__(self, mlflow: MlflowOperations, model_name: str) -> None:
        self._mlflow, self._model_name = mlflow, model_name
        self._renewed: datetime | None = None

    def grant(self, document: RolloutDocument) -> None:
        """Write the lease of a split before the split itself is written.

        :param document: the split.
        """
        if document.on_lost == "stable" and document.is_active:
            self._mlflow.set_model_version_tag(self._model_name, document.stable, TAG_ROLLOUT_LEASE, _until(_now()))

    async def renew(self, document: RolloutDocument) -> None:
        """Renew the lease, at most once a minute.

        :param document: the split in force, whose lease has not run out.
        """
        now = _now()
        if document.on_lost != "stable" or (self._renewed is not None and now - self._renewed < _RENEWED_EVERY):
            return
        tag = self._mlflow.set_model_version_tag
        await tag.aio(self._model_name, document.stable, TAG_ROLLOUT_LEASE, _until(now))
        self._renewed = now


def _until(now: datetime) -> str:
    return (now + LEASE).isoformat()


def _now() -> datetime:
    return datetime.now(UTC)
