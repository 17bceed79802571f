"""Evidently's report on a bounded sample. The only module that imports Evidently, which takes seconds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.result import ColumnResult, DriftResult
from airflow_mcp.core.drift.summary import EvidentlySample, by_severity
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.work.drift.column_reading import QUALITY_OF_LABELS, QUALITY_OF_NUMBERS
from airflow_mcp.work.drift.row_sampling import sample_table

_log = logging.getLogger(__name__)
MOST_COLUMNS = 100
"""Columns that the report shows at most: its running time and its size grow with them."""
_SEED = 0
"""Fixed, so that a repeated check reports on the same rows."""


class EvidentlyReport(NamedTuple):
    """Evidently's report on a sample."""

    sample: EvidentlySample
    html: str
    """Empty when there is no report; the sample's note says why."""


def evidently_report(
    reference: Sequence[DatasetPin], current: Sequence[DatasetPin], result: DriftResult, rows: int
) -> EvidentlyReport:
    """Draw rows of both datasets and let Evidently report on them, with the methods and thresholds of the check.

    The check does not depend on the report: whatever goes wrong here becomes the note of the sample.

    :param reference: data; empty when only its profile is available.
    :param current: data; empty when only its profile is available.
    :param result: result of the check; the columns that could be compared are shown.
    :param rows: largest number of rows to draw from each dataset.
    """
    derived = (QUALITY_OF_LABELS, QUALITY_OF_NUMBERS)
    columns = [
        column for column in by_severity(result.columns) if column.drifted is not None and column.column not in derived
    ]
    if not (reference and current):
        return _no_report("Evidently's report needs rows, and a profile has none")
    if not columns:
        return _no_report("there is no Evidently report: no column could be compared")
    shown = columns[:MOST_COLUMNS]
    types = {column.column: column.type for column in shown}
    try:
        drawn = [sample_table(pins, types, rows, _SEED) for pins in (reference, current)]
        html = _html([each.rows.to_pandas() for each in drawn], shown, result.policy.drift_share)
    except ModuleNotFoundError as error:
        return _no_report(f"there is no Evidently report: {error.name} is not installed")
    except ModelControlPlaneError as error:
        return _no_report(f"there is no Evidently report: {error}")
    except Exception as error:  # Evidently raises whatever its statistics raise
        _log.warning("Evidently's report failed", exc_info=True)
        return _no_report(f"there is no Evidently report: {type(error).__name__}: {str(error)[:300]}")
    note = f"It shows the {len(shown)} worst of {len(columns)} columns." if len(shown) < len(columns) else ""
    sample = EvidentlySample(
        reference_rows=drawn[0].rows.num_rows,
        current_rows=drawn[1].rows.num_rows,
        is_complete=all(each.is_complete for each in drawn),
        note=note,
    )
    return EvidentlyReport(sample, html)


def _no_report(note: str) -> EvidentlyReport:
    return EvidentlyReport(EvidentlySample(reference_rows=0, current_rows=0, is_complete=False, note=note), "")


def _html(frames: Sequence[pd.DataFrame], columns: Sequence[ColumnResult], drift_share: float) -> str:
    """Run Evidently with our methods and thresholds, so that it chooses neither."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of Evidently's dependencies, divisions by zero of new categories
        from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
        from evidently.presets import DataDriftPreset  # noqa: PLC0415

        definition = DataDefinition(
            numerical_columns=[column.column for column in columns if column.type == "numerical"],
            categorical_columns=[column.column for column in columns if column.type == "categorical"],
        )
        preset = DataDriftPreset(
            columns=[column.column for column in columns],
            per_column_method={column.column: column.method for column in columns},
            per_column_threshold={column.column: column.threshold for column in columns if column.threshold},
            drift_share=drift_share,
        )
        reference, current = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
        return str(Report([preset]).run(current, reference).get_html_str(as_iframe=False))
