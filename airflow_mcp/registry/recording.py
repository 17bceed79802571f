"""Records decisions in the audit log, after what they rest on was stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_mcp.core.audit.decisions import Decided, decision
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.gate.rules.verdicts import Decision
from airflow_mcp.core.identity import canonical_json, content_hash
from airflow_mcp.exceptions import AuditConflictError

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.audit.event import AuditActor, AuditEvent
    from airflow_mcp.core.audit.log import Appended, AuditLog
    from airflow_mcp.core.audit.record import Record
    from airflow_mcp.core.drift.summary import DriftSummary
    from airflow_mcp.core.gate.approval import Approval
    from airflow_mcp.core.gate.judgement import GateReport
    from airflow_mcp.core.quality.summary import QualitySummary
    from airflow_mcp.core.serving.traffic import RolloutDocument
    from airflow_mcp.registry.governance import Governance
STEP_INTENDED, STEP_TAKEN = "rollout.step_intended", "rollout.step_taken"
"""Actions of the events before and after a step of a rollout is written."""
DEPLOYMENT_INTENDED, DEPLOYMENT_ENDED = "deployment.intended", "deployment.ended"
"""Actions of the events before a model server is changed, and when its pods are ready or will not be."""


def record(governance: Governance, make: Callable[[str], AuditEvent]) -> Appended | None:
    """Record a decision; without an audit log do nothing.

    :param governance: in which audit log.
    :param make: makes the event for an environment.
    :return: where it is in the log; None without a log.
    :raises AuditUnavailableError: when the log does not answer; a retry records the decision.
    :raises InvalidArgumentError: when the log refuses the event.
    :raises AuditConflictError: when the log says something else about this decision.
    """
    if governance.open_log is None:
        return None
    return append_once(governance.open_log(), make(governance.environment))


def append_once(log: AuditLog, event: AuditEvent) -> Appended | None:
    """Append an event, unless the log says the same already under another actor.

    A reconciliation records what a task left behind, without knowing which task it was; the retry of that task then
    finds the event. It also finds one that was erased.

    :param log: the log.
    :param event: the event.
    :return: where it is in the log; None when the log says the same already.
    :raises AuditConflictError: when the log says something else under this ID.
    """
    try:
        return log.append(event)
    except AuditConflictError:
        fields = json.loads(event.text)
        for found in log.facts(event.subject, event.action):
            known = found.event
            if known["id"] == event.id and (
                known.get("erased") or all(known[name] == fields[name] for name in ("old", "new", "inputs"))
            ):
                return None
        raise


def gate_event(
    report: GateReport, decided_as: str, report_hash: str, inputs_hash: str, environment: str, by: Actor | AuditActor
) -> AuditEvent:
    """Return the event of a gate.

    :param report: its report.
    :param decided_as: what was decided.
    :param report_hash: ``sha256:`` of the report as it is stored.
    :param inputs_hash: ``sha256:`` of what it was made from, as it is stored; empty when that is not stored.
    :param environment: dev, test or prod.
    :param by: who judged.
    """
    new = {
        "verdict": report.verdict.value,
        "mode": report.mode,
        "champion": report.champion_version,
        "self_reported": report.self_reported,
    }
    decided = Decided(
        key=(report.run_id, report_hash, decided_as),
        new={"decision": decided_as, "run_id": report.run_id, **new},
        inputs={"report": report_hash, "inputs": inputs_hash},
        reason=report.reason,
    )
    return decision("gate.decided", model_subject(report.model_name), environment, by, decided)


def approval_event(approval: Approval, environment: str, by: Actor | AuditActor) -> AuditEvent:
    """Return the event of a person's approval of an inconclusive gate.

    :param approval: the approval as it is stored.
    :param environment: dev, test or prod.
    :param by: who recorded it.
    """
    approved = Decision.APPROVED.value
    decided = Decided(
        key=(approval.run_id, approval.report_hash, approved),
        new={"decision": approved, "run_id": approval.run_id, "by": approval.by, "at": approval.at},
        inputs={"report": approval.report_hash},
        reason=approval.reason,
    )
    return decision("gate.decided", model_subject(approval.model_name), environment, by, decided)


def drift_event(model_name: str, summary: DriftSummary, environment: str, by: Actor | AuditActor) -> AuditEvent:
    """Return the event of a drift check.

    :param model_name: registered model of the data.
    :param summary: what was measured.
    :param environment: dev, test or prod.
    :param by: who compared.
    """
    result = summary.result
    new = {"verdict": result.verdict, "drift_share": result.drift_share, "drifted_columns": summary.drifted_columns}
    decided = Decided(key=(summary.run_id,), new={"run_id": summary.run_id, **new}, reason=result.reason)
    return decision("drift.decided", model_subject(model_name), environment, by, decided)


def quality_event(model_name: str, summary: QualitySummary, environment: str, by: Actor | AuditActor) -> AuditEvent:
    """Return the event of a quality check.

    :param model_name: registered model.
    :param summary: what was measured.
    :param environment: dev, test or prod.
    :param by: who judged.
    """
    newest = summary.judged[-1]
    new = {"verdict": summary.verdict, "window": newest.name, "labelled_share": newest.labelled_share}
    decided = Decided(key=(summary.run_id,), new={"run_id": summary.run_id, **new}, reason=summary.reason)
    return decision("quality.decided", model_subject(model_name), environment, by, decided)


def rollout_event(
    action: str, model_name: str, document: RolloutDocument, environment: str, by: Actor | AuditActor
) -> AuditEvent:
    """Return the event of a step of a rollout.

    :param action: :data:`STEP_INTENDED` or :data:`STEP_TAKEN`.
    :param model_name: registered model.
    :param document: the step, as it is written.
    :param environment: dev, test or prod.
    :param by: who steps.
    """
    step = {
        "rollout": document.identity,
        "generation": document.generation,
        "phase": document.phase,
        "weight": document.weight,
        "stable": document.stable,
        "canary": document.canary,
        "run_id": document.run_id,
    }
    # The weight and the phase too: of two writers that intend the same generation, one only takes its step.
    key = (document.identity, document.generation, document.phase, repr(document.weight))
    decided = Decided(key=key, new=step, reason=document.reason)
    return decision(action, model_subject(model_name), environment, by, decided)


class DeploymentChange(NamedTuple):
    """A change of a model server on Kubernetes."""

    identity: str
    """Identity of the task that changes it."""
    facts: Mapping[str, Any]
    """``deployment`` and ``namespace``, and what is wanted or was found."""
    inputs: Mapping[str, str] = MappingProxyType({})
    """Hashes of the objects that are applied."""
    reason: str = ""


def deployment_event(action: str, change: DeploymentChange, environment: str, by: Actor | AuditActor) -> AuditEvent:
    """Return the event of a change of a model server.

    :param action: :data:`DEPLOYMENT_INTENDED` or :data:`DEPLOYMENT_ENDED`.
    :param change: the change.
    :param environment: dev, test or prod.
    :param by: who changes it.
    """
    facts = dict(change.facts)
    subject = f"deployment:{facts['namespace']}/{facts['deployment']}"
    # A cleared task that finds other pods records another end.
    key = (change.identity, content_hash(canonical_json(facts).encode()))
    decided = Decided(key=key, new=facts, inputs=change.inputs, reason=change.reason)
    return decision(action, subject, environment, by, decided)


def step_intent(document: RolloutDocument, intents: Iterable[Record]) -> Record | None:
    """Return the latest intent of a step of a rollout; None when it has none.

    :param document: the step, as it is written.
    :param intents: records of intents of the model, oldest first.
    """
    step, found = (document.identity, document.generation), None
    for each in intents:
        new = each.event["new"] or {}
        if (new.get("rollout"), new.get("generation")) == step:
            found = each
    return found
