"""A request and a delegation as plain JSON values: what the command line prints and the page shows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from airflow_mcp.core.approvals.events import Delegation
from airflow_mcp.core.approvals.state import NodeState, RequestState
from airflow_mcp.core.approvals.timers import coming_timers
from airflow_mcp.core.approvals.votes import JudgedVote


def request_document(state: RequestState) -> dict[str, Any]:
    """Return where a request stands, with everything that people decide from.

    :param state: where it stands.
    """
    request = state.request
    return {
        "model_name": state.key.model_name,
        "environment": state.key.environment,
        "act": state.key.act,
        "passport": state.key.passport,
        "status": state.status,
        "reason": state.reason,
        "version": request.version if request else None,
        "risk": state.risk or None,
        "seq": request.seq if request else None,
        "requested_at": _time(request.requested_at if request else None),
        "requested_by": (request.requester.account or request.requester.pipeline or None) if request else None,
        "initiators": sorted(state.electorate.initiators) if state.electorate else [],
        "dag_id": request.dag_id if request else None,
        "dag_run_id": request.dag_run_id if request else None,
        "ended_at": _time(state.ended_at),
        "waits_for": _waits_for(state),
        "chain": [_node(each) for each in state.nodes],
        "votes": [_vote(each) for each in state.votes],
    }


def delegation_document(delegation: Delegation, now: datetime) -> dict[str, Any]:
    """Return a delegation.

    :param delegation: the delegation.
    :param now: the time.
    """
    terms = delegation.terms
    return {
        "seq": delegation.seq,
        "giver": terms.giver,
        "receiver": terms.receiver,
        "roles": list(terms.roles),
        "since": _time(terms.since),
        "until": _time(terms.until),
        "given_at": _time(delegation.recorded_at),
        "withdrawn_at": _time(delegation.withdrawn_at),
        "is_valid": delegation.is_valid(now),
    }


def _waits_for(state: RequestState) -> dict[str, Any] | None:
    node = state.open_node
    if node is None or state.electorate is None:
        return None
    task = state.asked.get(node.node.name)
    return {
        "node": node.node.name,
        "missing": node.missing,
        "may_vote": list(state.electorate.awaited(node.node)),
        "since": _time(node.opened_at),
        "expires_at": _time(node.expires_at),
        "next": [{"do": due.timer.do, "at": _time(due.at), "to": list(due.to)} for due in coming_timers(state)],
        "question": asdict(task) if task else None,
    }


def _node(state: NodeState) -> dict[str, Any]:
    return {
        "node": state.node.name,
        "approvers": list(state.node.approvers),
        "quorum": state.node.quorum,
        "approved_by": [vote.person for vote in state.votes],
        "opened_at": _time(state.opened_at),
        "closed_at": _time(state.closed_at),
    }


def _vote(judged: JudgedVote) -> dict[str, Any]:
    answer = judged.vote.answer
    return {
        "seq": judged.vote.seq,
        "at": answer.responded_at,
        "node": judged.node,
        "option": answer.option,
        "account": answer.account,
        "person": judged.person or None,
        "counts": judged.counts,
        "why": judged.why,
        "reason": answer.reason,
        "task": asdict(answer.task),
    }


def _time(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds") if time else None
