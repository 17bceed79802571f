"""Step ``drift``: compare current data with reference data or its stored profile, and keep the evidence."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.drift.page import render_drift_report
from airflow_mcp.core.drift.profile import DataProfile, read_profile, write_profile
from airflow_mcp.core.drift.summary import DriftRequest, DriftSide, DriftSummary
from airflow_mcp.work.drift.dataset_comparison import DatasetComparison, compare
from airflow_mcp.work.drift.evidently_report import EvidentlyReport, evidently_report
from airflow_mcp.work.drift.profiles import merge_profiles
from airflow_mcp.work.reading.dataset_frame import verified_file
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog, read_run_artifact

_log = logging.getLogger(__name__)
_NOT_IN_METRIC_NAMES = re.compile(r"[^\w\-. :]")
_MAX_METRIC_NAME = 240


def check_drift(environ: Mapping[str, str]) -> DriftSummary:
    """Compare and record in the drift check's own MLflow run, which ends FINISHED.

    Profile, reports, metrics and tag are written first and the summary last: where it is, everything is.

    :param environ: environment variables with the path of a ``DriftRequest``.
    :return: the summary as it was stored.
    :raises RefusedError: for a request, dataset or profile that cannot be compared, or a deleted run. The run's status
        is left for the caller to end.
    :raises MlflowError: when MLflow does not answer.
    """
    request = read_request(environ, DriftRequest)
    run = RunLog(request.run_id)
    run.require_active()
    comparison = compare(_side(request.reference), _side(request.current), request.policy)
    report = None
    if request.evidently_rows:
        data = request.reference.data, request.current.data
        report = evidently_report(*data, comparison.result, request.evidently_rows)
    summary = DriftSummary(
        identity=request.identity,
        run_id=request.run_id,
        model_name=request.model_name,
        result=comparison.result,
        reference_profiles=request.reference.profiles,
        evidently=report.sample if report else None,
    )
    _record(run, summary, comparison, report)
    return summary


def metric_names(columns: Sequence[str]) -> dict[str, str]:
    """Give each column its metric's name ``drift/<column>``, with what MLflow does not allow replaced by ``_``."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for column in columns:
        base = _NOT_IN_METRIC_NAMES.sub("_", column)[:_MAX_METRIC_NAME]
        base = base if base.strip(".") else "_"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names[column] = f"drift/{name}"
    return names


def _side(asked: DriftSide) -> Sequence[DatasetPin] | DataProfile:
    """Give what is compared: stored profiles, merged, where there are any."""
    if not asked.profiles:
        return asked.data
    profiles = [_stored_profile(uri) for uri in asked.profiles]
    return profiles[0] if len(profiles) == 1 else merge_profiles(profiles)


def _stored_profile(uri: str) -> DataProfile:
    if uri.startswith("runs:/"):
        run_id, _, artifact = uri.removeprefix("runs:/").partition("/")
        return read_profile(read_run_artifact(run_id, artifact), uri)
    with verified_file(DatasetPin(uri=uri)) as (path, used):
        return read_profile(path.read_bytes(), used.uri)


def _record(run: RunLog, summary: DriftSummary, comparison: DatasetComparison, report: EvidentlyReport | None) -> None:
    result = summary.result
    run.require_active()
    if comparison.current is not None:
        run.log_text(write_profile(comparison.current), contract.ARTIFACT_PROFILE)
    run.log_text(render_drift_report(summary), contract.ARTIFACT_DRIFT_REPORT_HTML)
    if report is not None and report.html:
        run.log_text(report.html, contract.ARTIFACT_EVIDENTLY_REPORT)
    metrics: dict[str, float] = {
        "drifted_columns_count": float(result.drifted_columns_count),
        "reference_rows": float(result.reference_rows),
        "current_rows": float(result.current_rows),
    }
    if result.drift_share is not None:
        metrics["drift_share"] = result.drift_share
    scores = {
        column.column: column.score
        for column in result.columns
        if column.score is not None and math.isfinite(column.score)
    }
    names = metric_names(list(scores))
    run.log_metrics(metrics | {names[column]: score for column, score in scores.items()})
    run.set_tags({contract.TAG_DRIFT_VERDICT: result.verdict})
    run.log_text(dump_document(summary), contract.ARTIFACT_DRIFT_SUMMARY)
    run.end("FINISHED")
    _log.info("drift: %s: %s", result.verdict, result.reason)
