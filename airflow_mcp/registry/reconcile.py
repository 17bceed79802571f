"""Compares the moves that MLflow keeps with the audit log, and records what the log missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_mcp.core.audit.event import AuditActor, AuditEvent
from airflow_mcp.core.audit.log import about_log
from airflow_mcp.core.audit.moves import (
    AnyMove,
    abandoned,
    foreign_move,
    model_subject,
    outcome,
    outcome_action,
    outcome_id,
)
from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.registry.history import unrecorded_moves
from airflow_mcp.core.registry.moves import read_history, read_last_move
from airflow_mcp.core.registry.stages import read_stage_moves

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.audit.record import Record
    from airflow_mcp.core.mlflow_entities import RegisteredModel

PATIENCE = timedelta(minutes=10)
"""A move takes seconds and its task retries within minutes; an intent that is older and has no outcome is abandoned."""


def missing_events(model: RegisteredModel, log: AuditLog, environment: str, now: datetime) -> Iterator[AuditEvent]:
    """Yield the events that the log lacks about one registered model: outcomes, abandoned intents, foreign moves.

    :param model: the registered model as it is now.
    :param log: the log; it is only read.
    :param environment: dev, test or prod.
    :param now: the time, with a time zone.
    :raises AuditUnavailableError: when the log does not answer.
    """
    records = log.facts(model_subject(model.name), "registry.")
    known = {record.event["id"] for record in records}
    moves: list[AnyMove] = [*read_history(model.tags), *read_stage_moves(model)]
    moves.sort(key=lambda move: (move.number, move.at))
    # Most outcomes are in the log already: their IDs are compared before an event is built.
    lacked = [move for move in moves if outcome_id(move, model.name) not in known]
    found = [outcome(move, model.name, environment, records) for move in lacked]
    found += [abandoned(record) for record in _without_outcome(records, moves) if _is_over(record, model, now)]
    found += [foreign_move(each, model.name, environment) for each in unrecorded_moves(model)]
    yield from (event for event in found if event.id not in known)


def reconcile(
    models: Iterable[RegisteredModel], log: AuditLog, environment: str, actor: AuditActor
) -> tuple[AuditEvent, ...]:
    """Record what the log missed, and that it was reconciled; a second call adds no event of a move.

    :param models: registered models as they are now.
    :param log: the log.
    :param environment: dev, test or prod.
    :param actor: who reconciles.
    :return: the events that were added.
    :raises AuditUnavailableError: when the log does not answer; what was added stays, and a retry adds the rest.
    """
    now, number, added = datetime.now(UTC), 0, []
    for number, model in enumerate(models, 1):  # noqa: B007  (the last one is their number)
        for event in missing_events(model, log, environment, now):
            if log.append(event).is_new:
                added.append(event)
    counts = dict(sorted(Counter(event.action for event in added).items()))
    summary = {"models": number, "added": counts, "at": now.isoformat()}
    log.append(about_log("audit.reconciled", actor, environment, summary))
    return tuple(added)


def _without_outcome(records: list[Record], moves: list[AnyMove]) -> Iterator[Record]:
    """Yield the intents of which no move was made."""
    done = {seq for record in records for seq in record.event["refs"]}
    # A try that wanted something else than the next one leaves an intent whose move was made by the other.
    outcomes = {(outcome_action(move), move.identity) for move in moves}
    for record in records:
        verb = record.event["action"]
        if verb not in ("registry.move_intended", "registry.stage_intended"):
            continue
        action = "registry.moved" if verb == "registry.move_intended" else "registry.stage_moved"
        if record.seq not in done and (action, record.event["new"].get("move")) not in outcomes:
            yield record


def _is_over(intent: Record, model: RegisteredModel, now: datetime) -> bool:
    """Return whether a move without an outcome will not be made any more: it is old, and no alias says it began."""
    event, last = intent.event, read_last_move(model.tags)
    has_begun = (
        last is not None
        and last.identity == event["new"]["move"]
        and model.aliases.get(ALIAS_CHAMPION) == last.champion_after
    )
    return not has_begun and now - datetime.fromisoformat(intent.recorded_at) > PATIENCE
