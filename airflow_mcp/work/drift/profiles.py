"""Profiles of datasets: read in bounded memory, small enough to keep, and merged hour by hour into days."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.profile import BYTES_PER_COLUMN, ColumnRole, DataProfile, write_profile
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.work.drift.column_data import ColumnData, ColumnReader, kind_of, of_profile
from airflow_mcp.work.drift.distribution import merge_curves
from airflow_mcp.work.reading.dataset_batches import COLUMNS_AT_ONCE, Scan, open_data
from airflow_mcp.work.run.mlflow_run import library_versions

QUALITY_OF_NUMBERS, QUALITY_OF_LABELS = "(prediction error)", "(prediction correct)"
"""Derived columns: distance of prediction and label, and whether they are equal."""
_DERIVED = frozenset({QUALITY_OF_NUMBERS, QUALITY_OF_LABELS})
_SIZES = ((256, 2048), (128, 512), (96, 256), (64, 128), (48, 64), (40, 48), (32, 32), (28, 16), (24, 8))
"""Knots and categories that are kept, from generous to least. Fewer knots could not tell 20 values from more."""
_KNOTS_OF_WIDE_DATA = 40
_COLUMNS_OF_BUDGET = 100


@dataclass(frozen=True)
class ProfileOptions:
    """What is read of a dataset, and as what."""

    columns: Collection[str] = ()
    """Empty: all that are not ignored. Columns that other options name are read, too."""
    ignored_columns: Collection[str] = ()
    categorical_columns: Collection[str] = ()
    """Columns that hold categories whatever their type."""
    prediction: str = ""
    target: str = ""
    """With a prediction too, a column of quality is derived."""
    quality_columns: Collection[str] = ()

    @classmethod
    def of_policy(cls, policy: ComparisonPolicy) -> ProfileOptions:
        """Give what a comparison needs of its data."""
        categorical = {name for name, rule in policy.rules.items() if rule.type == "categorical"}
        return cls(
            columns=policy.named_columns if policy.columns else (),
            ignored_columns=policy.ignored_columns,
            categorical_columns=frozenset(policy.categorical_columns) | categorical,
            prediction=policy.prediction,
            target=policy.target,
            quality_columns=policy.quality_columns,
        )

    @cached_property
    def named_columns(self) -> tuple[str, ...]:
        """Columns that must be in the data, each once."""
        roles = filter(None, (self.prediction, self.target))
        return tuple(dict.fromkeys([*self.columns, *self.categorical_columns, *self.quality_columns, *roles]))

    @cached_property
    def _chosen(self) -> frozenset[str]:
        return frozenset(self.named_columns) | _DERIVED if self.columns else frozenset()

    def asks_for(self, column: str) -> bool:
        """Say whether a column, or one that is derived, is read where the data have it."""
        return (not self._chosen or column in self._chosen) and column not in self.ignored_columns

    def role_of(self, column: str) -> ColumnRole:
        """Say what a column is to the model."""
        if column == self.prediction:
            return "prediction"
        if column == self.target:
            return "target"
        is_quality = column in self.quality_columns or column in _DERIVED
        return "quality" if is_quality else "feature"


@dataclass
class ReadData:
    """A dataset as it was read, or the content of a profile."""

    pins: tuple[DatasetPin, ...]
    rows: int = 0
    columns: dict[str, ColumnData] = field(default_factory=dict)
    present: Collection[str] = ()
    """Columns of the data, read or not, for messages."""

    def add(self, part: ReadData) -> None:
        """Add what another pass read.

        :raises DatasetError: when it met another number of rows.
        """
        if self.columns and part.rows != self.rows:
            raise DatasetError(
                f"Data {', '.join(pin.uri for pin in self.pins)} changed while it was read: it had {self.rows} rows "
                f"and has {part.rows}. Nothing was compared."
            )
        self.rows = part.rows
        self.columns |= part.columns


def profile_dataset(data: Sequence[DatasetPin], options: ProfileOptions | None = None) -> DataProfile:
    """Profile a dataset.

    :param data: files, folders, globs or fsspec URLs, read as one dataset; a hash that is given is verified.
    :param options: what is read of it, and as what.
    :return: the profile, small enough to write.
    :raises DatasetError: when the data cannot be read, or lacks a column that the options name.
    """
    options = options or ProfileOptions()
    with open_data(data) as scan:
        read = read_data(scan, options)
    require_read(read, options.named_columns)
    return small_profile(read)


def require_read(read: ReadData, names: Collection[str]) -> None:
    """Refuse data that lack columns.

    :raises DatasetError: naming every absent column, and those present.
    """
    absent = [name for name in dict.fromkeys(names) if name not in read.columns]
    if absent:
        present = ", ".join(map(repr, list(read.present or read.columns)[:30])) or "none"
        raise DatasetError(
            f"Data {', '.join(pin.uri for pin in read.pins)} has no column {', '.join(map(repr, absent))}; it has "
            f"{present}. Nothing was compared."
        )


def read_data(scan: Scan, options: ProfileOptions) -> ReadData:
    """Read what the options ask for of a dataset, wide columnar data in several passes."""
    whole = ReadData(scan.pins, present=scan.columns)
    for names in column_groups([scan], options, COLUMNS_AT_ONCE):
        whole.add(read_columns(scan, options, names))
    pa.default_memory_pool().release_unused()  # the process may live long: a training's does until its script ends
    return whole


def column_groups(scans: Sequence[Scan], options: ProfileOptions, size: int) -> Iterator[list[str] | None]:
    """Share out the columns that the options ask for, derived ones too, among passes over the datasets.

    :param size: columns of a pass, at most.
    :return: names for each pass, of which there is one at least; None, for all in one pass, where reading single
        columns is not cheap.
    """
    if not all(scan.is_columnar for scan in scans):
        yield None
        return
    names = list(dict.fromkeys(name for scan in scans for name in scan.columns))
    if options.prediction in names and options.target in names:
        names += [QUALITY_OF_NUMBERS, QUALITY_OF_LABELS]
    wanted = [name for name in names if options.asks_for(name)]
    yield from (wanted[start : start + size] for start in range(0, max(len(wanted), 1), size))


def read_columns(
    scan: Scan, options: ProfileOptions, names: Collection[str] | None = None, *, is_exact: bool = False
) -> ReadData:
    """Read columns of a dataset in one pass.

    :param names: columns to read, derived ones too; None means all that the options ask for.
    :param is_exact: whether every value is held, instead of a sketch.
    """
    read = ReadData(scan.pins, present=scan.columns)
    readers: dict[str, ColumnReader] = {}
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="columns") as pool:
        for plain in scan.batches(_sources(options, names)):
            batch = _with_quality(plain, options) if _derives(names) else plain
            _wait(pending)
            for name in batch.schema.names:
                if name not in readers and _is_wanted(name, options, names):
                    readers[name] = _reader(name, options, read.rows, is_exact=is_exact)
            read.rows += batch.num_rows
            pending = [pool.submit(_feed, part, batch) for part in _parts(list(readers.values()))]
        _wait(pending)
        for name in read.present:  # of a file without a row, too
            if name not in readers and _is_wanted(name, options, names):
                readers[name] = _reader(name, options, read.rows, is_exact=is_exact)
        read.columns = dict(zip(readers, pool.map(ColumnReader.finish, readers.values()), strict=True))
    return read


def merge_profiles(profiles: Sequence[DataProfile]) -> DataProfile:
    """Merge profiles of parts of a dataset, such as hours, into that of the whole.

    Merging adds at most what it states to the error of the parts; the order of the parts makes no greater difference.

    :param profiles: at least one; a column that a part lacks is missing in all rows of that part.
    :raises InvalidArgumentError: when there is none.
    """
    if not profiles:
        raise InvalidArgumentError("profiles is empty; give one to merge at least. Nothing was merged.")
    names = list(dict.fromkeys(column.name for profile in profiles for column in profile.columns))
    merged = ReadData(tuple(pin for profile in profiles for pin in profile.sources))
    merged.rows = sum(profile.rows for profile in profiles)
    parts = [(profile.rows, {column.name: column for column in profile.columns}) for profile in profiles]
    for name in names:
        known = [of_profile(columns[name], rows) for rows, columns in parts if name in columns]
        merged.columns[name] = _merged(known, merged.rows)
    return small_profile(merged)


def _merged(parts: Sequence[ColumnData], rows: int) -> ColumnData:
    first = parts[0]
    whole = ColumnData(first.name, first.role, rows, rows - sum(part.rows for part in parts))
    for part in parts:
        whole.missing += part.missing
        whole.nan += part.nan
        whole.positive_infinite += part.positive_infinite
        whole.negative_infinite += part.negative_infinite
        whole.types |= part.types
        whole.kinds |= part.kinds
        if part.counts is not None and whole.counts is None:
            whole.counts = part.counts
        elif part.counts is not None and whole.counts is not None:
            whole.counts.merge(part.counts)
    curves = [part.curve for part in parts if part.curve is not None]
    whole.curve = merge_curves(curves) if curves else None
    whole.is_text = all(part.kind == "text" for part in parts if part.kind != "empty")
    return whole


def small_profile(read: ReadData) -> DataProfile:
    """Write what was read as a profile that keeps within its size, with as much detail as that allows."""
    hundreds = -(-max(len(read.columns), 1) // _COLUMNS_OF_BUDGET)
    allowed = hundreds * _COLUMNS_OF_BUDGET * BYTES_PER_COLUMN
    sizes = [size for size in _SIZES if len(read.columns) < 2 * _COLUMNS_OF_BUDGET or size[0] <= _KNOTS_OF_WIDE_DATA]
    for knots, categories in sizes:
        profile = _written(read, knots, categories)
        if len(write_profile(profile).encode()) <= allowed:
            break
    return profile


def _written(read: ReadData, knots: int, categories: int) -> DataProfile:
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="columns") as pool:
        columns = pool.map(lambda column: column.document(knots, categories), read.columns.values())
        return DataProfile(
            rows=read.rows,
            columns=tuple(columns),
            sources=read.pins,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=library_versions("numpy", "pyarrow"),
        )


def cpu_count() -> int:
    """Give the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sources(options: ProfileOptions, names: Collection[str] | None) -> list[str] | None:
    """Columns to take from the files; None for all."""
    if names is None:
        return list(options.named_columns) if options.columns else None
    return [*names, *filter(None, (options.prediction, options.target))] if _derives(names) else list(names)


def _derives(names: Collection[str] | None) -> bool:
    """Whether a pass reads a derived column, for which it needs prediction and label."""
    return names is None or not _DERIVED.isdisjoint(names)


def _is_wanted(name: str, options: ProfileOptions, names: Collection[str] | None) -> bool:
    return options.asks_for(name) if names is None else name in names


def _reader(name: str, options: ProfileOptions, rows: int, *, is_exact: bool) -> ColumnReader:
    as_categories = name in options.categorical_columns
    reader = ColumnReader(name, options.role_of(name), as_categories=as_categories, is_exact=is_exact)
    if rows:
        reader.absent(rows)
    return reader


def _with_quality(batch: pa.RecordBatch, options: ProfileOptions) -> pa.RecordBatch:
    """Add how well each row was predicted, where the batch has prediction and label."""
    names = batch.schema.names
    if not (options.prediction in names and options.target in names):
        return batch
    predicted, actual = (batch.column(name) for name in (options.prediction, options.target))
    kinds = {kind_of(predicted.type), kind_of(actual.type)}
    if kinds == {"numerical"}:
        apart = pc.subtract(predicted.cast(pa.float64(), safe=False), actual.cast(pa.float64(), safe=False))
        return batch.append_column(QUALITY_OF_NUMBERS, pc.abs(apart))
    if kinds == {"categorical"}:
        equal = pc.equal(predicted.cast(pa.string()), actual.cast(pa.string()))
        return batch.append_column(QUALITY_OF_LABELS, equal)
    return batch


def _parts(readers: list[ColumnReader]) -> list[list[ColumnReader]]:
    """Share columns out so that every CPU has a few turns."""
    size = max(1, -(-len(readers) // (4 * cpu_count())))
    return [readers[start : start + size] for start in range(0, len(readers), size)]


def _feed(readers: Sequence[ColumnReader], batch: pa.RecordBatch) -> None:
    names = set(batch.schema.names)
    for reader in readers:
        if reader.data.name in names:
            try:
                reader.add(batch.column(reader.data.name))
            except (pa.ArrowException, ArithmeticError) as error:
                raise DatasetError(
                    f"Column {reader.data.name!r} cannot be read: {type(error).__name__}: {error}. "
                    "Nothing was compared."
                ) from None
        else:
            reader.absent(batch.num_rows)


def _wait(pending: Sequence[Future[None]]) -> None:
    for future in pending:
        future.result()
