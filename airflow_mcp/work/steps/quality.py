"""Step ``quality``: judge logged predictions by labels that arrived later, window by window, and record the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.quality.judgement import judge_check
from airflow_mcp.core.quality.page import render_quality_report
from airflow_mcp.core.quality.policy import WindowBounds, window_bounds
from airflow_mcp.core.quality.summary import QualityRequest, QualitySummary
from airflow_mcp.core.serving.prediction_log import find_our_columns
from airflow_mcp.work.drift.profiles import stored_profile
from airflow_mcp.work.quality.label_join import join_labels
from airflow_mcp.work.quality.logged_predictions import read_events, read_predictions
from airflow_mcp.work.quality.traffic import measure_traffic
from airflow_mcp.work.quality.windows import WindowMeasures
from airflow_mcp.work.reading.request_log import RequestLog
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog
from airflow_mcp.work.run.process import library_versions

if TYPE_CHECKING:
    from airflow_mcp.core.quality.summary import QualityWindow

_log = logging.getLogger(__name__)


def check_quality(environ: Mapping[str, str]) -> QualitySummary:
    """Judge and record in the quality check's own MLflow run, which ends FINISHED.

    The summary is written last, so that a run with a summary is complete.

    :param environ: environment variables with the path of a ``QualityRequest``.
    :return: the summary as it was stored.
    :raises RefusedError: when the request, log, labels or profile cannot be used, or the run was deleted. The run is
        not ended then; the caller does that.
    :raises MlflowError: when MLflow does not answer.
    """
    request = read_request(environ, QualityRequest)
    run = RunLog(request.run_id)
    run.require_active()
    summary = judge_quality(request)
    _record(run, summary)
    return summary


def judge_quality(request: QualityRequest) -> QualitySummary:
    """Judge the windows of a check without recording anything.

    :param request: the log, the labels and the policy.
    :raises DatasetError: when the log or the labels cannot be read or lack a column.
    """
    bounds = window_bounds(request.policy, request.as_of)
    profile = stored_profile(request.baseline.profile) if request.baseline and request.baseline.profile else None
    times = bounds[0].start.timestamp(), bounds[-1].end.timestamp()
    logged, events = read_predictions(request, *times, profile), read_events(request, *times)
    labelled = join_labels(request, logged)
    measures = WindowMeasures(request, labelled.frame, counts_outliers=profile is not None)
    windows = tuple(_window(measures, each) for each in bounds)
    verdict, reason = judge_check(windows)
    has_errors = "error" in find_our_columns(RequestLog(request.requests).columns())
    return QualitySummary(
        identity=request.identity,
        run_id=request.run_id,
        model_name=request.model_name,
        model_type=request.model_type,
        verdict=verdict,
        reason=reason,
        as_of=request.as_of,
        policy=request.policy,
        requests=public_uri(request.requests),
        labels=labelled.pins,
        baseline=request.baseline,
        windows=windows,
        join=labelled.counts,
        traffic=measure_traffic(logged.frame, events, request.policy.traffic, has_errors=has_errors),
        estimate=measures.basis,
        created_at=datetime.now(UTC).isoformat(),
        environment=library_versions(),
    )


def _window(measures: WindowMeasures, bounds: WindowBounds) -> QualityWindow:
    found = measures.measure(bounds)
    _log.info("%s: %s (%d of %d labelled)", found.name, found.verdict or "waits", found.labelled, found.rows)
    return found


def _record(run: RunLog, summary: QualitySummary) -> None:
    run.require_active()
    run.log_text(render_quality_report(summary), contract.ARTIFACT_QUALITY_REPORT_HTML)
    newest = summary.judged[-1]
    metrics = {"labelled_share": newest.labelled_share, "rows": float(newest.rows), "labelled": float(newest.labelled)}
    metrics |= {f"quality/{name}": value for name, value in newest.metrics.items()}
    metrics |= {f"estimated/{name}": value for name, value in newest.estimated.items()}
    run.log_metrics(metrics)
    run.set_tags({contract.TAG_QUALITY_VERDICT: summary.verdict})
    run.log_text(dump_document(summary), contract.ARTIFACT_QUALITY_SUMMARY)
    run.end("FINISHED")
    _log.info("quality: %s: %s", summary.verdict, summary.reason)
