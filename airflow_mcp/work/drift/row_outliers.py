"""Rows of the current data that are unlike the reference's, judged on a bounded sample of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from airflow_mcp.core.drift.policy import ComparisonPolicy, OutlierPolicy
from airflow_mcp.core.drift.profile import DataProfile
from airflow_mcp.core.drift.result import ColumnResult, DriftFinding, OutlierRow, Outliers
from airflow_mcp.work.drift.column_reading import ReadData
from airflow_mcp.work.drift.distribution import Array
from airflow_mcp.work.drift.row_sampling import sample_numbers
from airflow_mcp.work.reading.dataset_batches import FileScan

_LEAST_ROWS = 100
"""Rows needed of the current data, and of each half of the reference: fewer do not show what is usual."""
_SHOWN_COLUMNS = 10


def find_outliers(
    opened: Sequence[FileScan | DataProfile | ReadData], columns: Sequence[ColumnResult], policy: OutlierPolicy
) -> Outliers | None:
    """Score rows with an isolation forest (Liu, Ting and Zhou, 2008).

    The forest is grown on one half of the reference's sample. The scores of the other half, which it has not seen, set
    the threshold above which a row is an outlier.

    :param opened: reference and current data.
    :param columns: results of the comparison; the numerical columns that could be compared are used.
    :param policy: sample size, seed and expected share of outliers.
    :return: None when there is no such column, or fewer than 200 reference or 100 current rows.
    """
    names = [column.column for column in columns if column.type == "numerical" and column.drifted is not None]
    scans = [side for side in opened if isinstance(side, FileScan)]
    if not names or len(scans) < 2:
        return None
    samples = [sample_numbers(scan, names, policy.sample_rows, policy.seed) for scan in scans]
    if len(samples[0]) < 2 * _LEAST_ROWS or len(samples[1]) < _LEAST_ROWS:
        return None
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415  (takes seconds, and few checks need it)

    middle = np.nanmedian(samples[0], axis=0)
    reference, current = (np.where(np.isnan(sample), middle, sample) for sample in samples)
    half = len(reference) // 2
    forest = IsolationForest(random_state=policy.seed).fit(reference[:half])
    usual, scores = -forest.score_samples(reference[half:]), -forest.score_samples(current)
    threshold = float(np.quantile(usual, 1 - policy.expected_share, method="higher"))
    worst = np.argsort(-scores, kind="stable")[: policy.examples]
    spread = np.maximum(reference.std(axis=0), 1e-300)  # a constant column has none: do not divide by zero
    return Outliers(
        rows=(len(reference), len(current)),
        threshold=threshold,
        reference_share=float((usual > threshold).mean()),
        current_share=float((scores > threshold).mean()),
        examples=tuple(
            _example(float(scores[row]), samples[1][row], np.abs(current[row] - middle) / spread, names)
            for row in worst
            if scores[row] > threshold
        ),
    )


def outlier_finding(outliers: Outliers | None, policy: ComparisonPolicy) -> Iterator[DriftFinding]:
    """Return a finding with the share of outliers, or with the reason why rows could not be judged.

    :param outliers: what :func:`find_outliers` returned.
    :param policy: without ``outliers`` there is no finding.
    """
    if policy.outliers is None:
        return
    if outliers is None:
        message = "rows were not judged: there are too few, or no numerical column could be compared"
        yield DriftFinding(kind="outliers", exceeded=False, message=message)
        return
    usual, share, limit = outliers.reference_share, outliers.current_share, policy.outliers.largest_share
    yield DriftFinding(
        kind="outliers",
        reference=usual,
        current=share,
        limit=limit,
        exceeded=share > limit,
        message=f"{share:.1%} of the current rows are outliers, against {usual:.1%} of the reference's",
    )


def _example(score: float, values: Array, distances: Array, names: Sequence[str]) -> OutlierRow:
    """Show the values that are farthest from the median."""
    farthest = np.argsort(-distances, kind="stable")[:_SHOWN_COLUMNS]
    shown = {names[column]: float(values[column]) for column in farthest}
    return OutlierRow(score=score, values={name: None if np.isnan(value) else value for name, value in shown.items()})
