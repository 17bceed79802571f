"""The events of moves in the registry: the intent before the first write, the outcome after the last one.

An outcome is made from the record of the move in MLflow and from its intent, and from nothing else. So whoever records
it, the task itself, its retry, the next mover or a reconciliation, records the same event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.audit.event import ActorKind, AuditActor, AuditEvent, event_id, without_credentials
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.registry.history import UnrecordedMove
from airflow_mcp.core.registry.moves import MoveOrder, MoveRecord
from airflow_mcp.core.registry.stages import StageMove

AnyMove = MoveRecord | StageMove
MOVED = "registry.moved"
"""Action of the event of a champion that was moved."""
_KINDS: dict[str, ActorKind] = {
    "scheduled": "schedule",
    "backfill": "schedule",
    "asset_triggered": "asset",
    "asset_materialization": "asset",
}


def model_subject(model_name: str) -> str:
    """Return the subject of events about a registered model."""
    return f"model:{model_name}"


def intent_action(move: AnyMove) -> str:
    """Return the action of the intent of a move."""
    return "registry.move_intended" if isinstance(move, MoveRecord) else "registry.stage_intended"


def outcome_action(move: AnyMove) -> str:
    """Return the action of the outcome of a move."""
    return MOVED if isinstance(move, MoveRecord) else "registry.stage_moved"


def outcome_id(move: AnyMove, model_name: str) -> str:
    """Return the ID of the outcome of a move."""
    return event_id(outcome_action(move), model_subject(model_name), move.identity)


def audit_actor(actor: Actor) -> AuditActor:
    """Return who acts, as events name it; nobody has checked who the user of a Dag run is."""
    if actor.is_authenticated:
        return AuditActor("user", actor.requested_by, via=f"{actor.name} {actor.via}", authenticated=True)
    if actor.kind == "user":
        return AuditActor("cli", actor.name, via=actor.via)
    via = f"{actor.name} {actor.via}"
    if actor.requested_by:
        return AuditActor("user", actor.requested_by, via=via)
    return AuditActor(_KINDS.get(actor.run_type, "system"), actor.name, via=via)


@dataclass(frozen=True)
class Basis:
    """What a move rests on: what was found before it was recorded."""

    actor: AuditActor | None = None
    """Who is behind the order, where that was asked; None takes who the order names."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of the policy and the passport."""
    refs: tuple[int, ...] = ()
    """Records of the policy and of the votes."""
    is_automatic: bool = False
    """Whether a rollout goes back by itself, so that nobody is asked."""


def intended(
    move: AnyMove, order: MoveOrder, model_name: str, environment: str, basis: Basis | None = None
) -> AuditEvent:
    """Return the intent of a move; a try that wants something else has an intent of its own.

    :param move: the record of the move, as it is before the move.
    :param order: who moves and why.
    :param model_name: registered model.
    :param environment: dev, test or prod.
    :param basis: what the move rests on; None when that was not asked.
    """
    action, subject, reason = intent_action(move), model_subject(model_name), without_credentials(order.reason)
    # The number and the times of a record differ between two tries of the same move.
    old, new = _before(move), {key: value for key, value in _after(move).items() if key not in ("number", "at")}
    rests = basis or Basis()
    if rests.is_automatic:
        new["automatic"] = True
    who, inputs = rests.actor or audit_actor(order.by), dict(rests.inputs)
    return AuditEvent(
        id=event_id(action, subject, old, new, reason, asdict(who), environment, inputs, list(rests.refs)),
        action=action,
        subject=subject,
        environment=environment,
        actor=who,
        task=order.by.task,
        old=old,
        new=new,
        reason=reason,
        inputs=inputs,
        refs=rests.refs,
    )


def outcome(move: AnyMove, model_name: str, environment: str, intents: Iterable[Record]) -> AuditEvent:
    """Return the outcome of a move that is done.

    :param move: the record of the move, as MLflow keeps it.
    :param model_name: registered model.
    :param environment: dev, test or prod, of a move that began without an intent.
    :param intents: records of intents of this model, oldest first.
    """
    intent = intent_of(move, intents)
    task = intent.event["task"] if intent else None
    return AuditEvent(
        id=outcome_id(move, model_name),
        action=outcome_action(move),
        subject=model_subject(model_name),
        environment=intent.event["environment"] if intent else environment,
        actor=AuditActor(**intent.event["actor"]) if intent else AuditActor("system", move.by),
        task=TaskKey(**task) if task else None,
        old=_before(move),
        new=_after(move),
        reason=intent.event["reason"] if intent else without_credentials(move.reason),
        refs=(intent.seq,) if intent else (),
        late=intent is None,
    )


def intent_of(move: AnyMove, intents: Iterable[Record]) -> Record | None:
    """Return the latest intent of a move; None when the move began without one."""
    found = None
    for record in intents:
        new = record.event["new"]
        if (
            record.event["action"] == intent_action(move)
            and new["move"] == move.identity
            and (isinstance(move, StageMove) or new["champion"] == move.champion_after)
        ):
            found = record
    return found


def abandoned(intent: Record) -> AuditEvent:
    """Return the event of a move that was intended and never made.

    :param intent: its intent.
    """
    event = intent.event
    return AuditEvent(
        id=event_id("registry.move_abandoned", event["subject"], intent.seq),
        action="registry.move_abandoned",
        subject=event["subject"],
        environment=event["environment"],
        actor=AuditActor("system", "reconcile"),
        old=event["old"],
        new={"move": event["new"]["move"], "action": event["new"]["action"]},
        refs=(intent.seq,),
        late=True,
    )


def foreign_move(found: UnrecordedMove, model_name: str, environment: str) -> AuditEvent:
    """Return the event of an alias that somebody moved outside airflow-mcp.

    :param found: the alias, where the last recorded move left it, and where it is.
    :param model_name: registered model.
    :param environment: dev, test or prod.
    """
    action, subject = "registry.foreign_move_found", model_subject(model_name)
    old, new = {"alias": found.alias, "version": found.recorded}, {"alias": found.alias, "version": found.found}
    return AuditEvent(
        id=event_id(action, subject, old, new, found.last.identity),
        action=action,
        subject=subject,
        environment=environment,
        actor=AuditActor("system", "unknown", via="outside airflow-mcp"),
        old=old,
        new={**new, "after_move": found.last.identity},
        late=True,
    )


def _before(move: AnyMove) -> dict[str, Any]:
    if isinstance(move, MoveRecord):
        return {"champion": move.champion_before, "previous_champion": move.previous_before}
    return {"challenger": move.challenger_before}


def _after(move: AnyMove) -> dict[str, Any]:
    common = {"move": move.identity, "action": move.action, "number": move.number, "at": move.at}
    if isinstance(move, StageMove):
        return {**common, "challenger": move.challenger_after, "stages": move.to_json()["stages"]}
    return {
        **common,
        "champion": move.champion_after,
        "way_back": move.way_back,
        "run_id": move.run_id,
        "gate_verdict": move.gate_verdict,
        "load_check": move.load_check,
        "forced": move.forced,
    }
