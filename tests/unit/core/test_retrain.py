"""The retrain decision: reasons, objections, and the names of the runs it starts."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.retrain import RetrainPolicy, RetrainState, decide_retrain, retrain_run_id
from airflow_mcp.exceptions import InvalidArgumentError

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
QUIET = RetrainState(
    now=NOW,
    drift="not_drifted",
    champion_since=NOW - timedelta(days=1),
    last_training_started=NOW - timedelta(days=1),
    data_version="v7",
    data_hash="sha256:new",
    last_trained_data_hash="sha256:old",
)
MICRO = timedelta(microseconds=1)
ALL = RetrainPolicy(max_model_age=timedelta(days=30), retrain_every=timedelta(days=7), cooldown=timedelta(hours=6))


def state(**changes: Any) -> RetrainState:
    return replace(QUIET, **changes)


def test_without_a_reason_nothing_happens() -> None:
    decision = decide_retrain(QUIET, ALL)
    assert (decision.retrain, decision.reasons, decision.objections) == (False, (), ())
    assert decision.explanation == "not now: no reason to retrain"


@pytest.mark.parametrize("drift", ["not_drifted", "inconclusive", None])
def test_only_drift_itself_is_a_reason(drift: str | None) -> None:
    assert not decide_retrain(state(drift=drift), ALL).retrain


def test_drift_is_a_reason_if_the_policy_says_so() -> None:
    decision = decide_retrain(state(drift="drifted"), ALL)
    assert decision.retrain
    assert decision.explanation == "retrain: the data drifted (version v7)"
    assert not decide_retrain(state(drift="drifted"), replace(ALL, on_drift=False)).retrain


@pytest.mark.parametrize(("age", "retrain"), [(timedelta(days=30), False), (timedelta(days=30) + MICRO, True)])
def test_a_champion_is_too_old_only_beyond_the_limit(age: timedelta, retrain: bool) -> None:
    decision = decide_retrain(state(champion_since=NOW - age), ALL)
    assert decision.retrain is retrain
    assert decision.reasons == (("the champion is 30 days old (limit 30 days)",) if retrain else ())
    assert not decide_retrain(state(champion_since=NOW - age), RetrainPolicy()).retrain


@pytest.mark.parametrize(("since", "retrain"), [(timedelta(days=7), False), (timedelta(days=7) + MICRO, True)])
def test_the_schedule_is_due_only_beyond_its_period(since: timedelta, retrain: bool) -> None:
    decision = decide_retrain(state(last_training_started=NOW - since), ALL)
    assert decision.retrain is retrain
    expected = ("the latest training was 7 days ago (schedule: every 7 days)",) if retrain else ()
    assert decision.reasons == expected


def test_a_model_that_was_never_trained_is_due() -> None:
    decision = decide_retrain(state(champion_since=None, last_training_started=None, last_trained_data_hash=None), ALL)
    assert decision.reasons == ("there is no champion", "the latest training was never (schedule: every 7 days)")
    assert decision.retrain


def test_no_champion_is_a_reason_under_every_policy() -> None:
    assert decide_retrain(state(champion_since=None), RetrainPolicy()).reasons == ("there is no champion",)


@pytest.mark.parametrize(
    ("since", "retrain"),
    [
        (timedelta(0), False),
        (timedelta(hours=6) - MICRO, False),
        (timedelta(hours=6), True),
        (timedelta(hours=6) + MICRO, True),
        (timedelta(hours=-1), False),
    ],
)
def test_the_cooldown_ends_exactly_at_its_end(since: timedelta, retrain: bool) -> None:
    decision = decide_retrain(state(drift="drifted", last_training_started=NOW - since), ALL)
    assert decision.retrain is retrain
    assert bool(decision.objections) is not retrain


def test_a_cooldown_of_zero_never_objects() -> None:
    policy = replace(ALL, cooldown=timedelta(0))
    assert decide_retrain(state(drift="drifted", last_training_started=NOW), policy).retrain


def test_data_that_were_trained_on_are_not_trained_on_again() -> None:
    decision = decide_retrain(state(drift="drifted", last_trained_data_hash="sha256:new"), ALL)
    assert not decision.retrain
    assert decision.explanation == (
        "not now: data version v7 has been trained on already (wanted: the data drifted (version v7))"
    )


def test_one_objection_beats_all_reasons_in_every_combination() -> None:
    reasons = {"drift": "drifted", "champion_since": None}
    objections = {"last_training_started": NOW, "last_trained_data_hash": "sha256:new"}
    quiet = {
        "drift": "not_drifted",
        "champion_since": NOW,
        "last_training_started": None,
        "last_trained_data_hash": None,
    }
    for chosen in itertools.product((False, True), repeat=4):
        loud = {**reasons, **objections}
        given = {name: loud[name] if on else quiet[name] for name, on in zip(loud, chosen, strict=True)}
        decision = decide_retrain(state(**given), RetrainPolicy())
        assert len(decision.reasons) == sum(chosen[:2])
        assert len(decision.objections) == sum(chosen[2:])
        assert decision.retrain is (any(chosen[:2]) and not any(chosen[2:]))


def test_an_objection_without_a_wish_is_told_alone() -> None:
    decision = decide_retrain(state(last_training_started=NOW - timedelta(minutes=90)), ALL)
    assert decision.explanation == "not now: a training started 90 minutes ago (cooldown 6 hours)"


@pytest.mark.parametrize(
    ("elapsed", "words"),
    [
        (timedelta(seconds=119), "119 seconds"),
        (timedelta(minutes=2), "2 minutes"),
        (timedelta(minutes=119, seconds=59), "119 minutes"),
        (timedelta(hours=2), "2 hours"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_times_are_told_in_a_unit_that_people_read(elapsed: timedelta, words: str) -> None:
    policy = RetrainPolicy(cooldown=timedelta(days=3))
    (objection,) = decide_retrain(state(last_training_started=NOW - elapsed), policy).objections
    assert objection == f"a training started {words} ago (cooldown 3 days)"


def test_a_policy_that_could_never_retrain_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no reason to retrain: set on_drift=True"):
        RetrainPolicy(on_drift=False)


@pytest.mark.parametrize("name", ["max_model_age", "retrain_every", "cooldown"])
def test_a_negative_time_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{name} is datetime.timedelta\(days=-1\); allowed"):
        RetrainPolicy(**{name: timedelta(days=-1)})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_model_age", "retrain_every"])
def test_a_limit_of_zero_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{name} is datetime.timedelta\(0\); allowed: a time above zero"):
        RetrainPolicy(**{name: timedelta(0)})  # type: ignore[arg-type]


def test_a_run_is_named_after_the_data_and_stays_the_same() -> None:
    name = retrain_run_id("churn", "2026-11-21", "sha256:ab")
    assert name == "retrain__churn__2026-11-21__3a0d8be5044e"
    assert name == retrain_run_id("churn", "2026-11-21", "sha256:ab")


def test_different_models_versions_and_data_have_different_runs() -> None:
    names = {
        retrain_run_id(model, version, data)
        for model in ("churn", "churn_", "fraud", "a b", "a-b")
        for version in ("v1", "v2", "v1 ", "v1/")
        for data in ("sha256:a", "sha256:b", "")
    }
    assert len(names) == 5 * 4 * 3


@pytest.mark.parametrize(
    ("model", "version"),
    [("churn", "v1"), ("it's a model", "2026/11/21"), ("modèle <b>", "v1+build"), ("m" * 500, "v" * 500), ("", "")],
)
def test_airflow_accepts_the_name_of_every_run(model: str, version: str) -> None:
    from airflow.configuration import conf

    name = retrain_run_id(model, version, "sha256:ab")
    assert re.match(conf.get("scheduler", "allowed_run_id_pattern"), name)
    assert len(name) <= 250
    assert name.startswith("retrain__")
