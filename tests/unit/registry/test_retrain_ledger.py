"""The ledger in a store without compare-and-set: updates that cross, and a simulated month of drift."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mcp.core.retrain import ledger as ledgers
from airflow_mcp.core.retrain import state as states
from airflow_mcp.core.retrain.documents import CONCLUSIVE, CONTROL_KEY, LEDGER_KEY, OUTCOMES_KEY, Observation, OpenRun
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.exceptions import EvidenceError, LedgerConflictError
from airflow_mcp.registry import retrain_ledger
from airflow_mcp.registry.retrain_ledger import RetrainLedger
from tests.support.retrain_world import RetrainWorld, RuleBrokenError

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


class Store(dict[str, Any]):
    """A store in which somebody else may write at a chosen moment."""

    def __init__(self) -> None:
        super().__init__()
        self.after_set: Callable[[], None] = lambda: None

    def set(self, key: str, value: Any) -> None:
        self[key] = value
        self.after_set()


class NoRuns:
    """A training Dag without runs."""

    def has_run(self, run_id: str) -> bool:
        return False

    def active_runs(self) -> int:
        return 0

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        return OpenRun(run_id=run_id, state="missing")


def observation(data: str = "v1") -> Observation:
    return Observation(
        at=NOW, by="watch.retrain run", dag_id="train", data_version=data, data_hash=data, has_champion=False
    )


def report(run_id: str = "run-1", outcome: str = "rejected", **given: Any) -> dict[str, Any]:
    return {"dag_id": "train", "run_id": run_id, "outcome": outcome, "at": NOW, **given}


class TestUpdatesThatCross:
    def test_an_update_between_reading_and_writing_is_found_and_nothing_is_written(self) -> None:
        store = Store()
        ledger, other = RetrainLedger(store, "churn"), RetrainLedger(store, "churn")

        class Slow(NoRuns):
            def active_runs(self) -> int:
                if LEDGER_KEY not in store:
                    other.decide(observation("v2"), RetrainPolicy(), NoRuns())
                return 0

        with pytest.raises(LedgerConflictError, match="was changed by another task meanwhile"):
            ledger.decide(observation(), RetrainPolicy(), Slow())
        assert [entry.observation.data_version for entry in ledger.ledger().entries] == ["v2"]
        assert ledger.decide(observation(), RetrainPolicy(), NoRuns()).verdict == "retrain"

    def test_an_update_right_after_writing_is_found_before_anything_is_triggered(self) -> None:
        store = Store()
        ledger = RetrainLedger(store, "churn")
        store.after_set = lambda: store.update({LEDGER_KEY: {"written": "by somebody else"}})
        with pytest.raises(LedgerConflictError, match="was overwritten by another task right after"):
            ledger.decide(observation(), RetrainPolicy(), NoRuns())

    def test_people_and_tasks_write_to_documents_of_their_own(self) -> None:
        store = Store()
        ledger = RetrainLedger(store, "churn")
        ledger.decide(observation(), RetrainPolicy(), NoRuns())
        before = store[LEDGER_KEY]
        ledger.report(report())
        ledger.control("pause", "ann", NOW, "")
        assert store[LEDGER_KEY] is before
        assert set(store) == {LEDGER_KEY, OUTCOMES_KEY, CONTROL_KEY}


class TestDocuments:
    def test_a_report_that_is_repeated_changes_nothing(self) -> None:
        ledger = RetrainLedger(Store(), "churn")
        for _ in range(3):
            ledger.report(report())
        assert ledger.outcomes().seq == 1

    def test_a_run_that_was_cleared_and_ended_in_another_way_is_reported_again(self) -> None:
        ledger = RetrainLedger(Store(), "churn")
        ledger.report(report(outcome="failed"))
        ledger.report(report(outcome="promoted"))
        assert [(each.seq, each.outcome) for each in ledger.outcomes().entries] == [(2, "promoted")]

    def test_the_newest_reports_are_kept_and_taken_in_a_few_at_a_time(self) -> None:
        ledger = RetrainLedger(Store(), "churn")
        for number in range(50):
            ledger.report(report(f"run-{number}"))
        assert [each.seq for each in ledger.outcomes().entries] == list(range(11, 51))
        for _ in range(8):
            ledger.decide(observation(), RetrainPolicy(max_rejections=None), NoRuns())
        assert ledgers.state_of(ledger.ledger()).reports_seen == 50

    @pytest.mark.parametrize(
        ("stored", "message"),
        [
            ({"schema": "airflow_mcp/retrain/1", "model_name": "fraud"}, "is about 'fraud', not about 'churn'"),
            ({"schema": "airflow_mcp/retrain/2", "model_name": "churn"}, "schema"),
            ({"schema": "airflow_mcp/retrain/1", "model_name": "churn", "extra": 1}, "extra"),
            ("a text", "is not a valid Ledger"),
        ],
        ids=["model", "version", "unknown-key", "text"],
    )
    def test_something_else_in_the_store_is_refused_and_kept(self, stored: Any, message: str) -> None:
        store = Store()
        store[LEDGER_KEY] = stored
        with pytest.raises(EvidenceError, match=message):
            RetrainLedger(store, "churn").decide(observation(), RetrainPolicy(), NoRuns())
        assert store == {LEDGER_KEY: stored}


def test_one_decision_takes_its_observation_in_once_and_replays_the_ledger_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable[..., Any]:
        original = getattr(retrain_ledger, name)

        def counted(*given: Any) -> Any:
            calls[name] += 1
            return original(*given)

        return counted

    for name in ("observe", "state_of"):
        monkeypatch.setattr(retrain_ledger, name, count(name))
    assert RetrainLedger(Store(), "churn").decide(observation(), RetrainPolicy(), NoRuns()).verdict == "retrain"
    assert calls == {"observe": 1, "state_of": 1}


class TestAMonth:
    """Never over budget, never two at once, no needed retrain lost: ``tests.support.retrain_world`` keeps the books."""

    @pytest.fixture(autouse=True)
    def fold_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the ledger fold all but its last entry, as a long life does; it is also quicker."""
        monkeypatch.setattr(ledgers, "MAX_ENTRIES", 1)

    def test_of_ten_thousand_events_with_jumping_clocks_and_killed_tasks(self) -> None:
        world = RetrainWorld(seed=1, events=10_000, as_json=False)
        world.play()
        assert world.killed > 1000
        assert world.needed > 1000
        assert len(world.triggers) > 20
        assert set(world.answers) == {"retrain", "not_now", "not_needed", "inconclusive"}

    @pytest.mark.parametrize("seed", range(2, 8))
    def test_of_any_seed_in_a_store_of_json(self, seed: int) -> None:
        world = RetrainWorld(seed, events=400, jumps=(0.0, 3.0, 40.0)[seed % 3])
        world.play()
        assert len(world.triggers) >= 3

    @pytest.mark.parametrize(
        ("broken", "rule"),
        [
            ("budget", "over budget"),
            ("busy", "two at once"),
            ("failure", "a needed retrain was lost"),
            ("sticky", "a needed retrain was lost"),
            ("clock", "a needed retrain was lost|waits for what is done"),
            ("same-data", "trains on data that have been trained on"),
            ("pause", "was triggered while it is paused"),
        ],
    )
    def test_shows_every_rule_that_is_broken_on_purpose(
        self, monkeypatch: pytest.MonkeyPatch, broken: str, rule: str
    ) -> None:
        BREAK[broken](monkeypatch)
        with pytest.raises(RuleBrokenError, match=rule):
            _play_some()


def _play_some() -> None:
    for seed in range(1, 6):
        RetrainWorld(seed, events=1_000, jumps=40.0, as_json=False).play()


def _without_budget(patch: pytest.MonkeyPatch) -> None:
    facts = ledgers.facts_of
    patch.setattr(ledgers, "facts_of", lambda *given: _replaced(facts(*given), started_last_day=0, started_last_week=0))


def _without_looking(patch: pytest.MonkeyPatch) -> None:
    facts = ledgers.facts_of
    patch.setattr(ledgers, "facts_of", lambda *given: _replaced(facts(*given), in_progress=""))


def _without_sameness(patch: pytest.MonkeyPatch) -> None:
    facts = ledgers.facts_of
    patch.setattr(ledgers, "facts_of", lambda *given: _replaced(facts(*given), data_concluded=""))


def _without_pause(patch: pytest.MonkeyPatch) -> None:
    facts = ledgers.facts_of
    patch.setattr(ledgers, "facts_of", lambda *given: _replaced(facts(*given), paused=""))


def _with_failures_as_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(states, "CONCLUSIVE", CONCLUSIVE | {"failed", "vanished", "unchanged"})


def _with_needs_that_pass(patch: pytest.MonkeyPatch) -> None:
    ask = states._ask
    patch.setattr(states, "_ask", lambda state, *given: ask(state.model_copy(update={"need": None}), *given))


def _with_the_clock_on_the_wall(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(states, "_tick", lambda state, wall: state.model_copy(update={"clock": wall}))


def _replaced(facts: Any, **changes: Any) -> Any:
    return type(facts)(**{**vars(facts), **changes})


BREAK: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "budget": _without_budget,
    "busy": _without_looking,
    "failure": _with_failures_as_answers,
    "sticky": _with_needs_that_pass,
    "clock": _with_the_clock_on_the_wall,
    "same-data": _without_sameness,
    "pause": _without_pause,
}
