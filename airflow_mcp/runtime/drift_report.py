"""Evidently's drift report. The only module that imports Evidently (seconds, and hundreds of megabytes)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.evidence import ColumnDrift, DriftRequest
from airflow_mcp.runtime.drift_columns import ColumnPlan

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriftReport:
    """What Evidently computed."""

    columns: dict[str, ColumnDrift]
    """By column name."""
    html: str
    json: str


def compute_report(
    reference: pd.DataFrame, current: pd.DataFrame, plans: Sequence[ColumnPlan], request: DriftRequest
) -> DriftReport:
    """Compare column by column with the pinned methods; Evidently chooses neither method nor threshold.

    :param reference: comparable columns of the reference data.
    :param current: the same columns of the current data.
    :param plans: their plans; those with a problem are left out.
    :param request: methods, thresholds and drift share.
    :return: scores and Evidently's own judgement of each column. Evidently's permutation test (TVD) seeds
        itself, so the same data give the same score.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of Evidently's dependencies, divisions by zero of new categories
        from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
        from evidently.presets import DataDriftPreset  # noqa: PLC0415

        chosen = [plan for plan in plans if not plan.problem]
        definition = DataDefinition(
            numerical_columns=[plan.name for plan in chosen if plan.type == "numerical"],
            categorical_columns=[plan.name for plan in chosen if plan.type == "categorical"],
        )
        preset = DataDriftPreset(
            columns=[plan.name for plan in chosen],
            num_method=request.numerical_method,
            num_threshold=request.numerical_threshold,
            cat_method=request.categorical_method,
            cat_threshold=request.categorical_threshold,
            drift_share=request.drift_share,
        )
        _log.info("compare %d columns of %d and %d rows", len(chosen), len(reference), len(current))
        snapshot = Report([preset], include_tests=True).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        values = _value_drifts(snapshot)
        return DriftReport(
            {plan.name: _column_drift(plan, *values[plan.name]) for plan in chosen},
            snapshot.get_html_str(as_iframe=False),
            snapshot.json(),
        )


def _value_drifts(snapshot: Any) -> dict[str, tuple[dict[str, Any], float, bool]]:
    """Parameters, score and judgement of each column; a failed test of Evidently means drift."""
    from evidently.core.metric_types import SingleValue  # noqa: PLC0415
    from evidently.legacy.tests.base_test import TestStatus  # noqa: PLC0415

    found = {}
    for result in snapshot.metric_results.values():
        if isinstance(result, SingleValue) and result.metric_value_location is not None:
            parameters = result.metric_value_location.metric.params
            if "column" in parameters and result.tests:
                drifted = result.tests[0].status == TestStatus.FAIL
                found[parameters["column"]] = (parameters, float(result.value), drifted)
    return found


def _column_drift(plan: ColumnPlan, parameters: dict[str, Any], score: float, drifted: bool) -> ColumnDrift:
    finite = math.isfinite(score)
    note = plan.note if finite else f"the method gave {score}, which is no answer"
    return ColumnDrift(
        column=plan.name,
        type=plan.type,
        method=parameters["method"],
        threshold=parameters["threshold"],
        score=score if finite else None,
        drifted=drifted if finite else None,
        note=note,
    )
