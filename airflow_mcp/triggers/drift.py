"""An event for each drift check that found drift."""

from __future__ import annotations

from typing import Any

from airflow_mcp import settings
from airflow_mcp.core import contract
from airflow_mcp.core.watch import Sighting
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.mlflow_api import filter_value
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger


class DriftVerdictTrigger(WatchTrigger):
    """Watch the drift checks of a model in MLflow; a finished one with the verdict ``drifted`` gives one event.

    Other verdicts give none: ``inconclusive`` says nothing about the data.

    Payload: ``kind`` (``drift``), ``model_name``, ``experiment``, ``run_id`` of the check, ``data_uri``,
    ``data_version``.

    :param model_name: registered model that the checked data belongs to.
    :param experiment: MLflow experiment of the checks; it need not exist yet.
    :param mlflow_conn_id: connection to MLflow; None takes option ``mlflow_conn_id``.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        model_name: str,
        experiment: str,
        mlflow_conn_id: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        if not model_name or not experiment:
            raise InvalidArgumentError(
                f"model_name is {model_name!r} and experiment {experiment!r}; both are needed, as in the drift check"
            )
        self.model_name, self.experiment, self.mlflow_conn_id = model_name, experiment, mlflow_conn_id

    @property
    def subject(self) -> str:
        """What is watched, in words."""
        return f"drift checks of model {self.model_name!r} in experiment {self.experiment!r}"

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("model_name", "experiment", "mlflow_conn_id")}

    async def look(self) -> Sighting | None:
        """Ask MLflow for the newest check that found drift."""
        hook = MlflowHook(self.mlflow_conn_id or settings.default_mlflow_conn_id())
        experiment = await hook.get_experiment_by_name.aio(self.experiment)
        if experiment is None:
            return None
        tags = {
            contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_DRIFT_VERDICT: "drifted",
        }
        where = " and ".join(f"tags.`{name}` = {filter_value(text)}" for name, text in tags.items())
        runs = await hook.search_runs.aio(
            [experiment.experiment_id],
            f"attributes.status = 'FINISHED' and {where}",
            ("attributes.end_time DESC",),
            1,
        )
        if not runs:
            return None
        payload = {
            "kind": "drift",
            "model_name": self.model_name,
            "experiment": self.experiment,
            "run_id": runs[0].run_id,
            "data_uri": runs[0].tags.get(contract.TAG_DATA_URI, ""),
            "data_version": runs[0].tags.get(contract.TAG_DATA_VERSION, ""),
        }
        return Sighting(runs[0].run_id, payload, once=runs[0].run_id)
