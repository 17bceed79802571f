"""A decision on retraining made again from the ledger."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow_mcp.core.replay.result import Replayed
from airflow_mcp.core.replay.retrain import replay_retrain
from airflow_mcp.core.retrain.documents import Ledger, Observation, WindowVerdict
from airflow_mcp.core.retrain.ledger import decide, facts_hash, record, state_of
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.core.retrain.state import observe

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def decided(book: Ledger, verdict: str, **policy: Any) -> Ledger:
    """Decide once more, a day later than before."""
    at, number = START + dt.timedelta(days=book.seq), book.seq + 1
    version, rules = f"v{number}", RetrainPolicy(**policy)
    window = WindowVerdict.model_validate({"name": version, "verdict": verdict})
    given = {"at": at, "by": "watch.retrain", "dag_id": "train", "data_version": version, "data_hash": version}
    seen = Observation(**given, window=window, has_champion=True, champion_since=START)
    return record(book, seen, rules, decide(observe(state_of(book), number, seen, rules), seen, rules, "churn"))


def ledger() -> Ledger:
    """Return a ledger whose second decision trains, and whose third waits for that training."""
    book = Ledger(model_name="churn")
    for verdict in ("not_drifted", "drifted", "drifted"):
        book = decided(book, verdict)
    return book


def event(book: Ledger, number: int) -> dict[str, Any]:
    """Return the event of a decision as the deciding task records it."""
    answer = next(entry.answer for entry in book.entries if entry.seq == number)
    new = {"entry": "decision", "number": number, **answer.to_json()}
    return {"new": new, "inputs": {"facts": facts_hash(book, number)}}


def fields(found: Replayed) -> list[str]:
    return [one.field for one in found.differences]


def test_every_decision_of_an_untouched_ledger_is_identical() -> None:
    book = ledger()
    assert [entry.answer.verdict for entry in book.entries] == ["not_needed", "retrain", "not_now"]
    assert [replay_retrain(event(book, number), book).verdict for number in (1, 2, 3)] == ["identical"] * 3


def test_what_came_later_and_what_was_folded_before_change_nothing() -> None:
    book = ledger()
    said = event(book, 3)
    for _ in range(59):
        book = decided(book, "not_drifted")
    assert book.base_seq == 2
    assert replay_retrain(said, book).verdict == "identical"


def test_an_observation_that_was_edited_is_named_with_what_follows_from_it() -> None:
    book = ledger()
    quiet = WindowVerdict(name="v2", verdict="not_drifted")
    first, second, third = book.entries
    seen = second.observation.model_copy(update={"window": quiet})
    edited = book.model_copy(update={"entries": (first, second.model_copy(update={"observation": seen}), third)})
    found = replay_retrain(event(book, 2), edited)
    assert (found.verdict, fields(found)[:2]) == ("different", ["explanation", "facts"])
    assert "triggered_run_id" in fields(found)
    assert replay_retrain(event(book, 1), edited).verdict == "identical"


def test_a_policy_that_was_edited_shows_even_where_the_answer_stays() -> None:
    book = ledger()
    (key,) = book.policies
    edited = book.model_copy(update={"policies": {key: {**book.policies[key], "daily_budget": 7}}})
    assert fields(replay_retrain(event(book, 2), edited)) == ["facts"]


def test_an_answer_in_the_log_that_the_rules_do_not_give_is_different() -> None:
    book = ledger()
    said = event(book, 1)
    assert fields(replay_retrain({**said, "new": {**said["new"], "verdict": "retrain"}}, book)) == ["verdict"]


def test_a_decision_that_was_folded_away_is_impossible() -> None:
    book = ledger()
    said = event(book, 1)
    for _ in range(60):
        book = decided(book, "not_drifted")
    found = replay_retrain(said, book)
    assert (found.verdict, found.missing) == ("impossible", ("decision 1 in the ledger, which begins after 3",))


def test_a_pause_and_the_end_of_a_training_are_not_decisions() -> None:
    for entry in ("pause", "outcome"):
        found = replay_retrain({"new": {"entry": entry}, "inputs": {}}, ledger())
        assert (found.verdict, found.missing) == (
            "impossible",
            (f"rules for the entry {entry!r}, which is not a decision",),
        )
