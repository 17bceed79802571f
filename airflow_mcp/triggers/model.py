"""An event for each new version of a registered model, or each move of an alias."""

from __future__ import annotations

from typing import Any

from airflow_mcp import settings
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.watch import Sighting
from airflow_mcp.exceptions import InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.mlflow_api import filter_value
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger

_NEWEST = 20
"""How many versions are looked at for one that is ready."""


class ModelVersionTrigger(WatchTrigger):
    """Watch a registered model in MLflow: where an alias points, or which version is the newest.

    With an alias every move gives an event, also back to an earlier version. Without one, a version gives one event
    when it is ``READY``.

    Payload: ``kind`` (``model``), ``model_name``, ``alias``, ``version``, ``run_id``.

    :param model_name: name of the registered model; it need not exist yet.
    :param alias: alias to watch, for example ``champion``; None watches for new versions.
    :param mlflow_conn_id: connection to MLflow; None takes option ``mlflow_conn_id``.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        model_name: str,
        alias: str | None = None,
        mlflow_conn_id: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        if not model_name:
            raise InvalidArgumentError(f"model_name is {model_name!r}; allowed: the name of a registered model")
        self.model_name, self.alias, self.mlflow_conn_id = model_name, alias, mlflow_conn_id

    @property
    def subject(self) -> str:
        """What is watched, in words."""
        return f"alias {self.alias!r} of model {self.model_name!r}" if self.alias else f"model {self.model_name!r}"

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("model_name", "alias", "mlflow_conn_id")}

    async def look(self) -> Sighting | None:
        """Ask MLflow."""
        hook = MlflowHook(self.mlflow_conn_id or settings.default_mlflow_conn_id())
        found = await (self._pointed_at(hook, self.alias) if self.alias else self._newest(hook))
        if found is None:
            return None
        payload = {
            "kind": "model",
            "model_name": self.model_name,
            "alias": self.alias,
            "version": found.version,
            "run_id": found.run_id,
        }
        return Sighting(found.version, payload, once="" if self.alias else found.version)

    async def _pointed_at(self, hook: MlflowHook, alias: str) -> ModelVersion | None:
        try:
            return await hook.get_model_version_by_alias.aio(self.model_name, alias)
        except MlflowNotFoundError:
            return None

    async def _newest(self, hook: MlflowHook) -> ModelVersion | None:
        where = f"name = {filter_value(self.model_name)}"
        versions = await hook.search_model_versions.aio(where, ("version_number DESC",), _NEWEST)
        return next((version for version in versions if version.status == "READY"), None)
