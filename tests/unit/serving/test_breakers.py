"""Breakers of several versions: what they count, and when an open one closes."""

from __future__ import annotations

from airflow_mcp.core.serving.traffic import BreakerRule, Choice
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.breakers import Breakers, Watched
from airflow_mcp.serving.exchange import Exchange

V7, V8 = (ServedVersion("fraud", number) for number in "78")
RULE = BreakerRule(threshold=0.05, duration=10, min_requests=5)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.opened = 0

    def __call__(self) -> float:
        return self.now


def exchange(
    key: ServedVersion | None, status: int = 200, code: str = "", lost: ServedVersion | None = None
) -> Exchange:
    found = Exchange({"headers": []}, 0.0)
    found.choice = None if key is None else Choice(key, "champion")
    found.status, found.code, found.lost = status, code, lost
    return found


def opened(breakers: Breakers, clock: Clock, *asked: Exchange, seconds: int = 12) -> bool:
    for _ in range(seconds):
        for one in asked * 10:
            breakers.record(one)
        breakers.look()
        clock.now += 1
    return bool(breakers.open)


def started(clock: Clock, *, is_canary: bool = False) -> Breakers:
    def count() -> None:
        clock.opened += 1

    breakers = Breakers(clock, count)
    breakers.watch({V8: Watched(RULE, is_canary, "generation 1")})
    return breakers


def test_errors_of_the_model_open_it_once() -> None:
    clock = Clock()
    breakers = started(clock)
    assert opened(breakers, clock, exchange(V8, 500, "model_failed"))
    assert breakers.open == {V8}
    assert "http_5xx_rate" in breakers.reason(V8)
    assert clock.opened == 1


def test_what_the_model_is_not_to_blame_for_does_not_count() -> None:
    for status, code in ((503, "overloaded"), (503, "not_ready"), (500, "internal"), (400, "invalid_rows"), (429, "")):
        clock = Clock()
        breakers = started(clock)
        assert not opened(breakers, clock, exchange(V8, status, code))


def test_other_versions_do_not_count() -> None:
    clock = Clock()
    breakers = started(clock)
    assert not opened(breakers, clock, exchange(V7, 500, "model_failed"), exchange(None, 500, "model_failed"))


def test_a_canary_that_ended_with_requests_is_blamed_although_the_champion_answered() -> None:
    clock = Clock()
    breakers = started(clock, is_canary=True)
    assert opened(breakers, clock, exchange(V7, 200, lost=V8), seconds=3)


def test_an_open_one_stays_open_until_the_registry_says_something_newer() -> None:
    clock = Clock()
    breakers = started(clock)
    opened(breakers, clock, exchange(V8, 500, "timeout"))
    breakers.watch({V8: Watched(RULE, False, "generation 1")})
    assert breakers.open == {V8}
    breakers.watch({V8: Watched(RULE, False, "generation 2")})
    assert breakers.open == frozenset()


def test_a_closed_one_keeps_its_counts_through_a_new_generation() -> None:
    clock = Clock()
    breakers = started(clock)
    assert not opened(breakers, clock, exchange(V8, 500, "timeout"), seconds=8)
    breakers.watch({V8: Watched(RULE, False, "generation 2")})
    assert opened(breakers, clock, exchange(V8, 500, "timeout"), seconds=4)


def test_versions_that_are_no_longer_watched_are_forgotten() -> None:
    clock = Clock()
    breakers = started(clock)
    opened(breakers, clock, exchange(V8, 500, "timeout"))
    breakers.watch({})
    assert breakers.open == frozenset()
    assert breakers.reason(V8) == ""
