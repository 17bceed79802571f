"""Random samples of rows, drawn evenly from data of any size in one pass and bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.work.drift.category_names import named
from airflow_mcp.work.drift.column_data import LARGEST
from airflow_mcp.work.drift.distribution import Array
from airflow_mcp.work.reading.arrow_values import as_floats, plain
from airflow_mcp.work.reading.dataset_batches import COLUMNS_AT_ONCE, FileScan, open_data

Positions = npt.NDArray[np.int64]


class Reservoir:
    """A sample of rows: every row gets a random ticket, and the rows with the lowest tickets are kept.

    Algorithm: Vitter (1985), with keys as in Efraimidis and Spirakis (2006). Which rows are kept depends only on the
    seed and on the positions of the rows, not on how they are divided into batches.

    :param size: largest number of rows to keep.
    :param seed: seed of the tickets.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._tickets = np.empty(0)
        self.seen = 0
        """Rows offered so far."""

    def offer(self, rows: int) -> tuple[Positions, Positions | None]:
        """Offer a batch of rows.

        :param rows: number of rows in the batch.
        :return: positions in the batch of the rows to take; and positions of the rows to keep, counted over all rows
            taken so far, in the order in which they were taken. None in place of the latter means: keep all.
        """
        self.seen += rows
        tickets = self._random.random(rows)
        is_full = len(self._tickets) == self._size
        taken = np.flatnonzero(tickets < (self._tickets.max() if is_full else 1.0))
        self._tickets = np.concatenate([self._tickets, tickets[taken]])
        if len(self._tickets) <= self._size:
            return taken, None
        kept: Positions = np.sort(np.argpartition(self._tickets, self._size - 1)[: self._size])
        self._tickets = self._tickets[kept]
        return taken, kept

    def order(self) -> Positions:
        """Return a random order of the rows that were kept."""
        return np.argsort(self._tickets, kind="stable")


class TableSample(NamedTuple):
    """Rows drawn from a dataset."""

    rows: pa.Table
    is_complete: bool
    """Whether these are all rows of the dataset."""


def sample_table(pins: Sequence[DatasetPin], columns: Mapping[str, ColumnType], size: int, seed: int) -> TableSample:
    """Draw rows of columns that can be compared: numbers as doubles, categories by their names.

    :param pins: the dataset.
    :param columns: columns to read, and as what each is compared.
    :param size: largest number of rows to draw.
    :param seed: seed of the sample.
    :raises DatasetError: when the data cannot be read.
    """
    reservoir = Reservoir(size, seed)
    rows: pa.Table | None = None
    with open_data(pins) as opened:
        scan = opened.reading(texts=[name for name, kind in columns.items() if kind == "categorical"])
        for batch in scan.batches(columns):
            taken, kept = reservoir.offer(batch.num_rows)
            table = _compared(batch.take(pa.array(taken)), columns)
            rows = table if rows is None else pa.concat_tables([rows, table])
            if kept is not None:
                rows = rows.take(pa.array(kept))
    return TableSample(rows if rows is not None else pa.table({}), reservoir.seen <= size)


def _compared(batch: pa.RecordBatch, columns: Mapping[str, ColumnType]) -> pa.Table:
    made = {}
    for name, kind in columns.items():
        values = plain(batch.column(name)) if name in batch.schema.names else pa.nulls(batch.num_rows)
        made[name] = as_floats(values) if kind == "numerical" else named(values)
    return pa.table(made)


def sample_numbers(scan: FileScan, names: Sequence[str], size: int, seed: int) -> Array:
    """Draw rows of numerical columns. Wide data take several passes, all of which draw the same rows.

    :param scan: the dataset.
    :param names: numerical columns, at least one.
    :param size: largest number of rows to draw.
    :param seed: seed of the sample.
    :return: shape (rows, columns), in random order; missing and infinite numbers are NaN.
    :raises DatasetError: when the data cannot be read.
    """
    step = COLUMNS_AT_ONCE if scan.is_columnar else len(names)
    groups = [names[start : start + step] for start in range(0, len(names), step)]
    # Each pass starts from the same seed, so that its rows are those of the other passes.
    return np.hstack([_one_pass(scan, group, Reservoir(size, seed)) for group in groups])


def _one_pass(scan: FileScan, names: Sequence[str], reservoir: Reservoir) -> Array:
    rows = np.empty((0, len(names)))
    for batch in scan.batches(names):
        taken, kept = reservoir.offer(batch.num_rows)
        rows = np.concatenate([rows, _as_array(batch.take(pa.array(taken)), names)])
        if kept is not None:
            rows = rows[kept]
    return rows[reservoir.order()]


def _as_array(batch: pa.RecordBatch, names: Sequence[str]) -> Array:
    table = np.full((batch.num_rows, len(names)), np.nan)
    for position, name in enumerate(names):
        if name in batch.schema.names:
            table[:, position] = as_floats(plain(batch.column(name))).to_numpy(zero_copy_only=False)
    table[~(np.abs(table) < LARGEST)] = np.nan
    return table
