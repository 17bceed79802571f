"""Compares what MLflow and the model servers keep with the audit log, and records what the log missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

from airflow_mcp.core.audit.event import AuditActor, AuditEvent, without_credentials
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
from airflow_mcp.core.registry.history import recorded_moves, unrecorded_moves
from airflow_mcp.core.registry.moves import MoveRecord, read_history, read_last_move, shortened
from airflow_mcp.core.registry.stages import read_stage_moves
from airflow_mcp.exceptions import AuditConflictError, EvidenceError
from airflow_mcp.registry.aliases import as_taken
from airflow_mcp.registry.reconcile_decisions import MissingDecisions
from airflow_mcp.registry.reconcile_servers import missing_server_events
from airflow_mcp.registry.recording import append_once

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.audit.record import Record
    from airflow_mcp.core.mlflow_entities import RegisteredModel
    from airflow_mcp.mlflow_client.operations import MlflowOperations

PATIENCE = timedelta(minutes=10)
"""A move takes seconds and its task retries within minutes; an intent that is older and has no outcome is abandoned."""

_MOST_PROBLEMS, _LONGEST_PROBLEM = 20, 1000
"""What the event about a reconciliation holds at most; the number of all problems is in it too."""


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


@dataclass(frozen=True)
class Reconciled:
    """What a reconciliation did."""

    added: tuple[AuditEvent, ...]
    """Events that the log lacked."""
    problems: tuple[str, ...]
    """What could not be compared, and what the log says and MLflow does not."""


def reconcile(
    mlflow: MlflowOperations,
    log: AuditLog,
    environment: str,
    actor: AuditActor,
    replicas: Mapping[str, str] | None = None,
) -> Reconciled:
    """Record what the log missed, and that it was reconciled; a second call adds no event of a move or a decision.

    :param mlflow: the MLflow server.
    :param log: the log.
    :param environment: dev, test or prod.
    :param actor: who reconciles.
    :param replicas: address to page of events, of the replicas of model servers.
    :raises AuditUnavailableError: when the log does not answer; what was added stays, and a retry adds the rest.
    :raises MlflowError: when MLflow does not answer; likewise.
    """
    now, number = datetime.now(UTC), 0
    decisions = MissingDecisions(mlflow, log, environment, now)
    added: list[AuditEvent] = []
    problems: list[str] = []
    for number, found in enumerate(mlflow.search_registered_models(), 1):  # noqa: B007  (the last one is their number)
        model = as_taken(mlflow, found)
        events = chain(missing_events(model, log, environment, now), decisions.of(model.name))
        added += _appended(log, events, problems)
        problems += contradictions(model, log)
    for place, page in (replicas or {}).items():
        try:
            added += _appended(log, missing_server_events(page, log, environment), problems)
        except EvidenceError as error:
            problems.append(f"{place}: {error}")
    problems += decisions.problems
    counts = dict(sorted(Counter(event.action for event in added).items()))
    said = [without_credentials(shortened(problem, _LONGEST_PROBLEM)) for problem in problems[:_MOST_PROBLEMS]]
    summary = {"models": number, "added": counts, "problems": len(problems), "first_problems": said}
    log.append(about_log("audit.reconciled", actor, environment, {**summary, "at": now.isoformat()}))
    return Reconciled(tuple(added), tuple(problems))


def contradictions(model: RegisteredModel, log: AuditLog) -> Iterator[str]:
    """Yield what the log says about moves of a registered model and MLflow does not, as text for people.

    Somebody has forged the event with the login of a writer, or has changed the tags in MLflow, or the model was
    deleted and made anew.

    :param model: the registered model as it is now.
    :param log: the log; it is only read.
    :raises AuditUnavailableError: when the log does not answer.
    """
    moves: dict[str, AnyMove] = {move.identity: move for move in read_stage_moves(model)}
    moves |= {move.identity: move for move in recorded_moves(model)}
    for record in log.facts(model_subject(model.name), "registry."):
        action, said = record.event["action"], record.event["new"] or {}
        if action not in ("registry.moved", "registry.stage_moved") or record.event.get("erased"):
            continue
        move = moves.get(str(said.get("move")))
        what = f"seq {record.seq} of the log says that {model.name} was moved"
        if move is None or action != outcome_action(move):
            yield f"{what} ({said.get('action')} {said.get('move')}), and MLflow has no such move"
        elif isinstance(move, MoveRecord) and said.get("champion") != move.champion_after:
            yield f"{what} to version {said.get('champion')}, and MLflow to version {move.champion_after}"


def _appended(log: AuditLog, events: Iterable[AuditEvent], problems: list[str]) -> Iterator[AuditEvent]:
    """Append events and yield those that are new; one that contradicts the log becomes a problem."""
    for event in events:
        try:
            appended = append_once(log, event)
        except AuditConflictError as error:
            problems.append(str(error))
            continue
        if appended is not None and appended.is_new:
            yield event


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
