"""Everything that happened to a registered model as one list: what the log says, and what only MLflow says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_mcp.core.audit.moves import AnyMove, outcome_action, outcome_id
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.history import recorded_moves
from airflow_mcp.core.registry.moves import MoveRecord
from airflow_mcp.core.registry.stages import read_stage_moves


@dataclass(frozen=True)
class Happening:
    """One entry of a timeline."""

    at: datetime
    """When the log recorded it; for a move that only MLflow has, when its worker says that it was made."""
    action: str
    subject: str
    by: str
    says: str
    """What changed, in short."""
    reason: str
    seq: int | None
    """Record of the log; None: only MLflow has it."""
    late: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**vars(self), "at": self.at.isoformat()}


def timeline(records: Iterable[Record], model: RegisteredModel | None, *, is_complete: bool = True) -> list[Happening]:
    """Return what happened to a model, oldest first.

    :param records: records of the log about the model.
    :param model: the registered model as MLflow has it; None when it is not known.
    :param is_complete: whether these are all records; otherwise moves before the first one are left to the log.
    """
    known = list(records)
    found = [_of_record(record) for record in known]
    if model is not None:
        ids = {record.event["id"] for record in known}
        first = min((each.at for each in found), default=None)
        moves: list[AnyMove] = [*recorded_moves(model), *read_stage_moves(model)]
        for move in moves:
            happening = _of_move(move, model.name)
            is_in_range = is_complete or first is None or happening.at >= first
            if is_in_range and outcome_id(move, model.name) not in ids:
                found.append(happening)
    return sorted(found, key=lambda each: (each.at, each.seq or 0))


def in_short(values: dict[str, Any] | None) -> str:
    """Return the part of the old or new value of an event that people look for."""
    for key in ("champion", "stages", "decision", "verdict", "phase", "version", "challenger"):
        if values and key in values:
            return f"{key} {values[key] or 'none'}" if not isinstance(values[key], dict) else str(values[key])
    return "none" if not values else ", ".join(f"{key} {value}" for key, value in list(values.items())[:3])


def _of_record(record: Record) -> Happening:
    event = record.event
    if event.get("erased"):
        says = "(erased)"
    elif event["old"] is None:
        says = in_short(event["new"])
    else:
        says = f"{in_short(event['old'])} -> {in_short(event['new'])}"
    return Happening(
        at=datetime.fromisoformat(record.recorded_at),
        action=event["action"],
        subject=event["subject"],
        by=event["actor"]["name"],
        says=says,
        reason=event["reason"],
        seq=record.seq,
        late=event["late"],
    )


def _of_move(move: AnyMove, model_name: str) -> Happening:
    if isinstance(move, MoveRecord):
        says = f"champion {move.champion_before or 'none'} -> champion {move.champion_after}"
    else:
        says = str(move.to_json()["stages"])
    try:
        at = datetime.fromisoformat(move.at)
    except ValueError:
        at = datetime.min.replace(tzinfo=UTC)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return Happening(at, outcome_action(move), f"model:{model_name}", move.by, says, move.reason, None)
