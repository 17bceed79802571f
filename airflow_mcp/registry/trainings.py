"""A model's trainings in MLflow: the latest one, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.registry.moves import read_history
from airflow_mcp.core.retrain.documents import TrainingOutcome
from airflow_mcp.exceptions import MlflowNotFoundError
from airflow_mcp.mlflow_client.api import filter_value

if TYPE_CHECKING:
    from airflow_mcp.mlflow_client.operations import MlflowOperations

_JUDGED: Mapping[str, TrainingOutcome] = {Verdict.FAILED.value: "rejected", Verdict.INCONCLUSIVE.value: "inconclusive"}
_LOOKED_AT = 20
"""Newest trainings on the same data that are read: more retries than that are not expected."""
_NEWEST_FIRST = ["attributes.start_time DESC"]


class Trainings:
    """The trainings of one registered model.

    :param mlflow: the MLflow server.
    :param experiment_name: experiment of the trainings; need not exist yet.
    :param model_name: registered model; need not exist yet.
    """

    def __init__(self, mlflow: MlflowOperations, experiment_name: str, model_name: str) -> None:
        self.mlflow, self.experiment_name, self.model_name = mlflow, experiment_name, model_name

    def latest(self) -> Run | None:
        """Return the training that started last, however it ended."""
        found = self._search("", 1)
        return found[0] if found else None

    def concluded_on(self, data_hash: str) -> str:
        """Return how a training on these data ended, as text; empty when none has ended with a verdict.

        :param data_hash: hash of the data.
        """
        for run in self._on(data_hash):
            if run.tags.get(contract.TAG_MODEL_VERSION):
                return f"registered as {run.tags[contract.TAG_MODEL_VERSION]}"
            if run.tags.get(contract.TAG_GATE_VERDICT) in (Verdict.FAILED, Verdict.INCONCLUSIVE):
                return f"the gate's verdict on it is {run.tags[contract.TAG_GATE_VERDICT]}"
        return ""

    def of_dag_run(self, dag_id: str, run_id: str, data_hash: str) -> Run | None:
        """Return the training of a Dag run: its own, or one on the same data that it reused and judged.

        :param dag_id: Dag that trains.
        :param run_id: its Dag run.
        :param data_hash: hash of the data to train on; empty looks only for the Dag run's own training.
        """
        own = self._search(
            f" and tags.`{contract.TAG_DAG_ID}` = {filter_value(dag_id)}"
            f" and tags.`{contract.TAG_DAG_RUN_ID}` = {filter_value(run_id)}",
            1,
        )
        if own or not data_hash:
            return own[0] if own else None
        return next((run for run in self._on(data_hash) if run.tags.get(contract.TAG_GATE_VERDICT)), None)

    def outcome_of(self, run: Run, *, ended_well: bool) -> tuple[TrainingOutcome, str]:
        """Return the outcome of a training, and why.

        :param run: its MLflow run.
        :param ended_well: whether the Dag run ended without a failed task.
        """
        verdict = run.tags.get(contract.TAG_GATE_VERDICT, "")
        about = f"MLflow run {run.run_id}"
        version = run.tags.get(contract.TAG_MODEL_VERSION, "").removeprefix(f"{self.model_name}/")
        if version:
            outcome, detail = self._of_version(version, ended_well=ended_well)
            return outcome, f"{detail}, {about}"
        if verdict in _JUDGED:
            return _JUDGED[verdict], f"the gate's verdict is {verdict}, {about}"
        if verdict == Verdict.PASSED:
            return "failed", f"it passed the gate and was not registered, {about}"
        ended = f"it is {run.status}" if run.status != "FINISHED" else f"its gate says {verdict or 'nothing'}"
        return "failed", f"{ended}, {about}"

    def _of_version(self, version: str, *, ended_well: bool) -> tuple[TrainingOutcome, str]:
        if self._was_promoted(version):
            return "promoted", f"version {version}"
        if ended_well:
            return "registered", f"version {version}, not promoted"
        return "failed", f"version {version} was registered and not promoted: the Dag run did not end well"

    def _was_promoted(self, version: str) -> bool:
        try:
            model = self.mlflow.get_registered_model(self.model_name)
        except MlflowNotFoundError:
            return False
        if model.aliases.get(contract.ALIAS_CHAMPION) == version:
            return True
        return any(move.action == "promote" and move.champion_after == version for move in read_history(model.tags))

    def _on(self, data_hash: str) -> list[Run]:
        on_data = f" and tags.`{contract.TAG_DATA_HASH}` = {filter_value(data_hash)}"
        return self._search(f"{on_data} and attributes.status = 'FINISHED'", _LOOKED_AT)

    def _search(self, further: str, limit: int) -> list[Run]:
        experiment = self.mlflow.get_experiment_by_name(self.experiment_name)
        if experiment is None:
            return []
        of_model = (
            f"tags.`{contract.TAG_KIND}` = {filter_value(contract.KIND_TRAINING)} "
            f"and tags.`{contract.TAG_MODEL_NAME}` = {filter_value(self.model_name)}"
        )
        return list(self.mlflow.search_runs([experiment.experiment_id], f"{of_model}{further}", _NEWEST_FIRST, limit))
