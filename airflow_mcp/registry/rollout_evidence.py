"""The evidence of a rollout: its MLflow run with journal and report, and the record on the version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.rollout.advance import analysis_of, first_document
from airflow_mcp.core.rollout.analysis import AnalysisOutcome
from airflow_mcp.core.rollout.report import render_report, report_of
from airflow_mcp.core.rollout.state import (
    ARTIFACT_JOURNAL,
    ARTIFACT_REPORT_HTML,
    ARTIFACT_REPORT_JSON,
    KIND_ROLLOUT,
    Journal,
    RolloutRecord,
)
from airflow_mcp.exceptions import EvidenceError, MlflowError, MlflowNotFoundError
from airflow_mcp.registry.rollout_control import read_journal
from airflow_mcp.registry.rollouts import write_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mcp.core.rollout.advance import Finish
    from airflow_mcp.mlflow_client.operations import MlflowOperations

_NOT_ANALYSED = AnalysisOutcome(verdict="inconclusive", reason="no rule was judged")


class RolloutEvidence:
    """What one rollout leaves in MLflow. What cannot be kept in its run is logged, because it must not stop a decision.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param canary: version that is rolled out.
    :param log: where evidence that could not be kept is logged.
    """

    def __init__(self, mlflow: MlflowOperations, model_name: str, canary: str, log: TaskLog) -> None:
        self._mlflow, self._name, self._canary, self._log = mlflow, model_name, canary, log
        self.run_id = ""
        """MLflow run of the rollout; empty while there is none."""

    def find_run(self, experiment: str, identity: str) -> str:
        """Return the oldest MLflow run of a rollout, as every try finds it; empty when there is none.

        :param experiment: ID of the experiment.
        :param identity: name of the rollout.
        """
        wanted = f"tags.`{contract.TAG_IDENTITY}` = '{identity}'"
        runs = self._mlflow.search_runs([experiment], wanted, ["attributes.start_time ASC"])
        return runs[0].run_id if runs else ""

    def is_live(self, run_id: str) -> bool:
        """Return whether an MLflow run is there, and not deleted.

        :param run_id: the MLflow run; empty for none.
        """
        try:
            return bool(run_id) and self._mlflow.get_run(run_id).lifecycle_stage == "active"
        except MlflowNotFoundError:
            return False

    def create_run(self, experiment: str, identity: str, tags: Mapping[str, str]) -> str:
        """Create the MLflow run of a rollout and return its ID.

        :param experiment: ID of the experiment.
        :param identity: name of the rollout.
        :param tags: further tags.
        """
        tags = {
            **tags,
            contract.TAG_KIND: KIND_ROLLOUT,
            contract.TAG_IDENTITY: identity,
            contract.TAG_MODEL_NAME: self._name,
            contract.TAG_MODEL_VERSION: self.version_tag,
        }
        name = f"rollout {self._name} {self._canary}"
        return self._mlflow.create_run(experiment, name, tags, _milliseconds(datetime.now(UTC))).run_id

    @property
    def version_tag(self) -> str:
        """The tag of the run that names the version."""
        return f"{self._name}/{self._canary}"

    def journal(self, run_id: str) -> Journal | None:
        """Return the journal in an MLflow run; None when it is lost.

        :param run_id: the MLflow run; empty for none.
        """
        try:
            return read_journal(self._mlflow, run_id)
        except (EvidenceError, MlflowNotFoundError) as error:
            self._log.warning("%s: the journal of the rollout is lost: %s", self._name, error)
            return None

    def keep(self, journal: Journal) -> None:
        """Store the journal."""
        self._upload(ARTIFACT_JOURNAL, dump_document(journal, indent=None).encode(), "application/json")

    def report(self, journal: Journal, end: Finish, now: datetime) -> None:
        """Store the report.

        :param journal: what was measured.
        :param end: how it ended.
        :param now: present time, with a time zone.
        """
        analysis = _last_analysis(journal)
        report = report_of(journal, analysis, succeeded=end.succeeded, cause=end.cause, reason=end.reason, now=now)
        self._upload(ARTIFACT_REPORT_JSON, dump_document(report).encode(), "application/json")
        self._upload(ARTIFACT_REPORT_HTML, render_report(report).encode(), "text/html")

    def _upload(self, path: str, data: bytes, content_type: str) -> None:
        try:
            self._mlflow.upload_artifact(self.run_id, path, data, content_type=content_type)
        except MlflowError as error:
            self._log.warning("%s: %s of MLflow run %s was not stored: %s", self._name, path, self.run_id, error)

    def end_run(self, now: datetime, error: str | None) -> None:
        """End the MLflow run; with an error it has failed."""
        try:
            if error is not None:
                self._mlflow.set_tag(self.run_id, contract.TAG_ERROR, error[:4000])
            self._mlflow.update_run(self.run_id, "FINISHED" if error is None else "FAILED", _milliseconds(now))
        except MlflowError as problem:
            self._log.warning("%s: MLflow run %s was not ended: %s", self._name, self.run_id, problem)

    def record(self, phase: str, journal: Journal, end: Finish | None, by: str) -> None:
        """Write on the version how far its rollout is.

        :param phase: a phase of :class:`~airflow_mcp.core.rollout.state.RolloutRecord`.
        :param journal: the journal.
        :param end: how it ended; None while it goes on.
        :param by: who writes.
        :raises MlflowNotFoundError: when the version was deleted.
        """
        record = RolloutRecord.model_validate(
            {
                "phase": phase,
                "stable": journal.stable,
                "since": datetime.now(UTC),
                "cause": end.cause if end else "",
                "reason": end.reason if end else "",
                "run_id": self.run_id,
                "by": by,
            }
        )
        write_record(self._mlflow, self._name, self._canary, journal.identity, record)


def _last_analysis(journal: Journal) -> AnalysisOutcome:
    """Judge the rules on the last split that was counted, as the decision did."""
    tally = journal.tally
    events = [event for event in journal.events if tally and event.generation == tally.generation]
    if not events:
        return _NOT_ANALYSED
    document = first_document(journal, run_id="", by="", now=journal.started)
    update = {"generation": events[-1].generation, "weight": events[-1].weight, "step": events[-1].step}
    return analysis_of(journal, document.model_copy(update=update))


def _milliseconds(now: datetime) -> int:
    return int(now.timestamp() * 1000)
