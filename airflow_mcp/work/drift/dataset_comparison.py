"""The comparison of two datasets, of data or of profiles in any mix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple, TypeAlias

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.judgement import correct, judge
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.profile import DataProfile
from airflow_mcp.core.drift.result import ColumnResult, DriftFinding, DriftResult
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.drift.column_comparison import ColumnPair, compare_column
from airflow_mcp.work.drift.column_data import ColumnData, of_profile
from airflow_mcp.work.drift.profiles import (
    ProfileOptions,
    ReadData,
    column_groups,
    cpu_count,
    read_columns,
    read_data,
    require_read,
    small_profile,
)
from airflow_mcp.work.drift.row_outliers import find_outliers, outlier_finding
from airflow_mcp.work.reading.dataset_batches import FileScan, open_data
from airflow_mcp.work.run.mlflow_run import library_versions

_log = logging.getLogger(__name__)
Side: TypeAlias = Sequence[DatasetPin] | DataProfile
"""Data, or their profile."""
_GROUP = 2
"""Columns per CPU that are held at once in exact mode."""


@dataclass(frozen=True)
class DatasetComparison:
    """What a comparison found, and what it read of the current data."""

    result: DriftResult
    read: ReadData | DataProfile | None
    """None in exact mode, which keeps no values."""

    @cached_property
    def current(self) -> DataProfile | None:
        """Profile of the current data; None in exact mode. It is made when it is asked for."""
        return small_profile(self.read) if isinstance(self.read, ReadData) else self.read


class _Compared(NamedTuple):
    sides: tuple[ReadData, ReadData]
    columns: list[ColumnResult]
    findings: list[DriftFinding]


def compare(reference: Side, current: Side, policy: ComparisonPolicy) -> DatasetComparison:
    """Compare current data with reference data.

    :param reference: data (files, folders, globs, URLs, read as one dataset) or a profile.
    :param current: the same; any mix is possible in the mode ``profile``.
    :param policy: methods, thresholds, roles and limits.
    :return: the result, also when nothing could be compared: then its verdict is ``inconclusive``.
    :raises DatasetError: when data cannot be read, or a column that the policy names is not in the reference.
    :raises InvalidArgumentError: when the policy needs data and a profile is given.
    """
    _require_data(reference, current, policy)
    with ExitStack() as kept:
        opened = [
            side if isinstance(side, DataProfile) else kept.enter_context(open_data(side))
            for side in (reference, current)
        ]
        found = _compare_profiles(opened, policy) if policy.mode == "profile" else _compare_exactly(opened, policy)
        outliers = find_outliers(opened, found.columns, policy.outliers) if policy.outliers else None
    findings = [*found.findings, *outlier_finding(outliers, policy)]
    columns = correct(found.columns) if policy.correction == "benjamini_hochberg" else found.columns
    rows = found.sides[0].rows, found.sides[1].rows
    judgement = judge(columns, findings, rows, policy)
    _log.info("compared %d columns of %d and %d rows: %s: %s", len(columns), *rows, *judgement[:2])
    result = DriftResult(
        verdict=judgement.verdict,
        reason=judgement.reason,
        mode=policy.mode,
        policy=policy,
        reference=found.sides[0].pins,
        current=found.sides[1].pins,
        reference_is_profile=isinstance(reference, DataProfile),
        current_is_profile=isinstance(current, DataProfile),
        reference_rows=rows[0],
        current_rows=rows[1],
        columns=tuple(columns),
        findings=tuple(findings),
        outliers=outliers,
        drifted_columns_count=judgement.drifted,
        compared_columns_count=judgement.compared,
        drift_share=judgement.share,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=library_versions("numpy", "scipy", "pyarrow"),
    )
    if isinstance(current, DataProfile):
        return DatasetComparison(result, current)
    return DatasetComparison(result, found.sides[1] if policy.mode == "profile" else None)


def _require_data(reference: Side, current: Side, policy: ComparisonPolicy) -> None:
    given = [name for name, side in (("reference", reference), ("current", current)) if isinstance(side, DataProfile)]
    needs = [f"mode {policy.mode!r}"] * (policy.mode == "exact") + ["outliers"] * (policy.outliers is not None)
    if given and needs:
        raise InvalidArgumentError(
            f"{' and '.join(needs)} needs the rows of both datasets, but {' and '.join(given)} is a profile. Give the "
            "data, or compare profiles without. Nothing was compared."
        )


def _compare_profiles(opened: Sequence[FileScan | DataProfile], policy: ComparisonPolicy) -> _Compared:
    options = ProfileOptions.of_policy(policy)
    first, second = (_content(side) if isinstance(side, DataProfile) else read_data(side, options) for side in opened)
    require_read(first, policy.named_columns)
    return _compared(first, second, policy)


def _content(profile: DataProfile) -> ReadData:
    columns = {column.name: of_profile(column, profile.rows) for column in profile.columns}
    return ReadData(profile.sources, profile.rows, columns)


def _compare_exactly(opened: Sequence[FileScan | DataProfile], policy: ComparisonPolicy) -> _Compared:
    """Hold every value of a few columns at a time, where single columns can be read."""
    first, second = (side for side in opened if isinstance(side, FileScan))
    options = ProfileOptions.of_policy(policy)
    whole = _Compared(
        (ReadData(first.pins, present=first.columns), ReadData(second.pins, present=second.columns)), [], []
    )
    for names in column_groups([first, second], options, _GROUP * cpu_count()):
        sides = [read_columns(scan, options, names, is_exact=True) for scan in (first, second)]
        part = _compared(sides[0], sides[1], policy)
        whole.columns.extend(part.columns)
        whole.findings.extend(part.findings)
        for kept, read in zip(whole.sides, sides, strict=True):
            kept.add(ReadData(read.pins, read.rows, {name: ColumnData(name) for name in read.columns}))  # no values
    require_read(whole.sides[0], policy.named_columns)
    return whole


def _compared(first: ReadData, second: ReadData, policy: ComparisonPolicy) -> _Compared:
    options = ProfileOptions.of_policy(policy)
    names = [name for name in dict.fromkeys([*first.columns, *second.columns]) if options.asks_for(name)]
    pairs = [ColumnPair(first.columns.get(name), second.columns.get(name)) for name in names]
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="columns") as pool:
        done = list(pool.map(lambda pair: compare_column(pair, policy), pairs))
    columns = [result for pair, (result, _) in zip(pairs, done, strict=True) if pair.reference is not None]
    return _Compared((first, second), columns, [finding for _, findings in done for finding in findings])
