"""The Dag that trains, as Airflow shows it to a running task."""

from __future__ import annotations

from typing import Any, Protocol

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.retrain.documents import NOTE_LENGTH, OpenRun, TrainingOutcome, words

_ACTIVE = ["queued", "running"]


class TrainingRuns(Protocol):
    """The MLflow runs of a model's trainings."""

    def of_dag_run(self, dag_id: str, run_id: str, data_hash: str) -> Run | None:
        """Find the training of a Dag run."""

    def outcome_of(self, run: Run, *, ended_well: bool) -> tuple[TrainingOutcome, str]:
        """Return the outcome of a training, with a note."""


class AirflowTrainingDag:
    """Answers questions about the Dag that trains from Airflow, and from MLflow where a Dag run has not reported.

    :param instance: the running task instance, which asks Airflow.
    :param dag_id: id of the Dag.
    :param trainings: MLflow runs of the model's trainings.
    """

    def __init__(self, instance: Any, dag_id: str, trainings: TrainingRuns) -> None:
        self._instance, self._dag_id, self._trainings = instance, dag_id, trainings

    def has_run(self, run_id: str) -> bool:
        """Return whether there is a Dag run of this name."""
        return bool(self._instance.get_dr_count(self._dag_id, run_ids=[run_id]))

    def active_runs(self) -> int:
        """Count the runs that are queued or running."""
        return int(self._instance.get_dr_count(self._dag_id, states=_ACTIVE))

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        """Return the state of a Dag run. If it has ended without a report, the outcome comes from MLflow."""
        state: Any = self._instance.get_dagrun_state(self._dag_id, run_id) if self.has_run(run_id) else "missing"
        state = str(getattr(state, "value", state))
        if state in _ACTIVE:
            return OpenRun(run_id=run_id, state=state)
        run = self._trainings.of_dag_run(self._dag_id, run_id, "" if state == "missing" else data_hash)
        outcome, detail = None, "its Dag run is gone" if state == "missing" else f"its Dag run ended as {state}"
        if run is not None:
            outcome, detail = self._trainings.outcome_of(run, ended_well=state != "failed")
        elif state == "success":
            outcome, detail = "unchanged", f"{detail} without a training"
        return OpenRun(run_id=run_id, state=state, outcome=outcome, detail=words(detail, NOTE_LENGTH))
