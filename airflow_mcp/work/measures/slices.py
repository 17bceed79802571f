"""Metrics on parts of the data, where a model that is better overall may be worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.core.evaluation.evidence import SliceEvidence
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.measures.classes import Array, distinct, name_of
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.significance import metric_intervals

if TYPE_CHECKING:
    import pandas as pd

MAX_VALUES = 50
"""Largest number of values of a slice column: each is measured and bootstrapped on its own."""
MISSING = "<missing>"
"""Name of the slice of rows without a value."""


def measure_slices(
    frame: pd.DataFrame, columns: Sequence[str], candidate: ScoredModel, champion: ScoredModel | None
) -> tuple[SliceEvidence, ...]:
    """Measure both models for every value of every slice column.

    :param frame: dataset, with the rows of the predictions in the same order.
    :param columns: columns to slice by; all must exist.
    :param candidate: its predictions.
    :param champion: its predictions, if there is a champion.
    :return: slices by column, then by value as text, with the metrics that are defined on them.
    :raises InvalidArgumentError: when columns have too many values; names them all.
    """
    values = {column: _named(frame[column]) for column in columns}
    excessive = [f"{column!r} with {len(names)}" for column, (_, names) in values.items() if len(names) > MAX_VALUES]
    if excessive:
        raise InvalidArgumentError(
            f"columns in slices must have at most {MAX_VALUES} values; got {', '.join(excessive)}. Slice by a "
            "column of groups instead. Nothing was recorded"
        )
    slices = []
    for column, (places, names) in values.items():
        for value in sorted(names):
            rows = places == names[value]
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


def _named(column: pd.Series[Any]) -> tuple[Array, dict[str, int]]:
    """Return for each row the place of its value, and for each value by name its place."""
    names: dict[str, int] = {}
    if column.dtype != object:
        codes, known = distinct(column)
        places = [names.setdefault(name_of(value), len(names)) for value in known]
        if (codes < 0).any():
            places.append(names.setdefault(MISSING, len(names)))  # the last place, which -1 stands for
        return np.asarray(places, dtype=np.int32)[codes], names
    missing = column.isna().to_numpy()
    texts = (MISSING if gap else name_of(value) for value, gap in zip(column.array, missing, strict=True))
    return np.fromiter((names.setdefault(text, len(names)) for text in texts), np.int32, len(column)), names
