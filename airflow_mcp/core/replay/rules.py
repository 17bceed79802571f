"""Judges the approvals of a move again, by the policy and the votes of then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mcp.core.access.in_force import SUBJECT as POLICY
from airflow_mcp.core.approvals.events import DELEGATIONS
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.conformity.moves import MoveCheck
from airflow_mcp.core.replay.result import Difference, Replayed

INTENDED = "registry.move_intended"


def subjects_of(moved: Mapping[str, Any], intent: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the subjects of the records that a move can rest on.

    :param moved: the event ``registry.moved``.
    :param intent: the event of its intent; None when there is none.
    """
    inputs = intent["inputs"] if intent else {}
    digests = ((POLICY, inputs.get("policy", "")), ("passport", inputs.get("passport", "")))
    named = tuple(f"{kind}:{digest.removeprefix('sha256:')}" for kind, digest in digests if digest)
    return (moved["subject"], POLICY, *named, DELEGATIONS)


def intent_of_move(moved: Record, records: Iterable[Record]) -> Record | None:
    """Return the intent that a move names; None when it names none, or the records do not hold it.

    :param moved: the record of the move.
    :param records: records of the log.
    """
    return next(
        (one for one in records if one.seq in moved.event["refs"] and one.event["action"] == INTENDED),
        None,
    )


def replay_rules(moved: Record, records: Iterable[Record]) -> Replayed:
    """Judge the policy and the approvals of a move again; without a policy of then there is nothing to judge.

    :param moved: the record of the move.
    :param records: records of the subjects that :func:`subjects_of` names.
    """
    known = {one.seq: one for one in records if one.seq <= moved.seq}
    intent = intent_of_move(moved, known.values())
    if intent is None:
        return Replayed(missing=tuple(f"record {seq}, the intent of the move" for seq in moved.event["refs"]))
    if intent.event.get("erased"):
        return Replayed(missing=(f"what record {intent.seq}, the intent of the move, said: it was erased",))
    gone = [seq for seq in intent.event["refs"] if seq not in known or known[seq].event.get("erased")]
    if gone:
        return Replayed(missing=tuple(f"record {seq}, a policy or vote that the move rests on" for seq in gone))
    check = MoveCheck()
    for _ in check.watched(known[seq].line.encode() for seq in sorted(known)):
        pass
    problems = [each.problem for each in check.findings if each.seq in (intent.seq, moved.seq)]
    return Replayed(tuple(Difference("policy and approvals", "permitted", problem) for problem in problems))
