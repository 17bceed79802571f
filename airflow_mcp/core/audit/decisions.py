"""The events of decisions: each is made from what was stored about the decision, and from nothing else.

So a retry, and a reconciliation that finds the decision later, record the same facts under the same ID. Only who acted
may differ, because the stored decision does not always name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id, without_credentials
from airflow_mcp.core.audit.moves import audit_actor, model_subject
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.load_check import LoadCheck

FOUND_LATER = AuditActor("system", "reconcile")
"""Who records a decision whose actor is not known any more."""
_LONGEST_REASON = 2000
"""Characters of a reason in an event; the whole text is in the report."""


def version_subject(model_name: str, version: str) -> str:
    """Return the subject of events about a model version."""
    return f"version:{model_name}/{version}"


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What was decided, as it was stored."""

    key: tuple[str | int, ...]
    """What makes it this decision and no other."""
    new: Mapping[str, Any]
    """The decision, as JSON; a number with a fraction becomes text."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name to ``sha256:`` of the evidence; empty ones are left out."""
    reason: str = ""


def decision(action: str, subject: str, environment: str, by: Actor | AuditActor, decided: Decided) -> AuditEvent:
    """Return the event of a decision.

    :param action: what was decided.
    :param subject: about what.
    :param environment: dev, test or prod.
    :param by: who decided; an :class:`~airflow_mcp.core.audit.event.AuditActor` for what is recorded late.
    :param decided: the decision.
    """
    task = None if isinstance(by, AuditActor) else by.task
    return AuditEvent(
        id=event_id(action, subject, *decided.key),
        action=action,
        subject=subject,
        environment=environment,
        actor=by if isinstance(by, AuditActor) else audit_actor(by),
        task=task,
        new={name: plain(value) for name, value in decided.new.items()},
        inputs={name: value for name, value in decided.inputs.items() if value},
        reason=without_credentials(decided.reason[:_LONGEST_REASON]),
        late=isinstance(by, AuditActor),
    )


def plain(value: Any) -> Any:
    """Return a value as events hold it: a number with a fraction as text, and no text with a credential."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


def version_registered(version: ModelVersion, environment: str, by: Actor | AuditActor) -> AuditEvent:
    """Return the event of a version that was registered, or copied from another registered model.

    :param version: the version, with its tags.
    :param environment: dev, test or prod.
    :param by: who registered it.
    """
    origin = version.tags.get(contract.TAG_COPY_OF, "")
    new = {"version": version.version, "source": version.source, "run_id": version.run_id}
    decided = Decided(
        key=(version.source, origin),
        new={**new, "copy_of": origin} if origin else new,
        inputs={"files": version.tags.get(contract.TAG_MODEL_DIGEST, "")} if origin else {},
    )
    action = "version.copied" if origin else "version.registered"
    return decision(action, version_subject(version.name, version.version), environment, by, decided)


def load_check_decided(
    model_name: str, version: str, check: LoadCheck, environment: str, by: Actor | AuditActor
) -> AuditEvent:
    """Return the event of a load check.

    :param model_name: registered model.
    :param version: number of the version that was checked.
    :param check: the check as the version's tags keep it.
    :param environment: dev, test or prod.
    :param by: who checked.
    """
    decided = Decided(
        key=(check.run_id, check.at),
        new={"verdict": check.verdict, "run_id": check.run_id, "image": check.image},
        inputs={"files": check.digest},
    )
    return decision("load_check.decided", version_subject(model_name, version), environment, by, decided)


def retrain_decided(
    model_name: str,
    key: tuple[str | int, ...],
    environment: str,
    by: Actor | AuditActor,
    new: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
) -> AuditEvent:
    """Return the event of an entry in the ledger of retraining: a decision, an outcome, a pause or a resume.

    :param model_name: registered model.
    :param key: kind and number of the entry.
    :param environment: dev, test or prod.
    :param by: who decided.
    :param new: the entry.
    :param inputs: name to ``sha256:`` of what the entry rests on.
    """
    decided = Decided(key=key, new=new, inputs=inputs or {})
    return decision("retrain.decided", model_subject(model_name), environment, by, decided)
