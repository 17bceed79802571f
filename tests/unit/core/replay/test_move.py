"""A move planned again from what the log recorded."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.replay.move import find_decision, gate_of, replay_move
from airflow_mcp.exceptions import EvidenceError


def record(seq: int, action: str, new: dict[str, Any], **event: Any) -> Record:
    fields = {"action": action, "subject": "model:fraud", "old": None, "new": new, "inputs": {}, **event}
    return Record(seq, "2026-11-29T00:00:00.000000Z", "mcp", fields, "")


def moved(seq: int = 9, *, action: str = "promote", before: str | None = "1", **new: Any) -> Record:
    fields = {"move": "m1", "action": action, "champion": "2", "run_id": "r2", "gate_verdict": "passed", **new}
    return record(seq, "registry.moved", fields, old={"champion": before, "previous_champion": None})


def gate(seq: int = 3, *, champion: str | None = "1", decision: str = "passed", run_id: str = "r2") -> Record:
    new = {"decision": decision, "verdict": "passed", "mode": "enforce", "run_id": run_id, "champion": champion}
    return record(seq, "gate.decided", new)


def fields(found: Any) -> dict[str, tuple[str, str]]:
    return {one.field: (one.recorded, one.replayed) for one in found.differences}


def test_a_promotion_against_the_champion_of_then_is_identical() -> None:
    assert replay_move(moved().event, gate().event, "passed").verdict == "identical"
    first = moved(before=None)
    assert replay_move(first.event, gate(champion=None).event, "passed").verdict == "identical"


def test_a_promotion_against_another_champion_than_the_gate_compared_with_is_different() -> None:
    found = replay_move(moved(before="7").event, gate().event, "passed")
    assert found.verdict == "different"
    assert fields(found)["move"][1].startswith(
        "refused: 'fraud': the candidate (version 2) was compared with version 1"
    )


def test_another_decision_of_the_gate_is_different() -> None:
    found = replay_move(moved().event, gate(decision="failed").event, "failed")
    assert fields(found) == {"gate verdict": ("passed", "failed")}


def test_a_promotion_whose_gate_is_not_in_the_log_is_impossible() -> None:
    found = replay_move(moved().event, None, "")
    assert (found.verdict, found.missing) == ("impossible", ("gate.decided of MLflow run r2",))


def test_a_rollback_needs_no_gate() -> None:
    assert replay_move(moved(action="rollback").event, None, "").verdict == "identical"


def test_a_move_taken_over_from_stages_was_no_decision() -> None:
    assert replay_move(moved(action="migrate").event, None, "").verdict == "impossible"


def test_the_gate_is_the_last_one_before_the_move_and_an_approval_counts() -> None:
    approval = record(5, "gate.decided", {"decision": "approved", "run_id": "r2", "by": "lena"})
    records = [gate(2), gate(3, decision="inconclusive"), approval, gate(4, run_id="r1"), gate(12, decision="failed")]
    found, decided = gate_of(moved(), records)
    assert (found, decided) == (records[1], "approved")


@pytest.mark.parametrize("wanted", [{"name": "m1"}, {"seq": 9}])
def test_a_move_is_found_by_its_identity_or_its_number(wanted: Any) -> None:
    assert find_decision([gate(), moved()], **wanted).seq == 9


def test_a_move_that_is_erased_or_missing_is_named() -> None:
    with pytest.raises(EvidenceError, match="was erased"):
        find_decision([record(9, "registry.moved", {"move": "m1"}, erased=True)], name="m1")
    with pytest.raises(EvidenceError, match=r"no registry.moved or retrain.decided with seq 8"):
        find_decision([moved()], seq=8)
