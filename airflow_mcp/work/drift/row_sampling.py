"""Rows drawn evenly from data of any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


class Reservoir:
    """Draws the rows with the least of random tickets (Vitter, 1985; by keys as Efraimidis and Spirakis, 2006).

    Which rows are drawn depends on seed and position only, not on how they come in batches.

    :param size: rows to draw, at most.
    :param seed: of the tickets.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._tickets = np.empty(0)
        self.seen = 0
        """Rows that were offered."""

    def offer(self, rows: int) -> tuple[Positions, Positions | None]:
        """Offer so many further rows.

        :return: positions of those to take, and then, among all that were taken so far in their order, the positions
            of those to keep; None: all.
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
        """Give a random order of the rows that were kept."""
        return np.argsort(self._tickets, kind="stable")
