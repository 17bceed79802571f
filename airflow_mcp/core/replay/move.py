"""Makes the move of a champion again, from the aliases that the log recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.registry.plans import plan_promotion, plan_rollback
from airflow_mcp.core.replay.result import Difference, Replayed, compare
from airflow_mcp.exceptions import AliasConflictError, EvidenceError

MOVED, RETRAIN = "registry.moved", "retrain.decided"
REPLAYED = (MOVED, RETRAIN)
"""Actions of the records that can be replayed."""
FORWARD = ("promote", "transition")
"""Actions that make a version the champion because its gate accepted it; ``transition`` is by a stage."""


def find_decision(records: Iterable[Record], *, name: str = "", seq: int = 0) -> Record:
    """Return the record of a move, or of a decision on retraining.

    :param records: records of the log.
    :param name: identity of the move, or ID of the event.
    :param seq: number of the record, instead.
    :raises EvidenceError: when there is none, or it was erased.
    """
    for record in records:
        event = record.event
        names = (event.get("id"), (event["new"] or {}).get("move"))
        if event["action"] in REPLAYED and (record.seq == seq or (name and name in names)):
            if event.get("erased"):
                raise EvidenceError(f"record {record.seq} of the log was erased, so it cannot be replayed")
            return record
    raise EvidenceError(f"the log has no {' or '.join(REPLAYED)} {f'named {name}' if name else f'with seq {seq}'}")


def gate_of(moved: Record, records: Iterable[Record]) -> tuple[Record | None, str]:
    """Return the gate that let a version through, and the decision that counted when it moved.

    :param moved: the record of the move.
    :param records: records of the log.
    :return: the record of the gate, or None; and ``approved`` when a person has approved its report afterwards.
    """
    run_id, subject = moved.event["new"].get("run_id"), moved.event["subject"]
    gate, decided = None, ""
    for record in sorted(records, key=lambda one: one.seq):
        event = record.event
        if event["action"] != "gate.decided" or event["subject"] != subject or record.seq > moved.seq:
            continue
        if event.get("erased") or not run_id or event["new"].get("run_id") != run_id:
            continue
        decided = event["new"]["decision"]
        if "verdict" in event["new"]:  # the event of a person's approval has none
            gate = record
    return gate, decided


def replay_move(moved: Mapping[str, Any], gate: Mapping[str, Any] | None, decided: str) -> Replayed:
    """Plan a move again and compare the plan with what was done.

    :param moved: the event ``registry.moved``.
    :param gate: the event of the gate that let the version through; None when there is none.
    :param decided: the gate's decision at that time; empty when there is none.
    """
    old, new = moved["old"], moved["new"]
    model_name = moved["subject"].partition(":")[2]
    before = {ALIAS_CHAMPION: old["champion"], ALIAS_PREVIOUS_CHAMPION: old["previous_champion"]}
    aliases = {alias: version for alias, version in before.items() if version}
    target = {"model_name": model_name, "identity": new["move"]}
    try:
        if new["action"] == "rollback":
            plan = plan_rollback(aliases, {}, to_version=new["champion"], **target)
        elif new["action"] in FORWARD:
            if gate is None and new["gate_verdict"]:
                return Replayed(missing=(f"gate.decided of MLflow run {new['run_id']}",))
            expected = gate["new"]["champion"] if gate else old["champion"]
            plan = plan_promotion(aliases, {}, version=new["champion"], expected_champion=expected, **target)
        else:
            return Replayed(missing=(f"rules for the action {new['action']!r}, which is not a decision",))
    except AliasConflictError as error:
        return Replayed((Difference("move", f"{old['champion']} -> {new['champion']}", f"refused: {error}"),))
    made = {"champion before": old["champion"], "champion after": new["champion"]}
    planned = {"champion before": plan.champion_before, "champion after": plan.champion_after}
    if decided:
        made["gate verdict"], planned["gate verdict"] = new["gate_verdict"], decided
    return Replayed(tuple(compare(made, planned, "")))
