"""``airflow-mcp retrain``: show why a model is or is not retrained; pause and resume retraining."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mcp.cli.governance import governance, require_permission
from airflow_mcp.cli.options import add_format
from airflow_mcp.cli.registry_server import actor_of
from airflow_mcp.core.argument import closest
from airflow_mcp.core.audit.decisions import retrain_decided
from airflow_mcp.core.audit.event import without_credentials
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.retrain.documents import label, ledger_name, words
from airflow_mcp.core.retrain.ledger import replay
from airflow_mcp.core.retrain.status import retrain_status
from airflow_mcp.exceptions import AirflowApiError, InvalidArgumentError
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.registry.recording import record
from airflow_mcp.registry.retrain_ledger import RetrainLedger

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.registry.governance import Governance

_URL, _TOKEN = "AIRFLOW_MCP_AIRFLOW_URL", "AIRFLOW_MCP_AIRFLOW_TOKEN"
_MOST_LEDGERS = 20
"""Number of ledgers that a message names."""
_USER, _PASSWORD = "AIRFLOW_MCP_AIRFLOW_USER", "AIRFLOW_MCP_AIRFLOW_PASSWORD"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions ``status``, ``pause``, ``resume`` and ``replay``."""
    actions = command.add_subparsers(dest="action", required=True)
    for name, what in (
        ("status", "the last decision, what is needed, and the latest trainings"),
        ("pause", "trigger no training until somebody resumes"),
        ("resume", "end a pause, or the stop after rejected challengers"),
        ("replay", "make every decision of the ledger again and compare"),
    ):
        action = actions.add_parser(name, help=what, description=what)
        action.add_argument("model_name", help="registered model")
        add_ledger(action)
        if name in ("pause", "resume"):
            action.add_argument("--reason", default="", help="why; kept with the ledger")
        add_format(action)


def add_ledger(action: argparse.ArgumentParser) -> None:
    """Add the arguments that say where a ledger is."""
    action.add_argument("--airflow-url", default="", help=f"Airflow's API server; default: {_URL}")
    action.add_argument("--user", default="", help=f"Airflow user; default: {_USER}")
    action.add_argument("--ledger", default="", help="asset that holds the ledger; default: retrain/<model>")


def run(parsed: argparse.Namespace) -> int:
    """Read or change the ledger through Airflow's REST API."""
    with connect(parsed) as api:
        ledger = open_ledger(api, parsed.model_name, parsed.ledger)
        document = _do(ledger, parsed, api) if parsed.action in _CONTROLS else _DOCUMENTS[parsed.action](ledger)
    text = json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(_TEXTS[parsed.action](document))
    print(text)
    return 1 if document.get("differs") else 0


def connect(parsed: argparse.Namespace) -> AirflowApi:
    """Connect with address and credentials; a password is never a command line argument.

    :param parsed: arguments of :func:`add_ledger`.
    :raises InvalidArgumentError: when address or credentials are missing.
    """
    url = (parsed.airflow_url or os.environ.get(_URL, "")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"--airflow-url must be the http:// or https:// address of Airflow's API server; got {url!r}. It can "
            f"also be set in {_URL}"
        )
    token, user = os.environ.get(_TOKEN, ""), parsed.user or os.environ.get(_USER, "")
    if token:
        return AirflowApi(url, token=token)
    if not user:
        raise InvalidArgumentError(f"no credentials: set {_TOKEN}, or {_USER} (or --user) and {_PASSWORD}")
    password = os.environ.get(_PASSWORD, "")
    if not password and sys.stdin.isatty():
        password = getpass.getpass(f"Password of {user} on {url}: ")
    if not password:
        raise InvalidArgumentError(f"no password for {user}: set {_PASSWORD}, or run this in a terminal to be asked")
    return AirflowApi(url, user=user, password=password)


def open_ledger(api: AirflowApi, model_name: str, asset: str) -> RetrainLedger:
    """Return the ledger of a model.

    :param api: open connection.
    :param model_name: registered model.
    :param asset: asset that holds the ledger; empty: the one named after the model.
    :raises AirflowApiError: when Airflow has no such asset, or does not answer.
    """
    name = asset or ledger_name(model_name)
    found = api.asset_names(name)
    if name in found:
        return RetrainLedger(api.state_store(found[name]), model_name)
    others = sorted(each for each in api.asset_names("retrain/") if each.startswith("retrain/"))
    near, shown = (
        closest(model_name, [each.removeprefix("retrain/") for each in others]),
        ", ".join(others[:_MOST_LEDGERS]) or "none",
    )
    hint = f"Did you mean {near!r}? " if near else ""
    more = f" and {len(others) - _MOST_LEDGERS} more" if len(others) > _MOST_LEDGERS else ""
    raise AirflowApiError(
        f"Airflow at {api.url} has no asset {name!r}: no Dag with a RetrainTriggerOperator for "
        f"{model_name!r} has been parsed. {hint}Ledgers there are: {shown}{more}",
        404,
    )


def _who(parsed: argparse.Namespace) -> str:
    return label(parsed.user or os.environ.get(_USER, "") or getpass.getuser())


# --- actions and answers, as plain JSON values ----------------------------------------------------------------------


def _do(ledger: RetrainLedger, parsed: argparse.Namespace, api: AirflowApi) -> dict[str, Any]:
    """Pause or resume, unless that is the state already, and record it in the audit log."""
    governed = governance()
    by = actor_of(api) if governed.open_log is not None else None
    if by is not None and governed.open_log is not None and not governed.off_reason:
        require_permission(governed.open_log(), model_subject(ledger.model_name), "retrain", by)
    before = _status(ledger)
    if parsed.action == "pause":
        is_done = before["paused"] is not None
    else:
        is_done = before["paused"] is None and not before["stopped"]
    if not is_done:
        ledger.control(parsed.action, _who(parsed), datetime.now(UTC), words(parsed.reason))
    if by is not None:
        _record(ledger, parsed.action, governed, by)
    return {"action": parsed.action, "changed": not is_done, **(before if is_done else _status(ledger))}


def _record(ledger: RetrainLedger, action: str, governed: Governance, by: Actor) -> None:
    """Record the latest pause or resume, also one of an earlier call that did not reach the log; once."""
    controls = ledger.controls().entries
    if not controls or controls[-1].action != action:
        return
    last = controls[-1]
    entry = {"entry": action, "number": last.seq, "by": last.by, "reason": without_credentials(last.reason)}
    key = (action, last.seq, last.at.isoformat())
    record(governed, lambda environment: retrain_decided(ledger.model_name, key, environment, by, entry))


def _status(ledger: RetrainLedger) -> dict[str, Any]:
    return retrain_status(ledger.ledger(), ledger.outcomes(), ledger.controls())


def _replay(ledger: RetrainLedger) -> dict[str, Any]:
    book = ledger.ledger()
    differences = replay(book)
    return {
        "model_name": book.model_name,
        "decisions": len(book.entries),
        "first": book.entries[0].seq if book.entries else None,
        "differs": [
            {"seq": each.seq, "recorded": each.recorded.explanation, "replayed": each.replayed.explanation}
            for each in differences
        ],
    }


# --- the same for people ---------------------------------------------------------------------------------------------


def _status_text(document: Mapping[str, Any]) -> list[str]:
    last = document["last_decision"]
    lines = [f"{document['model_name']}: " + (last["explanation"] if last else "no decision has been made yet")]
    if last:
        lines.append(f"  decision {last['seq']} at {last['at']} by {last['by']}")
    lines += ["", *_standing_text(document)]
    if document["trainings"]:
        lines += ["", "trainings, the latest first:"]
        lines += [line for training in reversed(document["trainings"]) for line in _training_text(training)]
    known = {(training["dag_id"], training["run_id"]) for training in document["trainings"]}
    others = [each for each in document["reported_since"] if (each["dag_id"], each["run_id"]) not in known]
    if others:
        lines += ["", "trainings that ended and that no decision has taken into account yet, the latest first:"]
        lines += [line for report in reversed(others) for line in _report_text(report)]
    return lines


def _standing_text(document: Mapping[str, Any]) -> list[str]:
    paused, needed = document["paused"], document["needed"]
    rejected = f"{document['rejected_in_a_row']} in a row (limit {document['max_rejections'] or 'none'})"
    why = f": {paused['reason']}" if paused and paused["reason"] else ""
    drift = "no"
    if needed:
        times = f", asked for {needed['times']} times" if needed["times"] > 1 else ""
        drift = f"yes, data version {needed['data_version']} drifted{times} since {needed['since']}"
    return [
        f"  {'paused':<10} " + (f"by {paused['by']} at {paused['at']}{why}" if paused else "no"),
        f"  {'stopped':<10} "
        + (
            f"yes, challengers rejected: {rejected}; look at their gate reports, then resume"
            if document["stopped"]
            else f"no, challengers rejected: {rejected}"
        ),
        f"  {'needed':<10} {drift}",
        f"  {'windows':<10} " + (", ".join(f"{each['verdict']}" for each in document["windows"][-5:]) or "none"),
    ]


def _training_text(training: Mapping[str, Any]) -> list[str]:
    detail = f": {training['detail']}" if training["detail"] else ""
    return [
        f"  {training['at']}  {training['outcome'] or 'in progress'}{detail}",
        f"    {training['dag_id']} {training['run_id']}",
        f"    {training['reason']}",
    ]


def _report_text(report: Mapping[str, Any]) -> list[str]:
    detail = f": {report['detail']}" if report["detail"] else ""
    return [f"  {report['at']}  {report['outcome']}{detail}", f"    {report['dag_id']} {report['run_id']}"]


def _control_text(document: Mapping[str, Any]) -> list[str]:
    name, action = document["model_name"], document["action"]
    if not document["changed"]:
        state = "paused already" if action == "pause" else "neither paused nor stopped"
        return [f"{name} is {state}; nothing was changed", *_standing_text(document)]
    if action == "pause":
        return [
            f"{name} is paused: no training is triggered until somebody resumes it; a training in progress continues"
        ]
    return [f"{name} is resumed: the next decision may trigger a training again"]


def _replay_text(document: Mapping[str, Any]) -> list[str]:
    lines = [f"{document['model_name']}: {document['decisions']} decisions replayed"]
    for each in document["differs"]:
        lines += [
            f"  decision {each['seq']} differs",
            f"    recorded  {each['recorded']}",
            f"    replayed  {each['replayed']}",
        ]
    return lines if document["differs"] else [f"{lines[0]}, all with the recorded result"]


_CONTROLS = ("pause", "resume")
_DOCUMENTS: Mapping[str, Callable[[RetrainLedger], dict[str, Any]]] = {"status": _status, "replay": _replay}
_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "status": _status_text,
    "pause": _control_text,
    "resume": _control_text,
    "replay": _replay_text,
}
