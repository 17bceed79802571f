"""The histograms of a column that the drift report draws."""

from __future__ import annotations

import numpy as np

from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.core.drift.result import OTHER, ColumnHistogram
from airflow_mcp.work.drift.column_data import ColumnData
from airflow_mcp.work.drift.distribution import Array, Curve
from airflow_mcp.work.drift.statistics import aligned

_BINS, _LABELS = 20, 12
_TAIL = 0.005
"""Share of the rows left out at each end, so that single extreme values do not squeeze the picture."""


def histogram_of_both(kind: ColumnType, reference: ColumnData, current: ColumnData) -> ColumnHistogram:
    """Return both distributions in the same bins, or by the same categories.

    :param kind: type as which the column is compared.
    :param reference: the column in the reference.
    :param current: the column in the current data.
    """
    if kind == "numerical" and reference.curve is not None and current.curve is not None:
        edges = _edges(reference.curve, current.curve)
        return ColumnHistogram(
            edges=tuple(float(f"{edge:.6g}") for edge in edges),
            reference=_shares(reference.curve, edges),
            current=_shares(current.curve, edges),
        )
    before, after = reference.as_counts(), current.as_counts()
    if not (before.is_exact or before.counts) or not (after.is_exact or after.counts):
        return ColumnHistogram()
    rows = aligned(before, after)
    first, second = max(before.rows, 1), max(after.rows, 1)
    shares = {name: (row[0] / first, row[1] / second) for name, row in rows.items()}
    shown = sorted(shares.keys() - {OTHER}, key=lambda name: (-max(shares[name]), name))[:_LABELS]
    pairs = [shares[name] for name in shown]
    rest = tuple(1.0 - sum(pair[side] for pair in pairs) for side in (0, 1))
    if max(rest) > 1e-9:
        shown.append(OTHER)
        pairs.append((max(rest[0], 0.0), max(rest[1], 0.0)))
    return ColumnHistogram(
        labels=tuple(shown),
        reference=tuple(round(pair[0], 6) for pair in pairs),
        current=tuple(round(pair[1], 6) for pair in pairs),
    )


def _edges(reference: Curve, current: Curve) -> Array:
    """Return edges that cover both distributions but for the last half percent at each end."""
    corners = [curve.knots_and_counts for curve in (reference, current)]
    ends = [np.interp([_TAIL * counts[-1], (1 - _TAIL) * counts[-1]], counts, values) for values, counts in corners]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _shares(curve: Curve, edges: Array) -> tuple[float, ...]:
    heights = curve.below(edges)
    heights[0], heights[-1] = 0.0, 1.0  # the first and the last bin include what lies beyond the edges
    return tuple(round(share, 6) for share in np.diff(heights).tolist())
