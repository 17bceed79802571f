"""Carries out an action: checks that it still makes sense, and triggers its Dag under the caller's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request

from airflow_mcp.core.argument import NO_CHAMPION
from airflow_mcp.core.audit.event import without_credentials
from airflow_mcp.core.panel.actions import (
    KINDS,
    REASON_LENGTH,
    ActionName,
    Operation,
    choices,
    dag_conf,
    operation_key,
)
from airflow_mcp.core.panel.facts import ModelFacts
from airflow_mcp.core.registry.moves import storable_text
from airflow_mcp.core.retrain.documents import (
    CONTROL_KEY,
    Controls,
    add_control,
    label,
    ledger_name,
    plain_document,
    read_document,
    words,
)
from airflow_mcp.plugins.access import Caller
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.problems import UNCHANGED, Problem
from airflow_mcp.plugins.routes_pages import dag_of_action, read_facts, refusal_of
from airflow_mcp.plugins.services import Services

MAX_KEY_LENGTH = 200


@dataclass(frozen=True)
class Wanted:
    """What a caller asks for."""

    action: ActionName
    key: str
    """Idempotency key."""
    reason: str
    expected_champion: str = ""
    """Champion that the caller saw, or ``none``; empty: it is not compared."""
    version: str = ""

    def __post_init__(self) -> None:
        """Check what every action needs.

        :raises Problem: naming the member that is wrong.
        """
        if not self.reason.strip() or len(self.reason) > REASON_LENGTH:
            raise Problem("invalid-request", f"Say why: reason has 1 to {REASON_LENGTH} characters. {UNCHANGED}")
        if not self.key or len(self.key) > MAX_KEY_LENGTH or not self.key.isprintable():
            raise Problem(
                "invalid-request", f"The idempotency key has 1 to {MAX_KEY_LENGTH} printable characters. {UNCHANGED}"
            )
        if self.version and not (self.version.isascii() and self.version.isdigit()):
            raise Problem("invalid-request", f"A version is a whole number. {UNCHANGED}")


async def perform(services: Services, request: Request, name: str, wanted: Wanted) -> Operation | None:
    """Carry out an action on a model.

    :param services: what the routes work with.
    :param request: the request.
    :param name: the model.
    :param wanted: what is asked for.
    :return: the operation; None when it is done already, which only changes of a retrain ledger are.
    :raises Problem: when it is not possible; nothing was changed.
    """
    caller: Caller = request.state.caller
    services.access.count_write(caller)
    services.reader.forget(name)
    facts, _ = await read_facts(services, request, name)
    champion = facts.standing.champion or NO_CHAMPION
    operation = Operation(
        dag_of_action(services, facts, wanted.action), wanted.action, operation_key(caller.name, name, wanted.key)
    )
    async with services.airflow_of(request) as airflow:
        known = await known_run(services, caller, airflow, operation)
        if known is None:
            # Of a repeated request nothing is checked again: it succeeded, and so the world has changed.
            _require_possible(services, request, facts, wanted, champion)
        if wanted.action in ("pause-retraining", "resume-retraining"):
            await _control(airflow, caller, name, wanted)
            return None
        conf = dag_conf(wanted.action, facts, version=wanted.version, reason=storable_reason(wanted.reason))
        if known is not None and wanted.action == "promote" and wanted.expected_champion:
            conf["expected_champion"] = wanted.expected_champion
        await trigger(services, airflow, operation, conf, wanted.reason, known)
    services.reader.forget(name)
    return operation


def _require_possible(services: Services, request: Request, facts: ModelFacts, wanted: Wanted, champion: str) -> None:
    if wanted.expected_champion and wanted.expected_champion != champion:
        text = f"When you looked, the champion was {wanted.expected_champion}; it is {champion} now. {UNCHANGED}"
        raise Problem("champion-moved", text, champion=champion)
    refused = refusal_of(services, request, facts, wanted.action)
    if refused is not None:
        is_right = refused.is_right
        said = f"{refused.text.format_map(refused.values)} {UNCHANGED}"
        raise Problem("not-allowed" if is_right else "action-not-available", said)
    if KINDS[wanted.action].chooses and wanted.version not in {each.number for each in choices(wanted.action, facts)}:
        raise Problem("action-not-available", f"Version {wanted.version or 'none'} cannot be chosen. {UNCHANGED}")


async def known_run(
    services: Services, caller: Caller, airflow: AirflowRest, operation: Operation
) -> dict[str, Any] | None:
    """Return the Dag run of an operation that was asked for before; None when there is none."""
    if not operation.dag_id or not services.access.may(caller, "read", operation.dag_id):
        return None
    return await airflow.dag_run(operation)


async def trigger(
    services: Services,
    airflow: AirflowRest,
    operation: Operation,
    conf: Mapping[str, Any],
    reason: str,
    known: dict[str, Any] | None,
) -> None:
    """Trigger the Dag of an operation, once for all requests with the same key.

    :param services: what the routes work with.
    :param airflow: Airflow as the caller sees it.
    :param operation: names the Dag run.
    :param conf: conf of the Dag run.
    :param reason: note on the Dag run.
    :param known: the Dag run that exists already; None when there is none.
    :raises Problem: when the Dag would not run, or the key was used for another request.
    """
    if known is None:
        ready = await airflow.dag_is_ready(operation.dag_id)
        if not ready:
            state = "is paused or broken" if ready is False else "does not exist"
            raise Problem("action-not-available", f"The Dag {operation.dag_id} {state}. {UNCHANGED}")
        if await airflow.trigger(operation, conf, storable_reason(reason)) is not None:
            return
        known = await airflow.dag_run(operation)  # another process was faster
    if known is not None and _compared(known.get("conf") or {}) != _compared(conf):
        raise Problem("idempotency-key-reused")


def _compared(conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two requests with one key must have in common: each request has an ID of its own."""
    return {name: value for name, value in conf.items() if name != "request_id"}


async def _control(airflow: AirflowRest, caller: Caller, name: str, wanted: Wanted) -> None:
    """Write a pause or resume into the retrain ledger: Airflow checks the caller's right, and its own log has the name.

    No Dag can do it: Airflow gives a task only the ledgers that are known when its Dag is parsed.
    """
    asset = await airflow.asset_id(ledger_name(name))
    if asset is None:
        raise Problem("action-not-available", f"This model has no retrain ledger. {UNCHANGED}")
    controls = read_document(Controls, await airflow.state(asset, CONTROL_KEY), name)
    control = {
        "action": wanted.action.partition("-")[0],
        "by": label(caller.name),
        "at": datetime.now(UTC),
        "reason": words(storable_reason(wanted.reason)),
    }
    await airflow.set_state(asset, CONTROL_KEY, plain_document(add_control(controls, control)))


def storable_reason(reason: str) -> str:
    """Return a reason as it is kept, without what looks like a credential."""
    return without_credentials(storable_text(reason.strip()))
