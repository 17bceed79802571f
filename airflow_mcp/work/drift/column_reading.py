"""Reads columns of a dataset in bounded memory: which ones, in how many passes, and the derived columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.profile import ColumnRole
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.drift.category_names import named
from airflow_mcp.work.drift.column_data import ColumnData, ColumnReader, kind_of
from airflow_mcp.work.reading.arrow_values import GUESSED, as_floats, plain
from airflow_mcp.work.reading.dataset_batches import COLUMNS_AT_ONCE, Scan
from airflow_mcp.work.run.process import cpu_count

QUALITY_OF_NUMBERS, QUALITY_OF_LABELS = "(prediction error)", "(prediction correct)"
"""Derived columns: absolute difference of prediction and label, and whether they are equal."""
_DERIVED = frozenset({QUALITY_OF_NUMBERS, QUALITY_OF_LABELS})
ScanType = TypeVar("ScanType", bound=Scan)
ReadPass: TypeAlias = "Callable[[ProfileOptions, Collection[str] | None, Collection[str]], ReadData]"
"""Reads columns of a dataset in one pass: options, names of the columns, and those that stay text in text files."""


@dataclass(frozen=True)
class ProfileOptions:
    """Which columns of a dataset are read, and in which role and type."""

    columns: Collection[str] = ()
    """Empty: all that are not ignored. Columns that other options name are read as well."""
    ignored_columns: Collection[str] = ()
    categorical_columns: Collection[str] = ()
    """Columns that hold categories whatever their type."""
    prediction: str = ""
    target: str = ""
    """Label. Together with a prediction, a quality column is derived."""
    quality_columns: Collection[str] = ()

    @classmethod
    def of_policy(cls, policy: ComparisonPolicy) -> ProfileOptions:
        """Return what a comparison needs to read."""
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
        """Columns that the data must have, each once."""
        roles = filter(None, (self.prediction, self.target))
        return tuple(dict.fromkeys([*self.columns, *self.categorical_columns, *self.quality_columns, *roles]))

    @property
    def derives_quality(self) -> bool:
        """Whether prediction and label are known, from which a quality column is derived."""
        return bool(self.prediction and self.target)

    @cached_property
    def _chosen(self) -> frozenset[str]:
        return frozenset(self.named_columns) | _DERIVED if self.columns else frozenset()

    def asks_for(self, column: str) -> bool:
        """Return whether a column, which may be a derived one, is read if the data have it."""
        return (not self._chosen or column in self._chosen) and column not in self.ignored_columns

    def role_of(self, column: str) -> ColumnRole:
        """Return the role of a column for the model."""
        if self.prediction and column == self.prediction:
            return "prediction"
        if self.target and column == self.target:
            return "target"
        is_quality = column in self.quality_columns or column in _DERIVED
        return "quality" if is_quality else "feature"


@dataclass
class ReadData:
    """The columns of a dataset as they were read, or from a profile."""

    pins: tuple[DatasetPin, ...]
    rows: int = 0
    columns: dict[str, ColumnData] = field(default_factory=dict)
    more_pins: int = 0
    """Sources of merged profiles that are not in the pins, for lack of space."""
    present: Collection[str] = ()
    """Columns of the data, read or not; for messages."""

    def add(self, part: ReadData) -> None:
        """Add the columns of another pass.

        :raises DatasetError: when that pass read a different number of rows.
        """
        if self.columns and part.rows != self.rows:
            raise DatasetError(
                f"data {', '.join(pin.uri for pin in self.pins)} changed while it was read: it had {self.rows} rows "
                f"and now has {part.rows}. Nothing was compared"
            )
        self.rows = part.rows
        self.columns |= part.columns


def require_read(read: ReadData, names: Collection[str]) -> None:
    """Check that columns were read.

    :raises DatasetError: when some are absent; names them, and the columns that are present.
    """
    absent = [name for name in dict.fromkeys(names) if name not in read.columns]
    if absent:
        present = ", ".join(map(repr, list(read.present or read.columns)[:30])) or "none"
        raise DatasetError(
            f"data {', '.join(pin.uri for pin in read.pins)} has no column {', '.join(map(repr, absent))}; it has "
            f"{present}. Nothing was compared"
        )


def read_data(scan: Scan, options: ProfileOptions) -> ReadData:
    """Read the columns that the options ask for; wide columnar data take several passes."""
    scan = as_asked(scan, options)
    whole = ReadData(scan.pins, present=scan.columns)
    for names in column_groups([scan], options, COLUMNS_AT_ONCE):
        whole.add(read_columns(scan, options, names))
    pa.default_memory_pool().release_unused()  # the process may live long: in step train, as long as the script
    return whole


def as_asked(scan: ScanType, options: ProfileOptions) -> ScanType:
    """Return the data without ignored columns, and with declared categories read as text where a file stores text."""
    return scan.reading(texts=options.categorical_columns, ignored=options.ignored_columns)


def column_groups(scans: Sequence[Scan], options: ProfileOptions, size: int) -> Iterator[list[str] | None]:
    """Divide the columns that the options ask for, derived ones included, into passes over the datasets.

    :param size: largest number of columns per pass.
    :return: the names of each pass, at least one pass; None stands for a single pass over all columns, for formats of
        which single columns cannot be read cheaply.
    """
    if not all(scan.is_columnar for scan in scans):
        yield None
        return
    names = list(dict.fromkeys(name for scan in scans for name in scan.columns))
    if options.derives_quality and options.prediction in names and options.target in names:
        names += [QUALITY_OF_NUMBERS, QUALITY_OF_LABELS]
    wanted = [name for name in names if options.asks_for(name)]
    yield from (wanted[start : start + size] for start in range(0, max(len(wanted), 1), size))


def read_columns(
    scan: Scan, options: ProfileOptions, names: Collection[str] | None = None, *, is_exact: bool = False
) -> ReadData:
    """Read columns of a dataset, in one pass unless types were guessed that do not hold for the whole column.

    Such columns are read again as text, so that nothing depends on where a file or a block ends.

    :param names: columns to read, derived ones included; None reads all that the options ask for.
    :param is_exact: whether to keep every value instead of a sketch.
    """
    present = scan.columns

    def read_pass(options: ProfileOptions, names: Collection[str] | None, texts: Collection[str]) -> ReadData:
        return one_pass(scan.reading(texts=texts) if texts else scan, present, options, names, is_exact=is_exact)

    return settled(read_pass, options, names)


def settled(read_pass: ReadPass, options: ProfileOptions, names: Collection[str] | None = None) -> ReadData:
    """Read columns, and those whose types were guessed and do not hold, or that only some files declare, once more.

    :param read_pass: reads columns of the whole dataset in one pass.
    :param options: columns to read and their types.
    :param names: columns to read, derived ones included; None reads all that the options ask for.
    """
    read = read_pass(options, names, ())
    declared = [name for name, column in read.columns.items() if column.is_partly_declared]
    doubtful = list(dict.fromkeys([*(name for name, column in read.columns.items() if column.is_doubtful), *declared]))
    if doubtful:
        options = replace(options, categorical_columns=frozenset(options.categorical_columns) | set(declared))
        derived = [name for name in read.columns if name in _DERIVED]
        if derived and not {options.prediction, options.target}.isdisjoint(doubtful):
            read.columns = {name: column for name, column in read.columns.items() if name not in _DERIVED}
            doubtful += [QUALITY_OF_NUMBERS, QUALITY_OF_LABELS]
        read.add(read_pass(options, doubtful, doubtful))
    return read


def one_pass(
    scan: Scan, present: Collection[str], options: ProfileOptions, names: Collection[str] | None, *, is_exact: bool
) -> ReadData:
    """Read columns in one pass; see :func:`settled` for what this leaves open.

    :param present: columns that the dataset is known to have.
    :param names: columns to read, derived ones included; None reads all that the options ask for.
    :param is_exact: whether to keep every value instead of a sketch.
    """
    read = ReadData(scan.pins, present=present)
    readers: dict[str, ColumnReader] = {}
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="columns") as pool:
        for read_batch in scan.batches(_sources(options, names)):
            batch = _with_quality(read_batch, options) if _derives(names) else read_batch
            _wait(pending)  # one batch is counted while the next is read, so at most two are in memory
            for name in batch.schema.names:
                if name not in readers and _is_wanted(name, options, names):
                    readers[name] = _reader(name, options, read.rows, is_exact=is_exact)
            read.rows += batch.num_rows
            pending = [pool.submit(_feed, part, batch) for part in _parts(list(readers.values()))]
        _wait(pending)
        for name in read.present:  # a dataset without rows has columns too
            if name not in readers and _is_wanted(name, options, names):
                readers[name] = _reader(name, options, read.rows, is_exact=is_exact)
        read.columns = dict(zip(readers, pool.map(ColumnReader.finish, readers.values()), strict=True))
    return read


def _sources(options: ProfileOptions, names: Collection[str] | None) -> list[str] | None:
    """Return the columns to read from the files; None for all that are not ignored."""
    if names is None:
        return list(options.named_columns) if options.columns else None
    return [*names, *filter(None, (options.prediction, options.target))] if _derives(names) else list(names)


def _derives(names: Collection[str] | None) -> bool:
    """Return whether a pass has a derived column, for which it reads prediction and label."""
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
    """Add the quality of each prediction, if the batch has prediction and label.

    Numbers are labels, too, when one of the two columns is declared as categories or holds text.
    """
    names, sources = batch.schema.names, (options.prediction, options.target)
    if not (options.derives_quality and set(sources) <= set(names)):
        return batch
    predicted, actual = (plain(batch.column(name)) for name in sources)
    kinds = {kind_of(values.type) for values in (predicted, actual) if values.null_count < len(values)}
    if kinds == {"numerical"} and set(sources).isdisjoint(options.categorical_columns):
        return batch.append_column(QUALITY_OF_NUMBERS, pc.abs(pc.subtract(as_floats(predicted), as_floats(actual))))
    if kinds and kinds <= {"numerical", "categorical"}:
        return batch.append_column(QUALITY_OF_LABELS, pc.equal(named(predicted), named(actual)))
    return batch


def _parts(readers: list[ColumnReader]) -> list[list[ColumnReader]]:
    """Divide columns into about four parts per CPU, so that no CPU waits long for a slow part."""
    size = max(1, -(-len(readers) // (4 * cpu_count())))
    return [readers[start : start + size] for start in range(0, len(readers), size)]


def _feed(readers: Sequence[ColumnReader], batch: pa.RecordBatch) -> None:
    positions = {name: position for position, name in enumerate(batch.schema.names)}
    for reader in readers:
        position = positions.get(reader.data.name)
        if position is None:
            reader.absent(batch.num_rows)
        else:
            is_guess = batch.schema.field(position).metadata == GUESSED
            reader.add(batch.column(position), is_guess=is_guess)


def _wait(pending: Sequence[Future[None]]) -> None:
    for future in pending:
        future.result()
