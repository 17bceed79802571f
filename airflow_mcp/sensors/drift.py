"""Wait for the verdict of the newest drift check of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp.core.argument import required_text
from airflow_mcp.core.drift.goal import VERDICTS, DriftGoal
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.sensors.waiting import WaitingSensor
from airflow_mcp.triggers.drift import DriftGoalTrigger


class DriftSensor(WaitingSensor):
    """Wait until the newest finished drift check of a model has one of the given verdicts.

    Only the newest check counts: once it found no drift, an older check that found drift does not count.

    XCom: ``run_id`` of the check, ``verdict``, ``drift_share``, ``data_uri``, ``data_version``, ``data_hash``.

    :param model_name: registered model of the checked data (templated).
    :param experiment_name: MLflow experiment of the checks; it need not exist yet (templated).
    :param verdicts: verdicts that end the wait: ``drifted``, ``not_drifted``, ``inconclusive`` (templated).
    :param since: only a check that ended at this time or later counts, such as ``{{ dag_run.run_after }}``; ISO 8601
        with a time zone; empty: any time (templated).
    :param data_version: only checks of this version of the data count; empty: any version (templated).
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("model_name", "experiment_name", "verdicts", "since", "data_version")
    operator_extra_links = (MlflowRunLink(),)
    ui_color = "#e6dcf7"

    def __init__(
        self,
        *,
        model_name: str,
        experiment_name: str,
        verdicts: Sequence[str] = VERDICTS,
        since: str = "",
        data_version: str = "",
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.model_name = model_name
        self.experiment_name = experiment_name
        self.verdicts = verdicts
        self.since = since
        self.data_version = data_version

    def goal_trigger(self) -> DriftGoalTrigger:
        """Return the trigger for the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        if isinstance(self.verdicts, str) or not isinstance(self.verdicts, Sequence):
            raise InvalidArgumentError(f"verdicts must be a list of {', '.join(VERDICTS)}; got {self.verdicts!r}")
        goal = DriftGoal(
            required_text("model_name", self.model_name),
            required_text("experiment_name", self.experiment_name),
            verdicts=tuple(self.verdicts),
            since=str(self.since or ""),
            data_version=str(self.data_version or ""),
        )
        conn_id = self.hook.mlflow_conn_id
        return DriftGoalTrigger(goal=goal.to_json(), mlflow_conn_id=conn_id, poll_seconds=self.poll_seconds)

    def result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the check that was found, and link to its run."""
        self.mlflow_run_url = self.hook.run_url(self.hook.get_run(str(found["run_id"])))
        self.log.info("drift check %s: %s", found["run_id"], found["verdict"])
        return dict(found)
