"""Step ``drift``: compare current data with reference data or its stored profile, and record the result."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.drift.page import render_drift_report
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.profile import DataProfile, write_profile
from airflow_mcp.core.drift.summary import DriftRequest, DriftSide, DriftSummary
from airflow_mcp.core.serving.prediction_log import find_our_columns
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.drift.dataset_comparison import DatasetComparison, compare_datasets
from airflow_mcp.work.drift.evidently_report import EvidentlyReport, evidently_report
from airflow_mcp.work.drift.partitions import sides_on_engine
from airflow_mcp.work.drift.profiles import merge_profiles, stored_profile
from airflow_mcp.work.reading.request_log import RequestLog
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog

_log = logging.getLogger(__name__)
_NOT_IN_METRIC_NAMES = re.compile(r"[^\w\-. :]")
_MAX_METRIC_NAME = 240
"""Characters: MLflow accepts 250, and the prefix and a number need some."""


def check_drift(environ: Mapping[str, str]) -> DriftSummary:
    """Compare and record in the drift check's own MLflow run, which ends FINISHED.

    The summary is written last, so that a run with a summary is complete.

    :param environ: environment variables with the path of a ``DriftRequest``.
    :return: the summary as it was stored.
    :raises RefusedError: when the request, data or profile cannot be compared, or the run was deleted. The run is not
        ended then; the caller does that.
    :raises MlflowError: when MLflow does not answer.
    :raises EngineError: when the cluster that should read the data does not answer, or fails.
    """
    request = read_request(environ, DriftRequest)
    run = RunLog(request.run_id)
    run.require_active()
    policy = _without_log_columns(request)
    sides = sides_on_engine((_side(request.reference), _side(request.current)), policy, request.engine)
    comparison = compare_datasets(*sides, policy)
    report = None
    if request.evidently_rows:
        data = _data(request.reference), _data(request.current)
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
    """Return the metric of each column: ``drift/<column>``, with characters that MLflow refuses replaced by ``_``.

    :param columns: names of the columns; metrics that would be equal get a number.
    """
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
    """Return the stored profiles, merged, or the data if there are none."""
    if not asked.profiles:
        return _data(asked)
    profiles = [stored_profile(uri) for uri in asked.profiles]
    return profiles[0] if len(profiles) == 1 else merge_profiles(profiles)


def _data(asked: DriftSide) -> Sequence[DatasetPin]:
    """Return the data, with the prediction log of the model server if there is one.

    :raises DatasetError: when what is named as such a log is none.
    """
    if not asked.requests:
        return asked.data
    names = find_our_columns(RequestLog(asked.requests).columns())
    if "role" not in names:
        raise DatasetError(
            f"{public_uri(asked.requests)} must be a prediction log of the model server; got data without the columns "
            "request_id, row, requested_at and role. Nothing was compared"
        )
    return (*asked.data, LoggedRequests(uri=asked.requests, column=names["role"], roles=asked.roles))


def _without_log_columns(request: DriftRequest) -> ComparisonPolicy:
    """Return the policy without the columns that the model server adds to a prediction log, unless it names them."""
    logs = [side.requests for side in (request.reference, request.current) if side.requests]
    added = {name for uri in logs for name in find_our_columns(RequestLog(uri).columns()).values()}
    ignored = added - set(request.policy.named_columns) - set(request.policy.ignored_columns)
    return request.policy.model_copy(update={"ignored_columns": (*request.policy.ignored_columns, *sorted(ignored))})


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
