"""When a breaker opens: 1:59 no, 2:00 yes, and never from missing data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_mcp.core.serving.breaker import (
    TAG_ROLLBACK,
    Breaker,
    BreakerState,
    RecentCounts,
    after_look,
    read_rollback,
)
from airflow_mcp.core.serving.traffic import BreakerRule

RULE = BreakerRule(threshold=0.05, duration=120)
NOW = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)
BAD, GOOD = (0.06, 100), (0.05, 100)


def looks(samples: Iterable[tuple[float, int]], start: float = 1000.0) -> BreakerState:
    """Look once a second."""
    state = BreakerState()
    for number, (value, requests) in enumerate(samples):
        state = after_look(state, RULE, value, requests, start + number)
    return state


class TestAfterALook:
    def test_1_59_above_the_threshold_is_not_enough(self) -> None:
        assert not looks([BAD] * 120).is_open  # 120 looks are 119 seconds

    def test_2_00_above_the_threshold_opens(self) -> None:
        state = looks([BAD] * 121)
        assert state.is_open
        assert "http_5xx_rate was above 0.05 for 120 s" in state.reason

    def test_the_threshold_itself_is_not_above(self) -> None:
        assert not looks([GOOD] * 500).is_open

    @pytest.mark.parametrize(
        "between", [GOOD, (math.nan, 100), (0.9, 0), (math.nan, 0), (0.9, 19)], ids=["good", "nan", "0", "none", "few"]
    )
    def test_one_look_in_between_starts_the_time_anew(self, between: tuple[float, int]) -> None:
        assert not looks([BAD] * 119 + [between] + [BAD] * 120).is_open
        assert looks([BAD] * 119 + [between] + [BAD] * 121).is_open

    def test_a_gap_between_two_looks_starts_the_time_anew(self) -> None:
        state = looks([BAD] * 100)
        state = after_look(state, RULE, *BAD, now=1099 + 60)
        assert not after_look(state, RULE, *BAD, now=1099 + 61).is_open
        assert state.above_since == 1099 + 60

    def test_a_late_look_of_two_seconds_is_no_gap(self) -> None:
        state = BreakerState()
        for now in range(0, 122, 2):
            state = after_look(state, RULE, *BAD, now=float(now))
        assert state.is_open

    def test_no_traffic_at_all_never_opens(self) -> None:
        assert not looks([(math.nan, 0)] * 1000).is_open

    def test_stays_open_whatever_comes(self) -> None:
        opened = looks([BAD] * 121)
        assert after_look(opened, RULE, 0.0, 100, 2000.0) is opened


def answers(breaker: Breaker, second: float, requests: int, failed: int, seconds: float = 0.01) -> None:
    for number in range(requests):
        breaker.add(second, seconds, failed=number < failed)


class TestABreaker:
    def test_opens_once_after_its_duration(self) -> None:
        breaker = Breaker(RULE)
        opened = []
        for second in range(300):
            answers(breaker, second, 10, 1)
            if breaker.look(second):
                opened.append(second)
        # The first look that finds 20 requests is at second 1.
        assert opened == [121]
        assert breaker.is_open

    def test_does_not_open_without_requests(self) -> None:
        breaker = Breaker(RULE)
        answers(breaker, 0, 1000, 1000)
        assert not any(breaker.look(second) for second in range(1, 500))

    def test_of_a_champion_does_not_open_at_once(self) -> None:
        breaker = Breaker(RULE)
        answers(breaker, 0, 100, 100)
        assert not breaker.look(0)

    def test_of_a_canary_opens_at_once_when_half_of_20_fail_in_10_seconds(self) -> None:
        breaker = Breaker(RULE, is_canary=True)
        answers(breaker, 0, 19, 19)
        assert not breaker.look(0)
        answers(breaker, 9, 1, 0)
        assert breaker.look(9)
        assert "19 of 20" in breaker.state.reason
        assert not breaker.look(10)

    def test_of_a_canary_ignores_failures_spread_over_more_than_10_seconds(self) -> None:
        breaker = Breaker(RULE, is_canary=True)
        for second in range(0, 40, 2):
            answers(breaker, second, 2, 2)
            assert not breaker.look(second)

    @pytest.mark.parametrize(("slow", "opens"), [(1, False), (2, True)])
    def test_judges_the_99th_percentile_of_the_latency(self, slow: int, opens: bool) -> None:
        breaker = Breaker(BreakerRule(metric="latency_p99_ms", threshold=100, duration=10))
        for second in range(20):
            answers(breaker, second, 100 - slow, 0)
            answers(breaker, second, slow, 0, seconds=0.2)
            breaker.look(second)
        assert breaker.is_open is opens
        assert ("longer than 100 ms" in breaker.state.reason) is opens


class TestRecentCounts:
    def test_forgets_what_is_older_than_the_window(self) -> None:
        counts = RecentCounts()
        for second in range(100):
            counts.add(second, 0.0, failed=second % 2 == 0)
        assert counts.last(99) == (30, 15, 0)
        assert counts.last(99, 10) == (10, 5, 0)
        assert counts.last(128) == (1, 0, 0)
        assert counts.last(129) == (0, 0, 0)


@pytest.mark.parametrize("fields", [{"threshold": 5}, {"threshold": 1}, {"threshold": True}, {"duration": True}])
def test_a_rule_that_could_never_open_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"less than 1|valid number"):
        BreakerRule(**{"threshold": 0.05, "duration": 120, **fields})


def document(**fields: Any) -> str:
    values = {"metric": "http_5xx_rate", "threshold": 0.05, "duration": 120, "min_requests": 20, "stable": "7"}
    return json.dumps({"schema": "airflow_mcp/rollback/1", **values, **fields})


class TestTheRollbackTag:
    def test_is_read(self) -> None:
        found = read_rollback({TAG_ROLLBACK: document()}, "8", NOW)
        assert found.document is not None
        assert found.document.stable == "7"
        assert found.document.rule == RULE

    def test_counts_until_its_time(self) -> None:
        for until, counts in ((NOW + timedelta(seconds=1), True), (NOW - timedelta(seconds=1), False)):
            found = read_rollback({TAG_ROLLBACK: document(until=until.isoformat())}, "8", NOW)
            assert (found.document is not None) is counts
            assert found.error == ""

    def test_is_not_guessed_at(self) -> None:
        wrong = ("{", document(metric="mood"), document(threshold=None), document(stable="8"), document(duration=0))
        for text in (*wrong, document(threshold=1), document(threshold=5), document(threshold=True)):
            found = read_rollback({TAG_ROLLBACK: text}, "8", NOW)
            assert found.document is None
            assert TAG_ROLLBACK in found.error

    def test_need_not_exist(self) -> None:
        assert read_rollback({}, "8", NOW) == (None, "")
