"""Steps ``get-features`` and ``compare-features``: read features of a Feast feature store, and record the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.features.page import render_skew_report
from airflow_mcp.core.features.summary import HistoricalRequest, HistoricalSummary, SkewRequest, SkewSummary
from airflow_mcp.work.features.comparison import compare_features
from airflow_mcp.work.features.historical import get_features, names_of
from airflow_mcp.work.run.environment import read_request
from airflow_mcp.work.run.mlflow_run import RunLog

_log = logging.getLogger(__name__)


def get(environ: Mapping[str, str]) -> HistoricalSummary:
    """Store features as a data version, and record it in the run, which ends FINISHED.

    :param environ: environment variables with the path of a ``HistoricalRequest``.
    :return: the summary as it was stored.
    :raises RefusedError: when the request, store or entity rows cannot be used, or the run was deleted.
    :raises FailedError: when a store or MLflow does not answer.
    """
    request = read_request(environ, HistoricalRequest)
    run = RunLog(request.run_id)
    run.require_active()
    summary = get_features(request)
    run.require_active()
    missing = {f"missing/{each.name}": float(each.missing) for each in summary.columns}
    run.log_metrics({"rows": float(summary.rows), **missing})
    run.set_tags({name: value for name, value in names_of(summary).items() if value})
    run.log_text(dump_document(summary), contract.ARTIFACT_FEATURES_SUMMARY)
    run.end("FINISHED")
    _log.info("features: %s: %s", summary.verdict, summary.reason)
    return summary


def compare(environ: Mapping[str, str]) -> SkewSummary:
    """Compare online with offline values, and record the result in the run, which ends FINISHED.

    :param environ: environment variables with the path of a ``SkewRequest``.
    :return: the summary as it was stored.
    :raises RefusedError: when the request, store or entity rows cannot be used, or the run was deleted.
    :raises FailedError: when a store or MLflow does not answer.
    """
    request = read_request(environ, SkewRequest)
    run = RunLog(request.run_id)
    run.require_active()
    summary = compare_features(request)
    run.require_active()
    run.log_text(render_skew_report(summary), contract.ARTIFACT_SKEW_REPORT_HTML)
    run.log_metrics({"keys": float(summary.keys), "skewed": float(sum(each.skewed for each in summary.features))})
    run.set_tags({contract.TAG_SKEW_VERDICT: summary.verdict})
    run.log_text(dump_document(summary), contract.ARTIFACT_SKEW_SUMMARY)
    run.end("FINISHED")
    _log.info("feature skew: %s: %s", summary.verdict, summary.reason)
    return summary
