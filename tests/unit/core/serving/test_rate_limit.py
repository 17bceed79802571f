"""How many requests are accepted: the 100th yes, the 101st no."""

from __future__ import annotations

import pytest

from airflow_mcp.core.serving import rate_limit
from airflow_mcp.core.serving.rate_limit import RateLimiter, TokenBucket, retry_after


class TestABucket:
    def test_accepts_100_requests_in_a_second_and_refuses_the_101st(self) -> None:
        bucket = TokenBucket(100, 50.0)
        assert [bucket.take(50.0) for _ in range(100)] == [0.0] * 100
        assert bucket.take(50.0) == pytest.approx(0.01)

    def test_accepts_again_at_its_rate(self) -> None:
        bucket = TokenBucket(100, 0.0)
        accepted = sum(bucket.take(number / 1000) == 0.0 for number in range(10_000))  # 1000 requests/s for 10 s
        assert 100 + 990 <= accepted <= 100 + 1000

    def test_never_saves_up_more_than_one_second(self) -> None:
        bucket = TokenBucket(100, 0.0)
        assert sum(bucket.take(3600.0) == 0.0 for _ in range(1000)) == 100

    def test_with_less_than_one_request_per_second_accepts_the_first(self) -> None:
        bucket = TokenBucket(0.5, 0.0)
        assert bucket.take(0.0) == 0.0
        assert bucket.take(0.0) == pytest.approx(2.0)
        assert bucket.take(2.0) == 0.0

    def test_is_not_filled_by_a_clock_that_goes_back(self) -> None:
        bucket = TokenBucket(1, 100.0)
        assert bucket.take(100.0) == 0.0
        assert bucket.take(0.0) > 0
        assert bucket.take(100.5) > 0
        assert bucket.take(101.0) == 0.0


class TestALimiter:
    def test_counts_everybody_together(self) -> None:
        limiter = RateLimiter(2)
        assert [limiter.take(0.0, name) > 0 for name in ("ann", "bob", "cid")] == [False, False, True]

    def test_counts_each_caller(self) -> None:
        limiter = RateLimiter(1, per_subject=True)
        assert [limiter.take(0.0, name) > 0 for name in ("ann", "bob", "ann", "bob")] == [False, False, True, True]

    def test_forgets_who_was_seen_longest_ago(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rate_limit, "MAX_BUCKETS", 2)
        limiter = RateLimiter(1, per_subject=True)
        for name in ("ann", "bob", "ann", "cid"):  # bob is forgotten, ann is not
            limiter.take(0.0, name)
        assert limiter.take(0.0, "ann") > 0
        assert limiter.take(0.0, "bob") == 0

    def test_divides_the_rate_of_a_service_among_its_servers(self) -> None:
        limiter = RateLimiter(100)
        limiter.take(0.0)
        limiter.set_replicas(4, 0.0)
        assert sum(limiter.take(0.0) == 0 for _ in range(100)) == 25
        limiter.set_replicas(2, 0.0)
        assert sum(limiter.take(1.0) == 0 for _ in range(100)) == 50


@pytest.mark.parametrize(("seconds", "value"), [(0.001, 1), (1.0, 1), (1.01, 2), (30.5, 31)])
def test_retry_after_is_whole_seconds(seconds: float, value: int) -> None:
    assert retry_after(seconds) == value
