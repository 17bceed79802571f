"""Which requests share a batch."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_mcp.core.serving.batching import BatchQueue, halves


@dataclass(eq=False)
class Item:
    name: str
    rows: int = 1
    form: Any = "a"


def names(batch: list[Item]) -> str:
    return "".join(item.name for item in batch)


def queue_of(*items: Item, max_rows: int = 4) -> BatchQueue[Item]:
    queue: BatchQueue[Item] = BatchQueue(max_rows)
    for item in items:
        queue.add(item)
    return queue


def test_a_batch_is_what_has_queued_up_to_the_limit_of_rows() -> None:
    queue = queue_of(*(Item(name) for name in "abcdef"))
    assert [names(queue.take()) for _ in range(3)] == ["abcd", "ef", ""]


def test_rows_count_and_not_requests() -> None:
    queue = queue_of(Item("a", 3), Item("b", 2), Item("c", 1))
    assert queue.rows == 6
    assert names(queue.take()) == "ac"
    assert queue.rows == 2


def test_a_request_with_more_rows_than_a_batch_is_asked_by_itself() -> None:
    queue = queue_of(Item("a", 100), Item("b"))
    assert names(queue.take()) == "a"
    assert names(queue.take()) == "b"


def test_only_requests_of_one_form_share_a_batch_and_the_oldest_is_always_next() -> None:
    queue = queue_of(Item("a"), Item("B", form="b"), Item("c"), Item("D", form="b"))
    assert [names(queue.take()), names(queue.take())] == ["ac", "BD"]


def test_requests_without_a_form_are_asked_alone() -> None:
    queue = queue_of(Item("a", form=None), Item("b", form=None), Item("c"))
    assert [names(queue.take()) for _ in range(3)] == ["a", "b", "c"]


def test_what_is_asked_again_comes_first_and_exactly_together() -> None:
    queue = queue_of(Item("a"))
    queue.add_again([Item("x", 3), Item("y", 3)])
    assert len(queue) == 3
    assert [item.name for item in queue] == ["x", "y", "a"]
    assert [names(queue.take()), names(queue.take())] == ["xy", "a"]
    assert queue.rows == 0


def test_a_batch_that_fails_ends_up_as_single_requests() -> None:
    waiting, rounds = [list("abcdefg")], 0
    while any(len(batch) > 1 for batch in waiting):
        waiting = [half for batch in waiting for half in (halves(batch) if len(batch) > 1 else [batch])]
        rounds += 1
    assert waiting == [[letter] for letter in "abcdefg"]
    assert rounds == 3


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_each_request_is_taken_once_and_in_order_within_its_form(seed: int) -> None:
    draw = random.Random(seed)
    items = [Item(str(number), draw.randint(1, 5), draw.choice(["a", "b", None])) for number in range(200)]
    queue: BatchQueue[Item] = BatchQueue(8)
    taken: list[Item] = []
    waiting = list(items)
    while waiting or len(queue):
        if waiting and draw.random() < 0.6:
            queue.add(waiting.pop(0))
        else:
            batch = queue.take()
            assert len({item.form for item in batch}) <= 1
            assert len(batch) <= 1 or (sum(item.rows for item in batch) <= 8 and batch[0].form is not None)
            taken += batch
    assert queue.rows == 0
    assert sorted(taken, key=items.index) == items
    for form in ("a", "b", None):
        of_form = [item for item in items if item.form == form]
        order = [item for item in taken if item.form == form]
        # A large request may be passed by smaller ones of its form, but never the oldest one.
        assert order[0] is of_form[0]
        assert len(order) == len(of_form)


def test_requests_that_are_over_leave_the_queue_with_their_rows() -> None:
    queue = queue_of(Item("a", 2), Item("b"), Item("c"))
    queue.add_again([Item("x", 3), Item("a", 3)])
    queue.add_again([Item("a")])
    queue.drop(lambda item: item.name == "a")
    assert ([item.name for item in queue], queue.rows) == (["x", "b", "c"], 5)
    assert [names(queue.take()), names(queue.take())] == ["x", "bc"]
