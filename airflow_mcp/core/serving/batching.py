"""Which requests are asked together: what has queued while the previous batch ran, and nothing waits for a timer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar


class Batchable(Protocol):
    """What a queue needs to know of a request."""

    rows: int
    form: Hashable


_Item = TypeVar("_Item", bound=Batchable)


class BatchQueue(Generic[_Item]):
    """Requests that wait for the model, in the order in which they came.

    :param max_batch_rows: most rows of a batch; one request with more rows is a batch of its own.
    """

    def __init__(self, max_batch_rows: int) -> None:
        self._max_batch_rows = max_batch_rows
        self._waiting: deque[_Item] = deque()
        self._again: deque[list[_Item]] = deque()
        self.rows = 0
        """Rows of everything that waits."""

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._waiting) + sum(map(len, self._again))

    def __iter__(self) -> Iterator[_Item]:
        """Go through everything that waits."""
        for batch in self._again:
            yield from batch
        yield from self._waiting

    def add(self, item: _Item) -> None:
        """Add a request at the end."""
        self._waiting.append(item)
        self.rows += item.rows

    def add_again(self, batch: list[_Item]) -> None:
        """Add requests that are asked once more, before all others and exactly together."""
        self._again.append(batch)
        self.rows += sum(item.rows for item in batch)

    def take(self) -> list[_Item]:
        """Remove and return the next batch; empty when nothing waits.

        A batch holds requests of one form. The oldest request is always in the next batch, and those that it does not
        fit with keep their order.
        """
        if self._again:
            batch = self._again.popleft()
        elif self._waiting:
            batch = self._take_waiting()
        else:
            return []
        self.rows -= sum(item.rows for item in batch)
        return batch

    def _take_waiting(self) -> list[_Item]:
        waiting = self._waiting
        first = waiting.popleft()
        batch, rows = [first], first.rows
        if first.form is None:
            return batch
        passed: list[_Item] = []
        while waiting and rows < self._max_batch_rows:
            item = waiting.popleft()
            if item.form == first.form and rows + item.rows <= self._max_batch_rows:
                batch.append(item)
                rows += item.rows
            else:
                passed.append(item)
        waiting.extendleft(reversed(passed))
        return batch

    def drop(self, is_over: Callable[[_Item], bool]) -> None:
        """Remove the requests that need no answer any more.

        :param is_over: returns whether a request is one of them.
        """
        again = ([item for item in batch if not is_over(item)] for batch in self._again)
        self._again = deque(batch for batch in again if batch)
        self._waiting = deque(item for item in self._waiting if not is_over(item))
        self.rows = sum(item.rows for item in self)


def halves(batch: list[_Item]) -> tuple[list[_Item], list[_Item]]:
    """Split a batch that failed, so that the request at fault ends up alone.

    :param batch: at least two requests.
    """
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]
