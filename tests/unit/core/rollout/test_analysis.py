"""Four verdicts from counts."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.gate.rules.thresholds import parse_threshold
from airflow_mcp.core.rollout.analysis import AnalysisOutcome, analyse
from airflow_mcp.core.rollout.samples import Counts, Pair


def counts(answered: float = 0, failed: float = 0, refused: float = 0, **within: float) -> Counts:
    edges = {name.removeprefix("ms"): number for name, number in within.items()}
    return Counts(answered=answered, failed=failed, refused=refused, timed=answered, within=edges)


def judged(rule: str, canary: Counts, champion: Counts | None = None, weight: float = 50, **kwargs: Any) -> str:
    return outcome(rule, canary, champion, weight, **kwargs).verdict


def outcome(
    rule: str, canary: Counts, champion: Counts | None = None, weight: float = 50, **kwargs: Any
) -> AnalysisOutcome:
    pair = Pair(canary=canary, champion=champion or counts(canary.answered))
    return analyse([parse_threshold(rule)], pair, weight, **kwargs)


@pytest.mark.parametrize(
    ("answered", "failed", "verdict"),
    [(0, 0, "inconclusive"), (10, 0, "inconclusive"), (458, 0, "inconclusive"), (459, 0, "passed"), (3, 3, "failed")],
)
def test_a_share_is_judged_by_its_bounds(answered: float, failed: float, verdict: str) -> None:
    assert judged("http_5xx_rate <= 0.01", counts(answered, failed)) == verdict


def test_one_bad_request_never_breaks_a_rule() -> None:
    champion = counts(200, ms10=199, ms20=200, ms100=200)
    slow = counts(1, ms10=0, ms20=0, ms100=0, ms200=0, ms500=1)
    assert judged("http_5xx_rate <= 0.01", counts(1, 1)) == "inconclusive"
    assert judged("http_5xx_rate <= 0.0001", counts(1, 1)) == "inconclusive"
    assert judged("latency_p99_ms <= 200", slow) == "inconclusive"
    assert judged("latency_p99_ms <= champion * 1.2", slow, champion, weight=5) == "inconclusive"
    assert judged("http_5xx_rate <= 0.01", counts(15, 2)) == "failed"
    assert judged("http_5xx_rate <= 0.01", counts(16, 2)) == "inconclusive"


@pytest.mark.parametrize(
    "rule", ["http_5xx_rate <= 0.01", "http_5xx_rate <= champion + 0.01", "http_5xx_rate <= champion * 2 + 0.01"]
)
def test_many_good_requests_before_do_not_hide_that_a_version_has_begun_to_fail(rule: str) -> None:
    before, champion = counts(43_200), counts(100_000)

    def after(answered: int, failed: int) -> AnalysisOutcome:
        lately = counts(answered, failed)
        recent = Pair(canary=lately, champion=counts(2_000))
        return outcome(rule, before.plus(lately), champion, is_sticky=True, recent=recent)

    assert after(200, 0).verdict == "passed"
    failed = after(50, 20)
    assert failed.verdict == "failed"
    assert "in the last minutes, 20 of 50" in failed.reason
    doubtful = after(100, 8)
    assert doubtful.verdict == "inconclusive", "neither certain enough to stop it, nor sound enough to go on"
    assert "but in the last minutes, 8 of 100" in doubtful.reason


def test_the_latency_of_the_recent_requests_counts_too() -> None:
    before, slow = counts(50_000, ms100=50_000, ms200=50_000), counts(60, ms100=30, ms200=30)
    recent = Pair(canary=slow, champion=counts(60))
    assert judged("latency_p99_ms <= 200", before.plus(slow), counts(50_000), recent=recent) == "failed"


def test_requests_that_the_canary_refuses_are_a_share_too() -> None:
    assert judged("http_4xx_rate <= 0.01", counts(0, 0, refused=50), counts()) == "failed"
    assert judged("http_4xx_rate <= 0.05", counts(1_000, 0, refused=5)) == "passed"


def test_requests_that_do_not_fit_are_a_share_of_all_that_were_judged() -> None:
    def asked(answered: float, unfit: float | None, refused: float = 0) -> Counts:
        return Counts(answered=answered, refused=refused, unfit=unfit)

    assert judged("unfit_rate <= 0.01", asked(458, 0)) == "inconclusive"
    assert judged("unfit_rate <= 0.01", asked(459, 0)) == "passed"
    assert judged("unfit_rate <= 0.01", asked(409, 0, refused=50)) == "passed", "others were refused for other reasons"
    assert judged("unfit_rate <= 0.01", asked(50, 50, refused=50)) == "failed"
    relative = "unfit_rate <= champion + 0.02"
    assert judged(relative, asked(3_000, 300, 300), asked(3_000, 300, 300)) == "passed"
    assert judged(relative, asked(3_000, 300, 300), asked(3_000, 3, 3)) == "failed"


@pytest.mark.parametrize("rule", ["unfit_rate <= 0.01", "unfit_rate <= champion + 0.01"])
def test_a_replica_that_does_not_count_what_does_not_fit_is_never_a_pass(rule: str) -> None:
    known, unknown = Counts(answered=5_000), Counts(answered=5_000, unfit=None)
    for canary, champion in ((unknown, known), (unknown, unknown)):
        found = outcome(rule, canary, champion)
        assert (found.verdict, "a replica does not count it" in found.reason) == ("inconclusive", True)
    assert judged("unfit_rate <= champion + 0.01", known, unknown) == "inconclusive"


def test_a_limit_relative_to_the_champion_follows_it() -> None:
    rule = "http_5xx_rate <= champion + 0.02"
    assert judged(rule, counts(3_000, 300), counts(3_000, 300)) == "passed"
    assert judged(rule, counts(3_000, 300), counts(3_000, 30)) == "failed"
    assert judged(rule, counts(60, 6), counts(60, 6)) == "inconclusive"
    assert judged(rule, counts(3_000), counts(), weight=100) == "inconclusive"


@pytest.mark.parametrize(
    ("limit", "within_50", "within_100", "verdict"),
    [
        (100, 900, 1_000, "passed"),
        (100, 900, 900, "failed"),
        (70, 1_000, 1_000, "passed"),
        (70, 900, 1_000, "inconclusive"),
        (70, 900, 900, "failed"),
        (20, 1_000, 1_000, "inconclusive"),
    ],
)
def test_a_latency_is_judged_at_the_edges_around_its_limit(
    limit: int, within_50: float, within_100: float, verdict: str
) -> None:
    canary = counts(1_000, ms50=within_50, ms100=within_100)
    assert judged(f"latency_p99_ms <= {limit}", canary) == verdict


def test_a_latency_relative_to_the_champion_starts_from_its_edge() -> None:
    rule = "latency_p99_ms <= champion * 1.2"
    fast, slow = counts(1_000, ms50=1_000, ms100=1_000), counts(1_000, ms50=500, ms100=500)
    assert judged(rule, fast, fast) == "passed"
    assert judged(rule, slow, fast) == "failed"
    assert judged(rule, fast, counts(99, ms50=99, ms100=99), weight=91) == "inconclusive"


def test_a_share_of_requests_that_is_not_the_weight_is_an_error() -> None:
    found = outcome("http_5xx_rate <= 0.01", counts(1_000), counts(1_000), weight=5)
    assert found.verdict == "error"
    assert "1000 of 2000 requests, which cannot be a weight of 5 %" in found.reason


def test_few_callers_who_keep_their_side_are_no_error() -> None:
    assert judged("http_5xx_rate <= 0.01", counts(1_000), counts(1_000), weight=5, is_sticky=True) == "passed"


def test_a_request_in_flight_when_all_change_sides_is_no_error() -> None:
    assert judged("http_5xx_rate <= 0.01", counts(1_000), counts(2), weight=100) == "passed"


def test_a_rule_that_warns_decides_nothing() -> None:
    found = outcome("warn: http_5xx_rate <= 0.01", counts(1_000, 500))
    assert (found.verdict, found.rules[0].verdict) == ("passed", "failed")


def test_a_certain_failure_counts_more_than_a_wrong_share() -> None:
    assert judged("http_5xx_rate <= 0.01", counts(1_000, 900), counts(1_000), weight=5) == "failed"


def test_nothing_counted_is_inconclusive() -> None:
    assert analyse([], None, 5).verdict == "inconclusive"
