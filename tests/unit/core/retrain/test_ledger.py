"""The ledger: what is needed stays needed, clocks may jump, and every decision can be made again from its entry."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import pytest

from airflow_mcp.core.retrain import ledger as ledgers
from airflow_mcp.core.retrain.documents import (
    Control,
    Ledger,
    LedgerState,
    Observation,
    OpenRun,
    OutcomeReport,
    RetrainDecision,
    WindowVerdict,
    plain_document,
    read_document,
)
from airflow_mcp.core.retrain.ledger import decide, record, replay, retrain_run_id, size_of, state_of
from airflow_mcp.core.retrain.policy import MAX_BUDGET, MAX_WINDOWS, RetrainPolicy
from airflow_mcp.core.retrain.state import observe

NOW = dt.datetime(2026, 11, 21, 1, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Book:
    """A ledger and the decisions that are written into it, one after the other.

    :param policy: options of the policy.
    """

    def __init__(self, **policy: Any) -> None:
        self.policy = RetrainPolicy(**policy)
        self.ledger = Ledger(model_name="churn")
        self.reports = self.controls = 0
        self.now = NOW

    def decide(
        self, drift: str | None = None, *, data: str = "v1", after: dt.timedelta = HOUR, **given: Any
    ) -> RetrainDecision:
        """Decide once more, some time later."""
        self.now += after
        window = {"name": f"w-{self.now.isoformat()}", "verdict": drift, **given.pop("window", {})} if drift else None
        observation = Observation(
            **{  # type: ignore[arg-type]
                "at": self.now,
                "by": "drift_watch.retrain run",
                "dag_id": "train",
                "data_version": data,
                "data_hash": f"sha256:{data}",
                "window": WindowVerdict.model_validate(window) if window else None,
                "has_champion": True,
                "champion_since": NOW - DAY,
                **given,
            }
        )
        state = observe(self.state, self.ledger.seq + 1, observation, self.policy)
        answer = decide(state, observation, self.policy, "churn")
        self.ledger = record(self.ledger, observation, self.policy, answer)
        return answer

    def report(self, answer: RetrainDecision | str, outcome: str, data: str = "v1") -> tuple[OutcomeReport, ...]:
        self.reports += 1
        run_id = answer if isinstance(answer, str) else answer.run_id
        given = {"dag_id": "train", "run_id": run_id, "outcome": outcome, "data_hash": f"sha256:{data}"}
        return (OutcomeReport.model_validate({**given, "seq": self.reports, "at": self.now}),)

    def control(self, action: str) -> tuple[Control, ...]:
        self.controls += 1
        return (Control.model_validate({"seq": self.controls, "action": action, "by": "ann", "at": self.now}),)

    @property
    def state(self) -> LedgerState:
        return state_of(self.ledger)


def running(answer: RetrainDecision, state: str = "running", **given: Any) -> OpenRun:
    return OpenRun.model_validate({"run_id": answer.run_id, "state": state, **given})


class TestOneTrainingAtATime:
    def test_drift_triggers_one_training_and_the_next_waits_for_its_end(self) -> None:
        book = Book(cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        assert (first.verdict, first.action) == ("retrain", "trigger")
        again = book.decide("drifted", data="v2", open_run=running(first))
        assert again.action == "none"
        assert f"training {first.run_id} is running, asked for 60 minutes ago" in again.explanation
        after = book.decide(data="v2", reports=book.report(first, "promoted"))
        assert after.action == "trigger"
        assert after.run_id != first.run_id

    def test_another_run_of_the_training_dag_is_waited_for(self) -> None:
        answer = Book().decide("drifted", other_runs=2)
        assert "Dag train has 2 runs queued or running" in answer.explanation

    def test_a_task_that_was_killed_before_it_triggered_decides_again_with_the_same_name(self) -> None:
        book = Book()
        first = book.decide("drifted")
        again = book.decide("drifted", open_run=running(first, "missing"))
        assert (again.action, again.run_id) == ("trigger", first.run_id)
        assert len(book.state.trainings) == 1

    def test_a_training_that_was_seen_and_is_gone_is_settled_and_needed_still(self) -> None:
        book = Book(cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        book.decide(open_run=running(first))
        again = book.decide(open_run=running(first, "missing", detail="its Dag run is gone"))
        assert book.state.trainings[0].outcome == "vanished"
        assert (again.action, again.run_id) == ("trigger", f"{first.run_id}__2")

    def test_a_run_that_the_ledger_does_not_know_is_taken_in_and_not_triggered(self) -> None:
        book = Book()
        answer = book.decide("drifted", next_run_exists=True)
        assert (answer.verdict, answer.action) == ("not_now", "adopt")
        assert "an update was lost, or somebody triggered it" in answer.explanation
        assert book.state.open_training is not None
        assert book.state.open_training.run_id == answer.run_id

    @pytest.mark.parametrize("state", ["success", "failed"])
    def test_a_run_that_ended_without_a_report_is_settled_by_what_mlflow_shows(self, state: str) -> None:
        book = Book()
        first = book.decide("drifted")
        book.decide(open_run=running(first, state, outcome="rejected"))
        assert book.state.trainings[0].outcome == "rejected"
        assert (book.state.rejected_in_a_row, book.state.need) == (1, None)
        book.decide(reports=book.report(first, "rejected"))  # its report arrives after all
        assert book.state.rejected_in_a_row == 1


class TestWhatIsNeeded:
    @pytest.mark.parametrize("outcome", ["failed", "vanished", "inconclusive", "unchanged"])
    def test_stays_needed_after_a_training_that_came_to_nothing(self, outcome: str) -> None:
        book = Book(cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        again = book.decide("not_drifted", data="v2", reports=book.report(first, outcome))
        assert again.action == "trigger"
        assert "the data drifted" in again.explanation

    @pytest.mark.parametrize("outcome", ["promoted", "registered", "rejected"])
    def test_is_done_when_a_challenger_was_judged(self, outcome: str) -> None:
        book = Book(cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        assert book.decide(data="v2", reports=book.report(first, outcome)).verdict == "not_needed"

    def test_is_not_lost_while_something_stands_against_it(self) -> None:
        book = Book(cooldown=10 * HOUR)
        first = book.decide("drifted")
        book.decide(reports=book.report(first, "promoted"))
        assert book.decide("drifted", data="v2").verdict == "not_now"
        for _ in range(6):
            assert book.decide("not_drifted", data="v3").verdict == "not_now"
        late = book.decide("not_drifted", data="v4", after=3 * HOUR)
        assert late.explanation == "retrain: the data drifted (version v2)"

    def test_that_came_up_while_a_training_ran_is_not_answered_by_it(self) -> None:
        book = Book(cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        book.decide("drifted", data="v2", open_run=running(first))
        assert book.decide(data="v2", reports=book.report(first, "promoted")).action == "trigger"

    def test_is_asked_for_once_however_often_it_comes(self) -> None:
        book = Book(cooldown=10 * DAY)
        first = book.decide("drifted")
        book.decide(reports=book.report(first, "promoted"))
        for _ in range(5):
            answer = book.decide("drifted", data="v2")
        assert answer.reasons == ("the data drifted (version v2, asked for 5 times since 2026-11-21T04:00+00:00)",)

    def test_the_same_window_with_the_same_verdict_asks_nothing_more(self) -> None:
        book = Book(cooldown=dt.timedelta(0))
        same = {"window": {"name": "monday"}}
        first = book.decide("drifted", **same)
        assert book.decide("drifted", reports=book.report(first, "promoted"), data="v2", **same).verdict == "not_needed"
        assert len(book.state.windows) == 1

    def test_a_training_that_nobody_asked_for_answers_what_is_about_the_same_data(self) -> None:
        for data, verdict in (("v0", "retrain"), ("v1", "not_needed")):
            book = Book()
            book.decide("drifted", other_runs=1)
            assert book.decide(reports=book.report("scheduled__1", "promoted", data)).verdict == verdict

    def test_data_that_were_trained_on_are_not_trained_on_again(self) -> None:
        book = Book(cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        book.decide(reports=book.report(first, "rejected"))
        answer = book.decide("drifted")
        assert f"data version v1 has been trained on already (rejected, {first.run_id})" in answer.explanation
        assert book.decide(data="v2").action == "trigger"

    def test_what_mlflow_knows_of_the_same_data_counts_too(self) -> None:
        answer = Book().decide("drifted", data_concluded="registered as churn/3")
        assert "data version v1 has been trained on already (registered as churn/3)" in answer.explanation


class TestWindows:
    def test_a_late_older_window_does_not_make_the_newest_one(self) -> None:
        book = Book()
        book.decide("not_drifted", window={"end": NOW})
        assert book.decide("drifted", window={"end": NOW - DAY}).verdict == "not_needed"
        assert book.decide("drifted", window={"end": NOW + HOUR}).verdict == "retrain"

    def test_a_verdict_of_before_the_labels_were_in_does_not_count_until_it_is_given_again(self) -> None:
        book = Book(label_delay=7 * DAY)
        window = {"window": {"name": "monday", "end": NOW}}
        assert book.decide("drifted", **window).verdict == "inconclusive"
        assert book.decide(after=8 * DAY).verdict == "inconclusive"  # mature by now, but judged too early
        assert book.decide("drifted", **window).verdict == "retrain"

    def test_a_late_label_changes_the_window_that_it_belongs_to(self) -> None:
        book = Book(violations=2, window_count=2)
        book.decide("not_drifted", window={"name": "monday", "end": NOW - DAY})
        assert book.decide("drifted", window={"name": "tuesday", "end": NOW}).verdict == "not_needed"
        assert book.decide("drifted", window={"name": "monday", "end": NOW - DAY}).verdict == "retrain"

    def test_an_early_verdict_never_replaces_a_mature_one(self) -> None:
        book = Book(label_delay=DAY)
        book.decide("not_drifted", window={"name": "monday", "end": NOW - 2 * DAY})
        book.decide("drifted", window={"name": "monday", "end": NOW + DAY})
        assert [window.verdict for window in book.state.windows] == ["not_drifted"]

    def test_an_inconclusive_check_is_not_no_drift(self) -> None:
        assert Book().decide("inconclusive").verdict == "inconclusive"


class TestPeople:
    def test_a_pause_holds_until_it_is_resumed(self) -> None:
        book = Book()
        answer = book.decide("drifted", controls=book.control("pause"))
        assert answer.explanation.startswith("not now, because ann paused it at 2026-11-21T01:00+00:00 (wanted: ")
        assert book.decide(after=30 * DAY).verdict == "not_now"
        assert book.decide(controls=book.control("resume")).verdict == "retrain"

    def test_what_people_do_counts_in_its_order_whatever_their_clocks_say(self) -> None:
        book = Book()
        pause = book.control("pause")
        book.now -= DAY
        answer = book.decide("drifted", after=DAY, controls=(*pause, *book.control("resume")))
        assert answer.verdict == "retrain"

    def test_after_too_many_rejections_only_a_person_starts_it_again(self) -> None:
        book = Book(max_rejections=2, cooldown=dt.timedelta(0))
        for data in ("v1", "v2"):
            answer = book.decide("drifted", data=data)
            book.decide(data=data, reports=book.report(answer, "rejected", data))
        stopped = book.decide("drifted", data="v3")
        assert "2 challengers in a row were rejected (limit 2); a person has to resume" in stopped.explanation
        lucky = book.decide(data="v3", reports=book.report("scheduled__1", "promoted", "v9"))
        assert lucky.verdict == "not_now"
        assert book.decide(data="v3", controls=book.control("resume")).verdict == "retrain"

    def test_a_promotion_in_between_starts_the_count_again(self) -> None:
        book = Book(max_rejections=2, cooldown=dt.timedelta(0))
        for data, outcome in (("v1", "rejected"), ("v2", "promoted"), ("v3", "rejected")):
            answer = book.decide("drifted", data=data)
            book.decide(data=data, reports=book.report(answer, outcome, data))
        assert book.state.rejected_in_a_row == 1
        assert book.decide("drifted", data="v4").verdict == "retrain"

    def test_failures_neither_count_as_rejections_nor_end_their_row(self) -> None:
        book = Book()
        outcomes = ("rejected", "failed", "vanished", "rejected")
        book.decide(reports=tuple(each for at, name in enumerate(outcomes) for each in book.report(f"s{at}", name)))
        assert book.state.rejected_in_a_row == 2


class TestClocks:
    def test_a_clock_that_was_ahead_does_not_block_for_as_long(self) -> None:
        book = Book(cooldown=6 * HOUR)
        first = book.decide("drifted", after=365 * DAY)
        book.now -= 365 * DAY
        waiting = book.decide("drifted", data="v2", reports=book.report(first, "promoted"))
        assert "a training started 0 seconds ago (cooldown 6 hours)" in waiting.explanation
        assert book.decide("drifted", data="v2", after=7 * HOUR).verdict == "retrain"

    def test_a_clock_that_is_set_back_makes_no_budget(self) -> None:
        book = Book(daily_budget=1, cooldown=dt.timedelta(0))
        first = book.decide("drifted")
        book.now -= 10 * DAY
        waiting = book.decide("drifted", data="v2", reports=book.report(first, "promoted"))
        assert "1 retrains were triggered within 24 hours (budget 1)" in waiting.explanation
        assert book.decide(data="v2", after=23 * HOUR).verdict == "not_now"
        assert book.decide(data="v2", after=HOUR).verdict == "retrain"

    def test_a_window_that_was_judged_by_a_clock_ahead_does_not_stay_the_newest(self) -> None:
        book = Book()
        book.decide("not_drifted", after=365 * DAY)
        book.now -= 365 * DAY
        assert book.decide("drifted").verdict == "retrain"

    def test_a_champion_from_the_future_has_an_age_that_is_not_known(self) -> None:
        book = Book(max_model_age=DAY, on_drift=False)
        answer = book.decide(champion_since=NOW + DAY)
        assert answer.explanation == "cannot say, because the champion's age is not known"

    def test_a_training_from_the_future_counts_from_when_it_is_seen(self) -> None:
        book = Book(cooldown=6 * HOUR)
        seen = {"latest_training": "run-1", "latest_training_at": NOW + 90 * DAY}
        assert book.decide("drifted", **seen).verdict == "not_now"
        assert book.decide(after=6 * HOUR, **seen).verdict == "retrain"


class TestAge:
    def test_the_age_counts_anew_when_a_challenger_lost(self) -> None:
        book = Book(max_model_age=30 * DAY, on_drift=False, cooldown=dt.timedelta(0))
        old = book.decide(after=31 * DAY)
        assert old.explanation == "retrain: the champion is 32 days old (limit 30 days)"
        book.decide(data="v2", reports=book.report(old, "rejected"))
        assert book.decide(data="v2", after=29 * DAY).verdict == "not_needed"
        assert book.decide(data="v2", after=2 * DAY).verdict == "retrain"


class TestNewData:
    def test_new_rows_are_counted_from_the_last_training_that_was_judged(self) -> None:
        book = Book(min_new_rows=100, cooldown=dt.timedelta(0))
        first = book.decide("drifted", rows=500)
        assert first.verdict == "retrain"
        few = book.decide("drifted", data="v2", rows=599, reports=book.report(first, "promoted"))
        assert "there are 99 new rows since the last training (needed: 100)" in few.explanation
        assert book.decide(data="v2", rows=600).verdict == "retrain"

    def test_a_count_that_shrank_is_not_known(self) -> None:
        book = Book(min_new_labels=1, cooldown=dt.timedelta(0))
        first = book.decide("drifted", labels=500)
        answer = book.decide("drifted", data="v2", labels=499, reports=book.report(first, "promoted"))
        assert answer.verdict == "inconclusive"

    def test_a_training_that_failed_has_used_nothing_up(self) -> None:
        book = Book(min_new_rows=100, cooldown=dt.timedelta(0))
        first = book.decide("drifted", rows=500)
        assert book.decide(data="v2", rows=501, reports=book.report(first, "failed")).verdict == "retrain"


class TestTheRecord:
    def busy(self, decisions: int = 120) -> Book:
        book = Book(violations=2, window_count=3, cooldown=3 * HOUR)
        last: RetrainDecision | None = None
        for number in range(decisions):
            reports = book.report(last, ("rejected", "promoted")[number % 2], f"v{number - 1}") if last else ()
            verdict = "drifted" if number % 3 else "not_drifted"
            answer = book.decide(verdict, data=f"v{number}", reports=reports)
            last = answer if answer.action == "trigger" else None
        return book

    def test_stays_small_and_replays_to_the_same_decisions(self) -> None:
        book = self.busy()
        assert book.ledger.seq == 120
        assert book.ledger.base_seq > 0
        assert size_of(book.ledger) <= ledgers.MAX_BYTES
        assert replay(book.ledger) == []

    def test_is_the_same_after_a_way_through_json(self) -> None:
        ledger = self.busy(40).ledger
        again = read_document(Ledger, json.loads(json.dumps(plain_document(ledger))), "churn")
        assert again == ledger
        assert state_of(again) == state_of(ledger)

    def test_does_not_depend_on_how_much_of_it_is_folded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = self.busy(80)
        monkeypatch.setattr(ledgers, "MAX_ENTRIES", 1)
        folded = self.busy(80)
        assert len(folded.ledger.entries) == 1
        assert folded.state == whole.state

    def test_an_entry_that_was_edited_is_found(self) -> None:
        ledger = self.busy(30).ledger
        entry = ledger.entries[-1]
        edited = entry.model_copy(update={"observation": entry.observation.model_copy(update={"has_champion": False})})
        (found,) = replay(ledger.model_copy(update={"entries": (*ledger.entries[:-1], edited)}))
        assert found.seq == entry.seq
        assert found.recorded == entry.answer
        assert "there is no champion" in found.replayed.explanation

    def test_fits_into_the_state_store_even_when_everything_is_as_long_as_it_may_be(self) -> None:
        unbounded = {"daily_budget": None, "weekly_budget": None, "window_count": MAX_WINDOWS}
        book = Book(violations=MAX_WINDOWS, on_drift=True, **unbounded)
        policy = RetrainPolicy(cooldown=dt.timedelta(0), **unbounded)
        book.policy = policy
        long = {"by": "b" * 400, "dag_id": "d" * 250, "data_concluded": "", "latest_training": "l" * 80}
        last: RetrainDecision | None = None
        for number in range(MAX_BUDGET + 10):
            data = f"{number:06d}".ljust(73, "v")
            reports = tuple(
                each.model_copy(update={"dag_id": "d" * 250, "detail": "x" * 120, "mlflow_run_id": "m" * 80})
                for each in ([*book.report(last, "failed", data)] if last else [])
            )
            window = {"name": f"{number:06d}".ljust(80, "w")}
            answer = book.decide("drifted", data=data, window=window, reports=reports, **long)
            last = answer if answer.action == "trigger" else None
        assert len(book.state.trainings) == MAX_BUDGET
        assert size_of(book.ledger) <= 64 * 1024

    def test_names_policies_only_while_an_entry_needs_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledgers, "MAX_ENTRIES", 2)
        book = Book()
        for hours in range(5):
            book.policy = RetrainPolicy(cooldown=hours * HOUR)
            book.decide("not_drifted")
        assert len(book.ledger.policies) == 2
        assert replay(book.ledger) == []


def test_a_run_is_named_after_the_data_and_stays_the_same() -> None:
    name = retrain_run_id("churn", "2026-11-21", "sha256:ab")
    assert name == "retrain__churn__2026-11-21__3a0d8be5044e"
    assert name == retrain_run_id("churn", "2026-11-21", "sha256:ab")
    assert retrain_run_id("churn", "2026-11-21", "sha256:ab", 2) == f"{name}__2"


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

    name = retrain_run_id(model, version, "sha256:ab", 12)
    assert re.match(conf.get("scheduler", "allowed_run_id_pattern"), name)
    assert len(name) <= 250
    assert name.startswith("retrain__")
