"""The decision to retrain: reasons, objections, what is not known, and the words."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core.retrain.decision import (
    DriftJudgement,
    RetrainFacts,
    WindowFact,
    decide_retrain,
    judge_windows,
    words_of,
)
from airflow_mcp.core.retrain.policy import RetrainPolicy

MICRO = timedelta(microseconds=1)
QUIET = RetrainFacts(
    data_version="v7",
    drift=DriftJudgement("quiet", "0 of the last 1 windows drifted"),
    has_champion=True,
    champion_age=timedelta(days=1),
    since_training=timedelta(days=1),
)
DRIFT = "the data drifted (version v7)"
ALL = RetrainPolicy(max_model_age=timedelta(days=30), retrain_every=timedelta(days=7), cooldown=timedelta(hours=6))


def facts(**changes: Any) -> RetrainFacts:
    return replace(QUIET, **changes)


def test_without_a_reason_nothing_is_needed() -> None:
    decision = decide_retrain(QUIET, ALL)
    assert (decision.verdict, decision.reasons, decision.objections) == ("not_needed", (), ())
    assert decision.explanation == "not needed: nothing asks for it"


def test_drift_is_a_reason_if_the_policy_says_so() -> None:
    decision = decide_retrain(facts(pending_drift=DRIFT), ALL)
    assert decision.retrain
    assert decision.explanation == "retrain: the data drifted (version v7)"
    assert decide_retrain(facts(pending_drift=DRIFT), replace(ALL, on_drift=False)).verdict == "not_needed"


def test_no_verdict_on_the_data_is_not_no_drift() -> None:
    unknown = facts(drift=DriftJudgement("unknown", "no window has been judged"))
    decision = decide_retrain(unknown, ALL)
    assert decision.explanation == "cannot say, because no window has been judged"
    assert decision.verdict == "inconclusive"
    assert decide_retrain(unknown, replace(ALL, on_drift=False)).verdict == "not_needed"


def test_another_reason_outweighs_a_drift_that_is_not_known() -> None:
    unknown = facts(drift=DriftJudgement("unknown", "no window has been judged"), has_champion=False)
    assert decide_retrain(unknown, ALL).explanation == "retrain: there is no champion"


@pytest.mark.parametrize(("age", "retrain"), [(timedelta(days=30), False), (timedelta(days=30) + MICRO, True)])
def test_a_champion_is_too_old_only_beyond_the_limit(age: timedelta, retrain: bool) -> None:
    decision = decide_retrain(facts(champion_age=age), ALL)
    assert decision.retrain is retrain
    assert decision.reasons == (("the champion is 30 days old (limit 30 days)",) if retrain else ())
    assert not decide_retrain(facts(champion_age=age), RetrainPolicy()).retrain


@pytest.mark.parametrize(("since", "retrain"), [(timedelta(days=7), False), (timedelta(days=7) + MICRO, True)])
def test_the_schedule_is_due_only_beyond_its_period(since: timedelta, retrain: bool) -> None:
    decision = decide_retrain(facts(since_training=since), ALL)
    assert decision.retrain is retrain
    expected = ("the latest training was 7 days ago (schedule: every 7 days)",) if retrain else ()
    assert decision.reasons == expected


def test_a_model_that_was_never_trained_is_due() -> None:
    decision = decide_retrain(facts(has_champion=False, champion_age=None, since_training=None), ALL)
    assert decision.reasons == ("there is no champion", "the latest training was never (schedule: every 7 days)")
    assert decision.retrain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"has_champion": None}, "whether there is a champion is not known"),
        ({"champion_age": None}, "the champion's age is not known"),
    ],
)
def test_an_unknown_champion_is_neither_a_reason_nor_none(changes: dict[str, Any], words: str) -> None:
    decision = decide_retrain(facts(**changes), ALL)
    assert (decision.verdict, decision.unknowns) == ("inconclusive", (words,))


@pytest.mark.parametrize(
    ("since", "retrain"),
    [(timedelta(0), False), (timedelta(hours=6) - MICRO, False), (timedelta(hours=6), True)],
)
def test_the_cooldown_ends_exactly_at_its_end(since: timedelta, retrain: bool) -> None:
    decision = decide_retrain(facts(pending_drift=DRIFT, since_training=since), ALL)
    assert decision.retrain is retrain
    assert bool(decision.objections) is not retrain


def test_a_cooldown_of_zero_never_objects() -> None:
    policy = replace(ALL, cooldown=timedelta(0))
    assert decide_retrain(facts(pending_drift=DRIFT, since_training=timedelta(0)), policy).retrain


OBJECTIONS: list[tuple[dict[str, Any], str]] = [
    ({"paused": "ann paused it"}, "ann paused it"),
    ({"in_progress": "training x is running"}, "training x is running"),
    ({"rejected_in_a_row": 3}, "3 challengers in a row were rejected (limit 3); a person has to resume"),
    ({"since_training": timedelta(minutes=90)}, "a training started 90 minutes ago (cooldown 6 hours)"),
    ({"started_last_day": 2}, "2 retrains were triggered within 24 hours (budget 2)"),
    ({"started_last_week": 5}, "5 retrains were triggered within 7 days (budget 5)"),
    ({"data_concluded": "rejected"}, "data version v7 has been trained on already (rejected)"),
    ({"new_rows": 99}, "there are 99 new rows since the last training (needed: 100)"),
    ({"new_labels": 9}, "there are 9 new labels since the last training (needed: 10)"),
]
STRICT = replace(ALL, daily_budget=2, weekly_budget=5, max_rejections=3, min_new_rows=100, min_new_labels=10)
FREE = facts(
    pending_drift=DRIFT,
    rejected_in_a_row=2,
    since_training=timedelta(hours=6),
    started_last_day=1,
    started_last_week=4,
    new_rows=100,
    new_labels=10,
)


def test_at_every_limit_it_is_still_allowed() -> None:
    assert decide_retrain(FREE, STRICT).explanation == f"retrain: {DRIFT}"


@pytest.mark.parametrize(("changes", "words"), OBJECTIONS, ids=[next(iter(each)) for each, _ in OBJECTIONS])
def test_one_step_beyond_each_limit_it_is_not(changes: dict[str, Any], words: str) -> None:
    decision = decide_retrain(replace(FREE, **changes), STRICT)
    assert decision.explanation == f"not now, because {words} (wanted: {DRIFT})"
    assert decision.verdict == "not_now"


def test_objections_are_all_told_and_one_is_enough_in_every_combination() -> None:
    for chosen in itertools.product((False, True), repeat=len(OBJECTIONS)):
        given = {
            name: value for (each, _), on in zip(OBJECTIONS, chosen, strict=True) if on for name, value in each.items()
        }
        decision = decide_retrain(replace(FREE, **given), STRICT)
        assert decision.objections == tuple(words for (_, words), on in zip(OBJECTIONS, chosen, strict=True) if on)
        assert decision.retrain is not any(chosen)


@pytest.mark.parametrize(
    "changes", [{name: None} for name in ("daily_budget", "weekly_budget", "max_rejections")], ids=str
)
def test_a_limit_that_is_switched_off_does_not_object(changes: dict[str, None]) -> None:
    many = replace(FREE, started_last_day=1, started_last_week=1, rejected_in_a_row=0)
    over = {
        "daily_budget": "started_last_day",
        "weekly_budget": "started_last_week",
        "max_rejections": "rejected_in_a_row",
    }
    (name,) = changes
    assert decide_retrain(replace(many, **{over[name]: 1000}), replace(STRICT, **changes)).retrain


@pytest.mark.parametrize("name", ["new_rows", "new_labels"])
def test_new_data_that_were_not_counted_are_not_enough(name: str) -> None:
    decision = decide_retrain(replace(FREE, **{name: None}), STRICT)
    assert decision.verdict == "inconclusive"
    assert "is not known (needed: " in decision.explanation
    assert f"(wanted: {DRIFT})" in decision.explanation
    assert decide_retrain(replace(FREE, new_rows=None, new_labels=None), ALL).retrain


def test_an_uncounted_objection_matters_only_when_something_asks() -> None:
    assert decide_retrain(facts(new_rows=None), STRICT).verdict == "not_needed"


class TestWindows:
    TWO_OF_THREE = RetrainPolicy(violations=2, window_count=3)

    @pytest.mark.parametrize(
        ("verdicts", "answer"),
        [
            ("", "unknown"),
            ("d", "quiet"),
            ("n", "quiet"),
            ("nn", "quiet"),
            ("dd", "violated"),
            ("dnd", "violated"),
            ("ddn", "quiet"),  # not the newest
            ("ddnn", "quiet"),
            ("dnnd", "quiet"),  # the first one is too long ago
            ("ddnd", "violated"),
            ("di", "unknown"),  # the newest may be the second
            ("id", "unknown"),
            ("ni", "quiet"),  # not enough, whatever it is
            ("dni", "unknown"),
            ("ddi", "unknown"),
            ("ndi", "unknown"),
            ("iii", "unknown"),
            ("iin", "quiet"),
        ],
    )
    def test_two_of_the_last_three_must_have_drifted_and_the_newest_among_them(
        self, verdicts: str, answer: str
    ) -> None:
        words = {"d": "drifted", "n": "not_drifted", "i": "inconclusive"}
        windows = [WindowFact(words[each]) for each in verdicts]  # type: ignore[arg-type]
        judgement = judge_windows(windows, self.TWO_OF_THREE)
        assert judgement.answer == answer
        if answer == "violated":
            assert len(judgement.violating) >= 2
            assert judgement.violating[-1] == len(windows) - 1

    def test_windows_that_are_not_mature_do_not_count(self) -> None:
        early, late = WindowFact("drifted", is_mature=False), WindowFact("drifted")
        assert judge_windows([early, early], self.TWO_OF_THREE).answer == "unknown"
        assert "2 were judged before their labels were in" in judge_windows([early, early], self.TWO_OF_THREE).words
        assert judge_windows([late, late, early], self.TWO_OF_THREE).violating == (0, 1)
        assert judge_windows([late, early, early], self.TWO_OF_THREE).answer == "quiet"

    def test_drift_that_a_training_has_answered_is_not_counted_again(self) -> None:
        done, new = WindowFact("drifted", is_answered=True), WindowFact("drifted")
        assert judge_windows([done, done], self.TWO_OF_THREE).answer == "quiet"
        assert judge_windows([done, done, new], self.TWO_OF_THREE).answer == "quiet"
        assert judge_windows([done, new, new], self.TWO_OF_THREE).violating == (1, 2)


@pytest.mark.parametrize(
    ("elapsed", "words"),
    [
        (timedelta(seconds=-5), "0 seconds"),
        (timedelta(seconds=119), "119 seconds"),
        (timedelta(minutes=2), "2 minutes"),
        (timedelta(minutes=119, seconds=59), "119 minutes"),
        (timedelta(hours=2), "2 hours"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_times_are_told_in_a_unit_that_people_read(elapsed: timedelta, words: str) -> None:
    assert words_of(elapsed) == words
