"""Rows of the current data that are unlike the rows of the reference, on a bounded sample of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from airflow_mcp.core.drift.policy import ComparisonPolicy, OutlierPolicy
from airflow_mcp.core.drift.profile import DataProfile
from airflow_mcp.core.drift.result import ColumnResult, DriftFinding, OutlierRow, Outliers
from airflow_mcp.work.drift.column_data import LARGEST
from airflow_mcp.work.drift.distribution import Array
from airflow_mcp.work.drift.row_sampling import Reservoir
from airflow_mcp.work.reading.dataset_batches import COLUMNS_AT_ONCE, FileScan

_LEAST_ROWS = 100
_SHOWN_COLUMNS = 10


def find_outliers(
    opened: Sequence[FileScan | DataProfile], columns: Sequence[ColumnResult], policy: OutlierPolicy
) -> Outliers | None:
    """Judge rows by an isolation forest (Liu, Ting and Zhou, 2008) that was grown on half of the reference's sample.

    The other half, which the forest has not seen, says from which score on a row is an outlier.

    :param opened: both datasets.
    :param columns: results of the comparison: the numerical columns that could be compared are used.
    :return: None when there is no such column, or fewer than 200 reference or 100 current rows.
    """
    names = [column.column for column in columns if column.type == "numerical" and column.drifted is not None]
    scans = [side for side in opened if isinstance(side, FileScan)]
    if not names or len(scans) < 2:
        return None
    samples = [sample_rows(scan, names, policy.sample_rows, policy.seed) for scan in scans]
    if len(samples[0]) < 2 * _LEAST_ROWS or len(samples[1]) < _LEAST_ROWS:
        return None
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415  (seconds, and few checks ask for it)

    middle = np.nanmedian(samples[0], axis=0)
    reference, current = (np.where(np.isnan(sample), middle, sample) for sample in samples)
    half = len(reference) // 2
    forest = IsolationForest(random_state=policy.seed).fit(reference[:half])
    usual, scores = -forest.score_samples(reference[half:]), -forest.score_samples(current)
    threshold = float(np.quantile(usual, 1 - policy.expected_share, method="higher"))
    worst = np.argsort(-scores, kind="stable")[: policy.examples]
    spread = np.maximum(reference.std(axis=0), 1e-300)
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
    """Say whether there are too many; when rows were asked for and could not be judged, that is said too."""
    if policy.outliers is None:
        return
    if outliers is None:
        yield DriftFinding(
            kind="outliers", exceeded=False, message="rows were not judged: too few, or no numerical column"
        )
        return
    share, limit = outliers.current_share, policy.outliers.largest_share
    yield DriftFinding(
        kind="outliers",
        reference=outliers.reference_share,
        current=share,
        limit=limit,
        exceeded=share > limit,
        message=f"{share:.1%} of the rows are unlike the reference, {outliers.reference_share:.1%} of its own are",
    )


def sample_rows(scan: FileScan, names: Sequence[str], size: int, seed: int) -> Array:
    """Draw rows evenly from data of any size; the same rows in each pass that wide data take.

    :param names: columns of numbers, one at least.
    :param size: rows to draw, at most.
    :return: shape (rows, columns), in random order; missing and infinite numbers are NaN.
    """
    step = COLUMNS_AT_ONCE if scan.is_columnar else len(names)
    groups = [names[start : start + step] for start in range(0, len(names), step)]
    return np.hstack([_sample_of(scan, group, Reservoir(size, seed)) for group in groups])


def _sample_of(scan: FileScan, names: Sequence[str], reservoir: Reservoir) -> Array:
    rows = np.empty((0, len(names)))
    for batch in scan.batches(names):
        taken, kept = reservoir.offer(batch.num_rows)
        rows = np.concatenate([rows, _numbers(batch.take(pa.array(taken)), names)])
        if kept is not None:
            rows = rows[kept]
    return rows[reservoir.order()]


def _numbers(batch: pa.RecordBatch, names: Sequence[str]) -> Array:
    table = np.full((batch.num_rows, len(names)), np.nan)
    for position, name in enumerate(names):
        if name in batch.schema.names:
            table[:, position] = batch.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    table[~(np.abs(table) < LARGEST)] = np.nan
    return table


def _example(score: float, values: Array, distances: Array, names: Sequence[str]) -> OutlierRow:
    """Show the numbers that are farthest from the usual."""
    farthest = np.argsort(-distances, kind="stable")[:_SHOWN_COLUMNS]
    shown = {names[column]: float(values[column]) for column in farthest}
    return OutlierRow(score=score, values={name: None if np.isnan(value) else value for name, value in shown.items()})
