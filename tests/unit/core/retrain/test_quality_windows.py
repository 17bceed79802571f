"""Quality checks in the retrain ledger: late labels judge a window again, beside drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.retrain.documents import Ledger, LedgerState, Observation, WindowVerdict, plain_document
from airflow_mcp.core.retrain.ledger import decide, record
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.core.retrain.state import observe

NOW = datetime(2026, 11, 29, 8, tzinfo=UTC)
QUALITY = RetrainPolicy(on_drift=False, on_quality=True)
BOTH = RetrainPolicy(on_quality=True, label_delay=timedelta(days=3))


def window(day: int, verdict: Any, kind: Any = "quality") -> WindowVerdict:
    return WindowVerdict(name=f"{kind}-{day}", kind=kind, verdict=verdict, end=datetime(2026, 11, day, tzinfo=UTC))


def seen(*quality: WindowVerdict, drift: WindowVerdict | None = None, hours: int = 0) -> Observation:
    return Observation(
        at=NOW + timedelta(hours=hours),
        by="dag task",
        dag_id="train",
        data_version="v1",
        data_hash="sha256:1",
        has_champion=True,
        window=drift,
        quality=quality,
    )


def after(policy: RetrainPolicy, *observations: Observation) -> LedgerState:
    state = LedgerState()
    for seq, each in enumerate(observations, 1):
        state = observe(state, seq, each, policy)
    return state


def answer(policy: RetrainPolicy, *observations: Observation) -> Any:
    return decide(after(policy, *observations), observations[-1], policy, "fraud")


class TestADegradedWindow:
    def test_is_a_reason_to_retrain(self) -> None:
        found = answer(QUALITY, seen(window(27, "not_degraded"), window(28, "degraded")))
        assert (found.verdict, found.action) == ("retrain", "trigger")
        assert found.explanation == "retrain: the model degraded (version v1)"

    def test_is_none_when_the_newest_has_recovered_or_the_policy_does_not_ask(self) -> None:
        assert answer(QUALITY, seen(window(27, "degraded"), window(28, "not_degraded"))).verdict == "not_needed"
        only_age = RetrainPolicy(on_drift=False, max_model_age=timedelta(days=300))
        assert not after(only_age, seen(window(28, "degraded"))).need

    def test_that_is_inconclusive_or_missing_is_no_good_news(self) -> None:
        for given in (seen(window(28, "inconclusive")), seen()):
            assert answer(QUALITY, given).verdict == "inconclusive"

    def test_is_judged_again_when_late_labels_arrive(self) -> None:
        early, late = seen(window(27, "inconclusive")), seen(window(27, "degraded"), hours=24)
        state = after(QUALITY, early, late)
        assert [(each.name, each.verdict) for each in state.windows] == [("quality-27", "degraded")]
        assert answer(QUALITY, early, late).verdict == "retrain"

    def test_asks_once_however_often_it_is_seen(self) -> None:
        state = after(QUALITY, *(seen(window(28, "degraded"), hours=hour) for hour in range(5)))
        assert state.need is not None
        assert (state.need.kind, state.need.times) == ("quality", 1)


class TestBesideDrift:
    def test_either_is_enough_and_each_is_judged_among_its_own(self) -> None:
        quiet, drifted = window(29, "not_drifted", "drift"), window(20, "drifted", "drift")
        degraded, fine = window(22, "degraded"), window(22, "not_degraded")
        assert answer(BOTH, seen(degraded, drift=quiet, hours=96)).verdict == "retrain"
        assert answer(BOTH, seen(fine, drift=drifted)).verdict == "retrain"
        assert answer(BOTH, seen(fine, drift=quiet, hours=96)).verdict == "not_needed"
        assert answer(BOTH, seen(fine)).verdict == "inconclusive"

    def test_a_quality_check_has_waited_already(self) -> None:
        state = after(BOTH, seen(window(29, "degraded"), drift=window(29, "drifted", "drift")))
        assert state.need is not None
        assert state.need.kind == "quality"  # the drift verdict came before its labels, and does not count yet

    def test_many_windows_of_one_kind_do_not_push_out_the_other(self) -> None:
        state = after(
            BOTH, seen(drift=window(1, "drifted", "drift")), *(seen(window(n, "degraded")) for n in range(2, 29))
        )
        kinds = [each.kind for each in state.windows]
        assert (kinds.count("drift"), kinds.count("quality")) == (1, 25)


def test_a_ledger_without_quality_is_written_as_before() -> None:
    given = seen(drift=window(28, "drifted", "drift"))
    ledger = record(Ledger(model_name="fraud"), given, RetrainPolicy(), answer(RetrainPolicy(), given))
    text = str(plain_document(ledger))
    assert "'quality':" not in text
    assert "'kind'" not in text


def test_a_policy_may_have_quality_as_its_only_reason() -> None:
    assert QUALITY.kinds == ("quality",)
    with pytest.raises(Exception, match="has no reason to retrain"):
        RetrainPolicy(on_drift=False)
