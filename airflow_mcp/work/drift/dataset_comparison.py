"""The comparison of two datasets, each of which may be data or a profile."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from airflow_mcp.core.drift.judgement import correct, judge
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.profile import DataProfile
from airflow_mcp.core.drift.result import ColumnResult, DriftFinding, DriftResult
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.drift.column_comparison import compare_column
from airflow_mcp.work.drift.column_data import ColumnData, ColumnPair
from airflow_mcp.work.drift.column_reading import (
    ProfileOptions,
    ReadData,
    as_asked,
    column_groups,
    read_columns,
    read_data,
    require_read,
)
from airflow_mcp.work.drift.profiles import Side, small_profile, stored_columns
from airflow_mcp.work.drift.row_outliers import find_outliers, outlier_finding
from airflow_mcp.work.reading.dataset_batches import FileScan, open_data
from airflow_mcp.work.run.process import cpu_count, library_versions

_log = logging.getLogger(__name__)
_GROUP = 2
"""Columns per CPU in memory at a time with precision ``exact``, which keeps all their values."""


@dataclass(frozen=True)
class DatasetComparison:
    """The result of a comparison, and what it read of the current data."""

    result: DriftResult
    read: ReadData | DataProfile | None
    """None with precision ``exact``, which drops the values of a column after comparing it."""

    @cached_property
    def current(self) -> DataProfile | None:
        """Profile of the current data, made on first use; None with precision ``exact``."""
        return small_profile(self.read) if isinstance(self.read, ReadData) else self.read


class _Compared(NamedTuple):
    sides: tuple[ReadData, ReadData]
    columns: list[ColumnResult]
    findings: list[DriftFinding]


def compare_datasets(reference: Side, current: Side, policy: ComparisonPolicy) -> DatasetComparison:
    """Compare current data with reference data.

    :param reference: data (files, folders, globs, URLs, read as one dataset), a profile, or what an engine read.
    :param current: likewise. Profiles and engines need precision ``profile``.
    :param policy: methods, thresholds, roles and limits.
    :return: the result; its verdict is ``inconclusive`` when nothing could be compared.
    :raises DatasetError: when data cannot be read, or the reference lacks a column that the policy names.
    :raises InvalidArgumentError: when the policy needs data and a profile is given.
    """
    _require_data(reference, current, policy)
    with ExitStack() as kept:
        opened = [
            side if isinstance(side, DataProfile | ReadData) else kept.enter_context(open_data(side))
            for side in (reference, current)
        ]
        found = _compare_profiles(opened, policy) if policy.precision == "profile" else _compare_exactly(opened, policy)
        outliers = find_outliers(opened, found.columns, policy.outliers) if policy.outliers else None
    findings = [*found.findings, *outlier_finding(outliers, policy)]
    columns = correct(found.columns) if policy.correction == "benjamini_hochberg" else found.columns
    rows = found.sides[0].rows, found.sides[1].rows
    judgement = judge(columns, findings, rows, policy)
    _log.info("compared %d columns of %d and %d rows: %s: %s", len(columns), *rows, *judgement[:2])
    result = DriftResult(
        verdict=judgement.verdict,
        reason=judgement.reason,
        precision=policy.precision,
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
    return DatasetComparison(result, found.sides[1] if policy.precision == "profile" else None)


def _require_data(reference: Side, current: Side, policy: ComparisonPolicy) -> None:
    sides = ("reference", reference), ("current", current)
    given = [name for name, side in sides if isinstance(side, DataProfile | ReadData)]
    needs = ["precision 'exact'"] * (policy.precision == "exact") + ["outliers"] * (policy.outliers is not None)
    if given and needs:
        raise InvalidArgumentError(
            f"{' and '.join(needs)} needs the rows of both datasets, but {' and '.join(given)} is a profile. Pass the "
            "data, or leave this out of the policy. Nothing was compared"
        )


def _compare_profiles(opened: Sequence[FileScan | DataProfile | ReadData], policy: ComparisonPolicy) -> _Compared:
    options = ProfileOptions.of_policy(policy)
    first, second = (_columns_of(side, options) for side in opened)
    require_read(first, policy.named_columns)
    return _compared(first, second, policy)


def _columns_of(side: FileScan | DataProfile | ReadData, options: ProfileOptions) -> ReadData:
    if isinstance(side, FileScan):
        return read_data(side, options)
    return stored_columns(side) if isinstance(side, DataProfile) else side


def _compare_exactly(opened: Sequence[FileScan | DataProfile | ReadData], policy: ComparisonPolicy) -> _Compared:
    """Compare a few columns at a time, so that only their values are in memory."""
    first, second = (side for side in opened if isinstance(side, FileScan))
    options = ProfileOptions.of_policy(policy)
    first, second = as_asked(first, options), as_asked(second, options)
    whole = _Compared(
        (ReadData(first.pins, present=first.columns), ReadData(second.pins, present=second.columns)), [], []
    )
    for names in column_groups([first, second], options, _GROUP * cpu_count()):
        sides = [read_columns(scan, options, names, is_exact=True) for scan in (first, second)]
        part = _compared(sides[0], sides[1], policy)
        whole.columns.extend(part.columns)
        whole.findings.extend(part.findings)
        for kept, read in zip(whole.sides, sides, strict=True):
            # Remember which columns were read, but not their values.
            kept.add(ReadData(read.pins, read.rows, {name: ColumnData(name) for name in read.columns}))
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
