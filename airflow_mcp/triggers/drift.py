"""Triggers for drift checks in MLflow: one gives an event for each drift, the other waits for a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp import settings
from airflow_mcp.core import contract
from airflow_mcp.core.drift.goal import DriftGoal
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.watermark import Sighting
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.triggers.goal import GoalTrigger
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger


class DriftVerdictTrigger(WatchTrigger):
    """Watch the drift checks of a model in MLflow; a finished one with the verdict ``drifted`` gives one event.

    Other verdicts give none; ``inconclusive`` is not a statement about the data.

    Payload: ``kind`` (``drift``), ``model_name``, ``experiment_name``, ``run_id`` of the check, ``data_uri``,
    ``data_version``.

    :param model_name: registered model that the checked data belongs to.
    :param experiment_name: MLflow experiment of the checks; it need not exist yet.
    :param mlflow_conn_id: connection to MLflow; None takes option ``mlflow_conn_id``.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        model_name: str,
        experiment_name: str,
        mlflow_conn_id: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        if not model_name or not experiment_name:
            raise InvalidArgumentError(
                f"model_name is {model_name!r} and experiment_name {experiment_name!r}; both are needed, as "
                "in the drift check"
            )
        self.model_name, self.experiment_name, self.mlflow_conn_id = model_name, experiment_name, mlflow_conn_id

    @property
    def subject(self) -> str:
        """The watched drift checks in words, for messages."""
        return f"drift checks of model {self.model_name!r} in experiment {self.experiment_name!r}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("model_name", "experiment_name", "mlflow_conn_id")}

    async def look(self) -> Sighting | None:
        """Return the newest check that found drift."""
        hook = MlflowHook(self.mlflow_conn_id or settings.default_mlflow_conn_id())
        run = await newest_check(hook, self.model_name, self.experiment_name, {contract.TAG_DRIFT_VERDICT: "drifted"})
        if run is None:
            return None
        payload = {
            "kind": "drift",
            "model_name": self.model_name,
            "experiment_name": self.experiment_name,
            "run_id": run.run_id,
            "data_uri": run.tags.get(contract.TAG_DATA_URI, ""),
            "data_version": run.tags.get(contract.TAG_DATA_VERSION, ""),
        }
        return Sighting(run.run_id, payload, once=run.run_id)


class DriftGoalTrigger(GoalTrigger):
    """Wait for the verdict of the newest drift check, for a sensor.

    :param goal: the awaited check, as JSON of :class:`~airflow_mcp.core.drift.goal.DriftGoal`.
    :param mlflow_conn_id: connection to MLflow.
    :param poll_seconds: seconds between two looks, at least 1; longer while MLflow does not answer.
    """

    def __init__(
        self, *, goal: Mapping[str, Any], mlflow_conn_id: str, poll_seconds: float = DEFAULT_POLL_SECONDS
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.goal, self.mlflow_conn_id = DriftGoal.from_json(goal), mlflow_conn_id

    @property
    def subject(self) -> str:
        """The awaited check in words, for messages."""
        return self.goal.describe()

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"goal": self.goal.to_json(), "mlflow_conn_id": self.mlflow_conn_id}

    async def find(self) -> dict[str, Any] | None:
        """Return the check if it meets the goal. A new hook each time reads corrections of the connection."""
        goal = self.goal
        run = await newest_check(MlflowHook(self.mlflow_conn_id), goal.model_name, goal.experiment_name, goal.tags)
        return None if run is None or not goal.is_met_by(run) else goal.found(run)


async def newest_check(hook: MlflowHook, model_name: str, experiment_name: str, tags: Mapping[str, str]) -> Run | None:
    """Find the newest finished drift check of a model.

    :param hook: the MLflow connection.
    :param model_name: registered model that the checked data belongs to.
    :param experiment_name: experiment of the checks.
    :param tags: further tags that the run must have.
    :return: the run of the check; None when there is none (yet).
    """
    found = await hook.get_experiment_by_name.aio(experiment_name)
    if found is None:
        return None
    wanted = {contract.TAG_KIND: contract.KIND_DRIFT_CHECK, contract.TAG_MODEL_NAME: model_name, **tags}
    where = " and ".join(f"tags.`{name}` = {filter_value(text)}" for name, text in wanted.items())
    runs = await hook.search_runs.aio(
        [found.experiment_id], f"attributes.status = 'FINISHED' and {where}", ("attributes.end_time DESC",), 1
    )
    return runs[0] if runs else None
