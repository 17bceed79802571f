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
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.quality.summary import Baseline
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.mlflow_client.operations import MlflowOperations


def find_evidence(
    mlflow: MlflowOperations, run_id: str, place: str = contract.ARTIFACT_EVIDENCE
) -> EvaluationEvidence | None:
    """Read the evidence of an evaluation.

    :param mlflow: the MLflow server.
    :param run_id: the candidate's run.
    :param place: path of the artifact.
    :return: the evidence, or None when the run has none.
    :raises EvidenceError: when it is malformed.
    :raises MlflowError: when the server does not answer.
    """
    text = mlflow.find_artifact(run_id, place)
    source = f"{place} of MLflow run {run_id}"
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


def find_baseline(mlflow: MlflowOperations, version: ModelVersion) -> Baseline:
    """Return what the evaluation of a version measured, and the profile of its training data.

    :param mlflow: the MLflow server.
    :param version: the version; its run has the evidence, and the run of a copy has that of the source.
    :return: without metrics when the version was not evaluated.
    :raises EvidenceError: when the evidence is malformed.
    """
    run_id = run_of(version)
    is_copy = contract.TAG_COPY_RUN in version.tags
    place = f"{contract.ARTIFACT_COPIED_DIR}/{contract.ARTIFACT_EVIDENCE}" if is_copy else contract.ARTIFACT_EVIDENCE
    found = find_evidence(mlflow, run_id, place) if run_id else None
    measured = found.candidate if found is not None and not found.self_reported else None
    calibration = measured.calibration if measured else None
    is_positive = calibration is not None and calibration.event == "positive_class"
    return Baseline(
        version=version.version,
        metrics=measured.metrics if measured else {},
        calibration_error=calibration.ece if calibration and is_positive else None,
        profile=profile_of(version),
    )


def profile_of(version: ModelVersion) -> str:
    """Return the address of the stored profile of a version's training data; empty when there is none.

    :param version: the version.
    """
    profile = version.tags.get(contract.TAG_DATA_PROFILE, "")
    place = f"{contract.ARTIFACT_COPIED_DIR}/{profile}" if contract.TAG_COPY_RUN in version.tags else profile
    return f"runs:/{run_of(version)}/{place}" if profile else ""


def find_importance(mlflow: MlflowOperations, run_id: str) -> dict[str, float] | None:
    """Read the importance of a model's features; arguments and errors are those of :func:`find_evidence`.

    :return: feature to importance, or None when the run has none.
    """
    places = (*PLACES, *(f"{contract.ARTIFACT_COPIED_DIR}/{place}" for place in PLACES))
    for place in mlflow.existing_artifacts(run_id, places)[:1]:
        return read_importance(mlflow.download_artifact(run_id, place), f"{place} of MLflow run {run_id}")
    return None
