"""Reads of the artifacts of evaluations, replays and gates in an MLflow run."""

from __future__ import annotations

from typing import NamedTuple

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.importance import PLACES, read_importance
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.identity import content_hash
from airflow_mcp.mlflow_client.operations import MlflowOperations


def find_evidence(mlflow: MlflowOperations, run_id: str) -> EvaluationEvidence | None:
    """Read the evidence of an evaluation.

    :param mlflow: the MLflow server.
    :param run_id: the candidate's run.
    :return: the evidence, or None when the run has none.
    :raises EvidenceError: when it is malformed.
    :raises MlflowError: when the server does not answer.
    """
    text = mlflow.find_artifact(run_id, contract.ARTIFACT_EVIDENCE)
    source = f"{contract.ARTIFACT_EVIDENCE} of MLflow run {run_id}"
    return None if text is None else parse_document(EvaluationEvidence, text, source)


class StoredReport(NamedTuple):
    """The report of a gate, and the hash of its text."""

    report: GateReport
    hash: str


def find_gate_report(mlflow: MlflowOperations, run_id: str) -> StoredReport | None:
    """Read the report of a gate; arguments and errors are those of :func:`find_evidence`."""
    text = mlflow.find_artifact(run_id, contract.ARTIFACT_GATE_REPORT_JSON)
    source = f"{contract.ARTIFACT_GATE_REPORT_JSON} of MLflow run {run_id}"
    return None if text is None else StoredReport(parse_document(GateReport, text, source), content_hash(text))


def find_replay(mlflow: MlflowOperations, run_id: str) -> ReplayEvidence | None:
    """Read the evidence of a replay; arguments and errors are those of :func:`find_evidence`."""
    text = mlflow.find_artifact(run_id, contract.ARTIFACT_REPLAY)
    source = f"{contract.ARTIFACT_REPLAY} of MLflow run {run_id}"
    return None if text is None else parse_document(ReplayEvidence, text, source)


def find_importance(mlflow: MlflowOperations, run_id: str) -> dict[str, float] | None:
    """Read the importance of a model's features; arguments and errors are those of :func:`find_evidence`.

    :return: feature to importance, or None when the run has none.
    """
    places = (*PLACES, *(f"{contract.ARTIFACT_COPIED_DIR}/{place}" for place in PLACES))
    for place in mlflow.existing_artifacts(run_id, places)[:1]:
        return read_importance(mlflow.download_artifact(run_id, place), f"{place} of MLflow run {run_id}")
    return None
