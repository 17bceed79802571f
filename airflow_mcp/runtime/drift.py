"""Step ``drift``: compare current data with reference data, with methods and thresholds that are pinned."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from airflow_mcp.core import contract
from airflow_mcp.core.drift import DriftPolicy
from airflow_mcp.core.evidence import ColumnDrift, DatasetPin, DriftRequest, DriftSummary, DriftVerdict, dump_document
from airflow_mcp.runtime.datasets import load_dataset
from airflow_mcp.runtime.drift_columns import ColumnPlan, comparable_frames, plan_columns
from airflow_mcp.runtime.environment import read_request
from airflow_mcp.runtime.tracking import RunLog, library_versions

_log = logging.getLogger(__name__)
_NOT_IN_METRIC_NAMES = re.compile(r"[^\w\-. :]")
_MAX_METRIC_NAME = 240


def check_drift(environ: Mapping[str, str]) -> DriftSummary:
    """Compare and record in the drift check's own MLflow run, which ends FINISHED.

    Evidently's report, metrics and tag are written first and the summary last: where it is, everything is.

    :param environ: environment variables with the path of a ``DriftRequest``.
    :return: the summary as it was stored.
    :raises RefusedError: for a request or dataset that cannot be compared, or a deleted run. The run's status is
        left for the caller to end.
    :raises MlflowError: when MLflow does not answer.
    """
    request = read_request(environ, DriftRequest)
    _require_policy(request)
    run = RunLog(request.run_id)
    run.require_active()
    reference, reference_pin = load_dataset(request.reference)
    current, current_pin = load_dataset(request.current)
    plans = plan_columns(reference, current, request)
    rows = len(reference), len(current)
    columns = [_not_compared(plan, request) for plan in plans]
    if min(rows) >= request.min_rows and any(not plan.problem for plan in plans):
        from airflow_mcp.runtime.drift_report import compute_report  # noqa: PLC0415

        report = compute_report(*comparable_frames(reference, current, plans), plans, request)
        columns = [report.columns.get(column.column, column) for column in columns]
        run.log_text(report.html, contract.ARTIFACT_DRIFT_REPORT_HTML)
        run.log_text(report.json, contract.ARTIFACT_DRIFT_REPORT_JSON)
    new_columns = [name for name in current.columns if name not in reference.columns]
    summary = summarize(request, (reference_pin, current_pin), rows, columns, new_columns)
    _record(run, summary)
    return summary


def summarize(
    request: DriftRequest,
    pins: tuple[DatasetPin, DatasetPin],
    rows: tuple[int, int],
    columns: Sequence[ColumnDrift],
    new_columns: Sequence[str],
) -> DriftSummary:
    """Decide the verdict.

    ``drifted`` when the share of drifted columns among those compared reaches the threshold; ``not_drifted`` when it
    would not be reached even if every column that could not be compared had drifted; else ``inconclusive``.

    :param pins: reference and current data, with their hashes.
    :param rows: number of rows of both.
    :param columns: every column of the plan, compared or not.
    :param new_columns: columns that only the current data have; they are named, not judged.
    """
    compared = [column for column in columns if column.drifted is not None]
    drifted = sum(column.drifted is True for column in compared)
    verdict, reason = _verdict(request, rows, len(columns), len(compared), drifted)
    details = [f"{column.column}: {column.note}" for column in columns if column.drifted is None]
    if new_columns:
        details.append(f"only in the current data: {', '.join(new_columns)}")
    return DriftSummary(
        identity=request.identity,
        run_id=request.run_id,
        verdict=verdict,
        reason="; ".join([reason, *details]),
        reference=pins[0],
        current=pins[1],
        reference_rows=rows[0],
        current_rows=rows[1],
        columns=tuple(columns),
        drifted_columns_count=drifted,
        drift_share=drifted / len(compared) if compared else None,
        drift_share_threshold=request.drift_share,
        created_at=datetime.now(UTC).isoformat(),
        environment=library_versions("evidently", "scipy"),
    )


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


def _require_policy(request: DriftRequest) -> None:
    """Refuse methods and thresholds that could never give an answer."""
    DriftPolicy(
        numerical_method=request.numerical_method,
        numerical_threshold=request.numerical_threshold,
        categorical_method=request.categorical_method,
        categorical_threshold=request.categorical_threshold,
        drift_share=request.drift_share,
        min_rows=request.min_rows,
    )


def _verdict(
    request: DriftRequest, rows: tuple[int, int], planned: int, compared: int, drifted: int
) -> tuple[DriftVerdict, str]:
    if min(rows) < request.min_rows:
        return "inconclusive", (
            f"{rows[0]} reference rows and {rows[1]} current rows, at least {request.min_rows} of each are needed"
        )
    if compared == 0:
        return "inconclusive", "no column could be compared"
    found = f"{drifted} of {compared} compared columns drifted, the dataset drifts from {request.drift_share:.0%} on"
    if drifted / compared >= request.drift_share:
        return "drifted", found
    unknown = planned - compared
    if (drifted + unknown) / planned >= request.drift_share:
        return "inconclusive", f"{found}; {unknown} columns could not be compared and would decide"
    return "not_drifted", found


def _not_compared(plan: ColumnPlan, request: DriftRequest) -> ColumnDrift:
    numerical = plan.type == "numerical"
    return ColumnDrift(
        column=plan.name,
        type=plan.type,
        method=request.numerical_method if numerical else request.categorical_method,
        threshold=request.numerical_threshold if numerical else request.categorical_threshold,
        score=None,
        drifted=None,
        note=plan.problem or "not compared",
    )


def _record(run: RunLog, summary: DriftSummary) -> None:
    run.require_active()
    metrics: dict[str, float] = {"drifted_columns_count": float(summary.drifted_columns_count)}
    if summary.drift_share is not None:
        metrics["drift_share"] = summary.drift_share
    scores = {column.column: column.score for column in summary.columns if column.score is not None}
    names = metric_names(list(scores))
    run.log_metrics(metrics | {names[column]: score for column, score in scores.items()})
    run.set_tags({contract.TAG_DRIFT_VERDICT: summary.verdict})
    run.log_text(dump_document(summary), contract.ARTIFACT_DRIFT_SUMMARY)
    run.end("FINISHED")
    _log.info("drift: %s: %s", summary.verdict, summary.reason)
