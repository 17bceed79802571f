"""Sliding windows: the order of the answers does not matter, and what is too late is said to be."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest

from airflow_mcp.core.serving.windows import LATENCY_EDGES, SlidingWindows, Window
from airflow_mcp.exceptions import InvalidArgumentError

LATENESS = 4.0


class Answer(NamedTuple):
    """An answer: when its request arrived, how long it took, whether it failed, whether it was refused."""

    at: float
    seconds: float
    failed: bool = False
    is_refused: bool = False


def count(windows: SlidingWindows, answer: Answer) -> bool:
    if answer.is_refused:
        return windows.refuse(answer.at)
    return windows.add(answer.at, answer.seconds, failed=answer.failed)


def closed(answers: list[Answer], **given: object) -> tuple[list[Window], int]:
    """Count answers in this order, closing what can be closed after each; return the windows and how many were late."""
    windows, found, late = SlidingWindows(**{"lateness": LATENESS, **given}), [], 0  # type: ignore[arg-type]
    for answer in answers:
        late += not count(windows, answer)
        found += windows.close()
    return found + windows.close_all(), late


def generated(seed: int) -> list[Answer]:
    """Return answers of a minute with bursts and pauses, in the order of their requests."""
    chance = random.Random(seed)
    at, found = chance.uniform(-100, 1e6), []
    for _ in range(chance.randrange(1, 120)):
        at += chance.choice([0.0, 0.01, 0.3, 2.0, 30.0])
        found.append(Answer(at, chance.expovariate(20), chance.random() < 0.1, chance.random() < 0.05))
    return found


def disturbed(answers: list[Answer], seed: int) -> list[Answer]:
    """Return answers in an order in which each comes late by at most the lateness that is allowed."""
    chance = random.Random(seed)
    return sorted(answers, key=lambda answer: answer.at + chance.uniform(0, LATENESS))


def expected(answers: list[Answer], seconds: int, every: int) -> list[tuple[float, int, int, int]]:
    """Count without any windows: go through all answers for each window that has one."""
    ends = {
        (math.floor(answer.at / every) + later) * every
        for answer in answers
        for later in range(1, seconds // every + 1)
    }
    found = []
    for end in sorted(ends):
        inside = [answer for answer in answers if end - seconds <= answer.at < end]
        answered = [answer for answer in inside if not answer.is_refused]
        found.append((float(end), len(answered), sum(each.failed for each in answered), len(inside) - len(answered)))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_answers_in_another_order_give_the_same_windows(seed: int) -> None:
    answers = generated(seed)
    in_order, _ = closed(answers)
    for shuffle in range(5):
        assert closed(disturbed(answers, 1000 * seed + shuffle)) == (in_order, 0)


@pytest.mark.parametrize(("seconds", "every"), [(10, 5), (10, 10), (12, 3), (1, 1)])
def test_each_window_holds_what_arrived_within_it(seconds: int, every: int) -> None:
    for seed in range(20):
        answers = generated(seed)
        windows, late = closed(disturbed(answers, seed), seconds=seconds, every=every)
        assert late == 0
        summed = [(window.end, window.answered, window.failed, window.refused) for window in windows]
        assert summed == expected(answers, seconds, every)
        assert all(sum(window.counts) == window.answered for window in windows)
        assert all(window.end - window.start == seconds for window in windows)


def test_a_window_is_closed_when_the_newest_answer_is_past_its_end_and_the_lateness() -> None:
    windows = SlidingWindows(lateness=LATENESS)
    assert windows.add(7.0, 0.1, failed=False)
    assert windows.add(13.9, 0.1, failed=False)
    assert windows.close() == []
    assert windows.add(14.0, 0.1, failed=False)
    (first,) = windows.close()
    assert (first.start, first.end, first.answered) == (0.0, 10.0, 1)
    assert windows.closed_until == 10.0


def test_an_answer_later_than_allowed_is_not_counted_and_says_so() -> None:
    windows = SlidingWindows(lateness=LATENESS)
    assert windows.add(20.0, 0.1, failed=False)
    assert windows.close() == []
    assert windows.closed_until == 15.0
    assert not windows.add(14.9, 0.1, failed=False)
    assert not windows.refuse(14.9)
    assert windows.add(16.0, 0.1, failed=True)
    assert [(window.end, window.answered) for window in windows.close_all()] == [(20.0, 1), (25.0, 2), (30.0, 1)]


def test_a_clock_closes_windows_without_further_answers() -> None:
    windows = SlidingWindows(lateness=LATENESS)
    windows.add(3.0, 0.1, failed=False)
    assert windows.close(now=8.9) == []
    assert [window.end for window in windows.close(now=9.0)] == [5.0]
    assert [window.end for window in windows.close(now=1000.0)] == [10.0]
    assert windows.closed_until == 995.0
    assert windows.close(now=2000.0) == []


def test_a_clock_that_jumps_back_opens_no_window_again() -> None:
    windows = SlidingWindows(lateness=LATENESS)
    windows.add(3.0, 0.1, failed=False)
    windows.close(now=20.0)
    assert windows.close(now=0.0) == []
    assert windows.closed_until == 15.0
    assert not windows.add(4.0, 0.1, failed=False)


def test_nothing_is_kept_of_windows_that_are_closed() -> None:
    windows = SlidingWindows(lateness=LATENESS)
    for second in range(10_000):
        windows.add(float(second), 0.1, failed=False)
        windows.close()
    assert len(windows._panes) <= 4


def test_latencies_are_known_up_to_the_next_edge() -> None:
    answers = [Answer(1.0, 0.004)] * 98 + [Answer(2.0, 0.15), Answer(3.0, 7.0)]
    window = closed(answers)[0][0]
    assert window.quantile(0.5) == 0.005
    assert window.quantile(0.99) == 0.15
    assert window.quantile(1.0) == math.inf
    assert window.slower_than(0.1) == 0.02
    assert window.slower_than(0.15) == 0.01
    with pytest.raises(ValueError):
        window.slower_than(0.12)


def test_an_edge_of_ones_own_is_exact() -> None:
    edges = tuple(sorted({*LATENCY_EDGES, 0.12}))
    window = closed([Answer(1.0, 0.12), Answer(1.0, 0.1201)], edges=edges)[0][0]
    assert window.slower_than(0.12) == 0.5


def test_a_window_of_refused_requests_only_has_no_latency() -> None:
    window = closed([Answer(1.0, 0.0, is_refused=True)])[0][0]
    assert (window.answered, window.refused) == (0, 1)
    assert math.isnan(window.quantile(0.99))
    assert math.isnan(window.slower_than(0.1))


@pytest.mark.parametrize(("seconds", "every"), [(10, 0), (10, 3), (5, 10)])
def test_windows_that_do_not_tile_are_refused(seconds: int, every: int) -> None:
    with pytest.raises(InvalidArgumentError, match="seconds must be a multiple of every"):
        SlidingWindows(seconds=seconds, every=every)


@pytest.mark.parametrize("lateness", [-1.0, math.inf, math.nan])
def test_a_lateness_that_would_never_end_is_refused(lateness: float) -> None:
    with pytest.raises(InvalidArgumentError, match="lateness must be 0 or more seconds"):
        SlidingWindows(lateness=lateness)
