"""Finds decisions that MLflow keeps and the audit log lacks: their task died, or the log was down, in between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.audit.decisions import FOUND_LATER, load_check_decided, version_registered, version_subject
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.summary import read_drift_summary
from airflow_mcp.core.gate.approval import Approval
from airflow_mcp.core.gate.rules.verdicts import Decision
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.core.rollout.state import RolloutState
from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.registry.aliases import versions_of
from airflow_mcp.registry.evidence import find_gate_report
from airflow_mcp.registry.recording import STEP_TAKEN, approval_event, drift_event, gate_event, rollout_event

if TYPE_CHECKING:
    from airflow_mcp.core.audit.event import AuditEvent
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.audit.record import Record
    from airflow_mcp.core.mlflow_entities import ModelVersion, Run
    from airflow_mcp.mlflow_client.operations import MlflowOperations

LOOKBACK = timedelta(days=7)
"""How old a decision may be to be looked for: older ones were looked for before."""
_MOST_RECORDS = 2000
"""Latest records of a model that are compared: more than a week has."""


class MissingDecisions:
    """The decisions about registered models that a log lacks.

    :param mlflow: the MLflow server.
    :param log: the log; it is only read.
    :param environment: dev, test or prod.
    :param now: the time, with a time zone.
    """

    def __init__(self, mlflow: MlflowOperations, log: AuditLog, environment: str, now: datetime) -> None:
        self._mlflow, self._log, self._environment = mlflow, log, environment
        self._since = now - LOOKBACK
        self.problems: list[str] = []
        """What could not be read, and so was not compared."""

    def of(self, model_name: str) -> Iterator[AuditEvent]:
        """Yield the events about one registered model.

        :param model_name: registered model.
        :raises AuditUnavailableError: when the log does not answer.
        """
        for version in versions_of(self._mlflow, model_name):
            yield from self._of_version(version)
        known = self._facts(model_name, "gate.")
        drifts = {record.event["new"].get("run_id") for record in self._facts(model_name, "drift.")}
        for run in self._runs(model_name):
            try:
                if run.tags.get(contract.TAG_KIND) == contract.KIND_DRIFT_CHECK:
                    if run.run_id not in drifts:
                        yield from self._of_drift(model_name, run)
                elif run.tags.get(contract.TAG_GATE_VERDICT):
                    yield from self._of_gate(run, known)
            except EvidenceError as error:
                self.problems.append(str(error))

    def _of_version(self, version: ModelVersion) -> Iterator[AuditEvent]:
        """Yield what is missing about a version: its registration, its last load check, the last step of a rollout."""
        found: list[AuditEvent] = []
        if version.creation_timestamp >= self._since.timestamp() * 1000 and version.status == "READY":
            found.append(version_registered(version, self._environment, FOUND_LATER))
        check = read_load_check(version.tags)
        if check is not None and check.run_id and self._is_recent(check.at):
            found.append(load_check_decided(version.name, version.version, check, self._environment, FOUND_LATER))
        if found:
            subject = version_subject(version.name, version.version)
            yield from _unknown(found, self._log.facts(subject, "", _MOST_RECORDS))
        if document := RolloutState.of(version).document:
            step = rollout_event(STEP_TAKEN, version.name, document, self._environment, FOUND_LATER)
            yield from _unknown([step], self._facts(version.name, "rollout."))

    def _of_drift(self, model_name: str, run: Run) -> Iterator[AuditEvent]:
        text = self._mlflow.find_artifact(run.run_id, contract.ARTIFACT_DRIFT_SUMMARY)
        if text is not None:
            summary = read_drift_summary(text, f"{contract.ARTIFACT_DRIFT_SUMMARY} of MLflow run {run.run_id}")
            yield drift_event(model_name, summary, self._environment, FOUND_LATER)

    def _of_gate(self, run: Run, known: list[Record]) -> Iterator[AuditEvent]:
        """Yield what the gate decided about a run, and that a person approved it."""
        has = {(record.event["new"].get("run_id"), record.event["new"].get("decision")) for record in known}
        decided = run.tags[contract.TAG_GATE_VERDICT]
        if (run.run_id, decided) in has:
            return
        stored = find_gate_report(self._mlflow, run.run_id)
        if stored is not None and stored.report.decision is not None:
            inputs = self._mlflow.find_artifact(run.run_id, contract.ARTIFACT_GATE_INPUTS)
            inputs_hash = content_hash(inputs) if inputs is not None else ""
            made = partial(gate_event, stored.report, stored.report.decision.value, stored.hash, inputs_hash)
            yield from _unknown([made(self._environment, FOUND_LATER)], known)
        if decided == Decision.APPROVED.value:
            text = self._mlflow.find_artifact(run.run_id, contract.ARTIFACT_GATE_APPROVAL)
            source = f"{contract.ARTIFACT_GATE_APPROVAL} of MLflow run {run.run_id}"
            if text is not None:
                approval = parse_document(Approval, text, source)
                yield from _unknown([approval_event(approval, self._environment, FOUND_LATER)], known)

    def _runs(self, model_name: str) -> list[Run]:
        if not self._experiments:
            return []
        since = int(self._since.timestamp() * 1000)
        name = filter_value(model_name)
        where = f"tags.`{contract.TAG_MODEL_NAME}` = {name} and attributes.start_time > {since}"
        return self._mlflow.search_runs(self._experiments, where)

    @cached_property
    def _experiments(self) -> list[str]:
        return [experiment.experiment_id for experiment in self._mlflow.search_experiments()]

    def _facts(self, model_name: str, action_prefix: str) -> list[Record]:
        return self._log.facts(model_subject(model_name), action_prefix, _MOST_RECORDS)

    def _is_recent(self, at: str) -> bool:
        try:
            return datetime.fromisoformat(at) >= self._since
        except (ValueError, TypeError):  # no time, or one without a time zone
            return False


def _unknown(events: list[AuditEvent], records: list[Record]) -> Iterator[AuditEvent]:
    known = {record.event["id"] for record in records}
    yield from (event for event in events if event.id not in known)
