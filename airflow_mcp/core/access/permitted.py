"""Checks a person against the policy in force where nothing is moved: reads of the audit log, and retraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

from airflow_mcp.core.access.decision import AccessRules
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.argument import sentences
from airflow_mcp.core.audit.event import AuditEvent, event_id
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.audit.moves import audit_actor
from airflow_mcp.exceptions import AccessRefusedError, ModelControlPlaneError


def require_permitted(
    log: AuditLog, ask: Callable[[], Requester], by: Actor, environment: str, *, resource: str, action: str
) -> None:
    """Check that the policy in force permits something; without a policy everything is permitted.

    :param log: the audit log, which holds the policy and gets the refusal.
    :param ask: returns who is behind it; called where a policy is in force.
    :param by: who acts, as the event of a refusal names them.
    :param environment: dev, test or prod.
    :param resource: such as ``audit`` or ``model:churn``.
    :param action: such as ``export``.
    :raises AccessRefusedError: when it is not permitted; the refusal is recorded where this login may do so.
    :raises EvidenceError: when the log names a policy that cannot be used.
    :raises AuditUnavailableError: when the log does not answer.
    """
    in_force = read_in_force(log)
    if in_force is None:
        return
    rules, who, actor = AccessRules(in_force.policy), ask(), audit_actor(by)
    unknown = who.why_unknown(environment)
    asked = [rules.allowed(each, resource, action) for each in who.principals(in_force.policy)]
    reasons = [unknown] if unknown else [decision.by for decision in asked if not decision.granted]
    if not reasons:
        return
    event = AuditEvent(
        # A random part: each attempt is an event of its own.
        id=event_id("access.refused", resource, action, uuid4().hex),
        action="access.refused",
        subject=resource,
        environment=environment,
        actor=replace(actor, name=who.account or actor.name),
        task=by.task,
        new={"act": action, "reasons": reasons},
        inputs={"policy": in_force.digest},
        refs=(in_force.seq,),
    )
    try:
        log.append(event)
        recorded = "The refusal is recorded"
    except ModelControlPlaneError as error:
        recorded = f"The refusal could not be recorded: {error}"
    raise AccessRefusedError(f"{resource}/{action} is refused: {sentences(*reasons)}. {recorded}")
