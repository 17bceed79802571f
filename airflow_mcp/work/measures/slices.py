"""The same metrics on parts of the data: where a model that is better on the whole may be worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.evaluation.evidence import SliceEvidence
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.significance import metric_intervals

if TYPE_CHECKING:
    import pandas as pd

MAX_VALUES = 50
"""A slice column has at most this many values."""
MISSING = "<missing>"
"""Name of the slice of rows without a value."""


def measure_slices(
    frame: pd.DataFrame, columns: Sequence[str], candidate: ScoredModel, champion: ScoredModel | None
) -> tuple[SliceEvidence, ...]:
    """Measure both models for every value of every slice column.

    :param frame: dataset, row for row what the models were asked.
    :param columns: columns to slice by; all exist.
    :return: by column, then by value as text; only metrics that are defined.
    :raises InvalidArgumentError: naming every column that has too many values.
    """
    values = {column: _texts(frame[column]) for column in columns}
    excessive = [f"{column!r} has {text.nunique()}" for column, text in values.items() if text.nunique() > MAX_VALUES]
    if excessive:
        raise InvalidArgumentError(
            f"Too many values to slice by: {', '.join(excessive)}; allowed: {MAX_VALUES}. Slice by a column of groups. "
            "Nothing was recorded."
        )
    slices = []
    for column, texts in values.items():
        for value in sorted(texts.unique()):
            rows = (texts == value).to_numpy()
            part = candidate.part(rows)
            metrics = part.measure().metrics
            slices.append(
                SliceEvidence(
                    column=column,
                    value=value,
                    rows=int(rows.sum()),
                    candidate=metrics,
                    champion=champion.part(rows).measure().metrics if champion else None,
                    intervals=metric_intervals(part, tuple(metrics)),
                )
            )
    return tuple(slices)


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype(object).where(column.notna(), MISSING).map(str)
