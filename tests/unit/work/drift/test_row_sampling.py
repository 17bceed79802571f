from __future__ import annotations

import numpy as np
import pytest

from airflow_mcp.work.drift.row_sampling import Reservoir


def drawn(batches: list[int], size: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Draw from rows that are numbered; give them in their own order and in the random one."""
    reservoir, rows, start = Reservoir(size, seed), np.empty(0, dtype=int), 0
    for count in batches:
        taken, kept = reservoir.offer(count)
        rows = np.concatenate([rows, start + taken])
        rows = rows if kept is None else rows[kept]
        start += count
    assert reservoir.seen == start
    return rows.tolist(), rows[reservoir.order()].tolist()


@pytest.mark.parametrize("batches", [[1000], [1] * 1000, [0, 7, 0, 300, 693], [100, 900]])
def test_the_rows_that_are_drawn_do_not_depend_on_the_batches(batches: list[int]) -> None:
    rows, order = drawn(batches, 100)
    assert (rows, order) == drawn([500, 500], 100)
    assert rows == sorted(set(rows)) == sorted(order)
    assert len(rows) == 100
    assert order != rows


def test_fewer_rows_than_may_be_drawn_are_all_drawn() -> None:
    assert drawn([3, 4], 7)[0] == drawn([3, 4], 8)[0] == list(range(7))
    assert drawn([], 7) == ([], [])


def test_every_row_is_drawn_as_often_and_stands_at_every_place() -> None:
    orders = np.array([drawn([15, 3, 22], 10, seed)[1] for seed in range(4000)])
    times = np.bincount(orders.ravel(), minlength=40)
    assert np.abs(times - 1000).max() < 5 * np.sqrt(1000 * 0.75)
    first_half = np.bincount(orders[:, :5].ravel(), minlength=40)
    assert np.abs(first_half - 500).max() < 5 * np.sqrt(500 * 0.875)
