"""``airflow-mcp audit``: create, list, verify, export, checkpoint, reconcile and erase in the audit log."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from typing import TYPE_CHECKING

from airflow_mcp.audit.checkpoints import seal
from airflow_mcp.audit.stores import create_log, open_log
from airflow_mcp.cli import audit_replay as replay
from airflow_mcp.cli.audit_verify import add_proof, add_verify, read_bytes, run_proof, run_verify
from airflow_mcp.cli.governance import audit_user, read_log, require_permission, required_settings
from airflow_mcp.cli.options import add_action, add_format, add_tracking_uri, print_answer
from airflow_mcp.cli.registry_server import actor, registry_server, require_reason
from airflow_mcp.core.audit.event import AuditEvent
from airflow_mcp.core.audit.log import MOST_LISTED, created, erasure, export, listing
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.core.audit.timeline import Happening, in_short, timeline
from airflow_mcp.core.serving.replica_events import PATH_EVENTS
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError, ServerUnreachableError
from airflow_mcp.hooks.audit_anchors import anchors_of
from airflow_mcp.hooks.replica_metrics import ReplicaAddresses, read_addresses
from airflow_mcp.registry.aliases import as_taken
from airflow_mcp.registry.reconcile import reconcile

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import RegisteredModel


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = command.add_subparsers(dest="action", required=True)
    init = add_action(actions, "init", "create the log, and set what each login of PostgreSQL may append", _init)
    init.add_argument(
        *("--grant", "-g"),
        action="append",
        default=[],
        metavar="LOGIN=ACTIONS",
        help="replace the rights of a login: beginnings of actions, with commas, such as registry.,promotion.; "
        "audit.read may list, audit.exported may export and verify",
    )
    shown = add_action(actions, "list", "show the latest records; that is recorded too", _list)
    shown.add_argument("--model", default="", metavar="NAME", help="all about one registered model, as one timeline")
    shown.add_argument("--subject", default="", help="such as model:NAME; default: all")
    shown.add_argument("--event", default="", metavar="ACTION", help="how the action begins; default: all")
    shown.add_argument("--limit", type=int, default=50, metavar="N", help=f"1 to {MOST_LISTED}; default: 50")
    add_tracking_uri(shown)
    out = add_action(actions, "export", "write the whole log as JSON Lines; that is recorded too", _export)
    out.add_argument("file", help="file to write, which must not exist; - for stdout")
    out.add_argument("--reason", required=True, help="what for; recorded")
    add_verify(add_action(actions, "verify", "check an export offline, or the log itself", run_verify))
    add_proof(add_action(actions, "proof", "prove offline that one record is in the log of a checkpoint", run_proof))
    sealed = add_action(
        actions, "checkpoint", "verify the log and write its size and root as a signed note", _checkpoint
    )
    sealed.add_argument("--key", required=True, metavar="FILE", help="private Ed25519 key, PEM")
    sealed.add_argument(
        *("--to", "-t"),
        action="append",
        required=True,
        metavar="ADDRESS",
        help="where to write it: a folder, s3://bucket/prefix, git+https://host/repo.git#branch, mlflow:MODEL; may be "
        "given again",
    )
    add_tracking_uri(sealed)
    what = "make a past move or decision on retraining again from what was recorded; say what differs"
    past = add_action(actions, "replay", what, replay.run)
    replay.add_arguments(past)
    again = add_action(actions, "reconcile", "record what MLflow and model servers have and the log missed", _reconcile)
    again.add_argument("--servers", default="", help="model servers, such as fraud-headless.ml.svc:8000")
    add_tracking_uri(again)
    erase = add_action(actions, "erase", "erase what one record says about people; its hash stays", _erase)
    erase.add_argument("seq", type=int, help="sequence number of the record")
    erase.add_argument("--reason", required=True, help="why, without personal data; recorded")
    for action in (init, shown, out, sealed, again, erase):
        add_format(action)


def run(parsed: argparse.Namespace) -> int:
    """Run the action; 1 from ``verify`` means that the log was tampered with, 2 that nothing can be said."""
    return int(parsed.answer(parsed))


def _init(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    rights = dict(_grant(text) for text in parsed.grant)
    is_new = create_log(settings, created(audit_user(), settings.environment), rights)
    lines = [f"{settings.name}: the audit log {'was created' if is_new else 'exists'}"]
    lines += [f"{login} may append {', '.join(actions) or 'nothing'}" for login, actions in rights.items()]
    print_answer(parsed, {"log": settings.name, "created": is_new, "granted": rights}, lines)
    return 0


def _grant(text: str) -> tuple[str, tuple[str, ...]]:
    login, found, actions = text.partition("=")
    if not (login and found):
        raise InvalidArgumentError(f"--grant must be LOGIN=ACTIONS, such as mcp_release=registry.; got {text!r}")
    return login, tuple(filter(None, actions.split(",")))


def _list(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    event = listing(
        *(audit_user(), settings.environment),
        limit=parsed.limit,
        subject=parsed.subject,
        action=parsed.event,
        model=parsed.model,
    )
    with closing(open_log(settings)) as log:
        records = [read_record(raw.decode()) for raw in read_log(log, event)]
    if parsed.model:
        happenings = timeline(records, _registered(parsed), is_complete=len(records) < parsed.limit)
        for each in happenings:
            print(json.dumps(each.to_json(), ensure_ascii=False) if parsed.format == "json" else _happening(each))
        return 0
    for record in records:
        print(record.line if parsed.format == "json" else _shown(record))
    return 0


def _registered(parsed: argparse.Namespace) -> RegisteredModel | None:
    """Return the model as MLflow has it; None, with a warning, when MLflow does not answer."""
    try:
        with registry_server(parsed) as mlflow:
            return as_taken(mlflow, mlflow.get_registered_model(parsed.model))
    except (MlflowError, InvalidArgumentError) as error:
        print(f"warning: only what the log has is shown: {error}", file=sys.stderr)
        return None


def _happening(entry: Happening) -> str:
    late, reason = " LATE" if entry.late else "", f": {entry.reason}" if entry.reason else ""
    place = f"{entry.seq:>8}" if entry.seq else "  NO LOG"
    return (
        f"{place}  {entry.at.isoformat(timespec='seconds')}  {entry.action}{late}  {entry.subject}  {entry.says}\n"
        f"{'':>8}  by {entry.by}{reason}"
    )


def _shown(record: Record) -> str:
    event = record.event
    if event.get("erased"):
        return f"{record.seq:>8}  {record.recorded_at}  {event['action']}  {event['subject']}  (erased)"
    late, reason = " LATE" if event["late"] else "", f": {event['reason']}" if event["reason"] else ""
    changed = f"  {in_short(event['old'])} -> {in_short(event['new'])}" if event["new"] else ""
    return (
        f"{record.seq:>8}  {record.recorded_at}  {event['action']}{late}  {event['subject']}{changed}\n"
        f"{'':>8}  by {event['actor']['name']} ({event['actor']['kind']}, login {record.by}){reason}"
    )


def _export(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    event = export(audit_user(), settings.environment, reason=parsed.reason)
    number = 0
    with closing(open_log(settings)) as log:
        lines = read_log(log, event)
        if parsed.file == "-":
            for line in lines:
                sys.stdout.write(line.decode() + "\n")
            return 0
        first = next(lines)  # a refusal comes before the file is made
        try:
            # 0600: the log names people.
            descriptor = os.open(parsed.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError as error:
            raise InvalidArgumentError(f"file must be a new file; got {parsed.file!r}: {error.strerror}") from None
        with os.fdopen(descriptor, "wb") as file:
            for number, line in enumerate(chain([first], lines), 1):  # noqa: B007  (the last one is their number)
                file.write(line + b"\n")
    said = f"{parsed.file}: {number} records of {settings.name}; the export is the last of them"
    print_answer(parsed, {"file": parsed.file, "records": number, "log": settings.name}, [said])
    return 0


def _checkpoint(parsed: argparse.Namespace) -> int:
    settings, signer = required_settings(), PrivateKey(read_bytes(parsed.key))
    with closing(open_log(settings)) as log, ExitStack() as opened:
        require_permission(log, "audit", "read", actor())
        is_tagged = any(place.startswith("mlflow:") for place in parsed.to)
        anchors = anchors_of(parsed.to, opened.enter_context(registry_server(parsed)) if is_tagged else None)
        sealed = seal(log, anchors, signer, audit_user(), settings.environment)
    found = sealed.found
    if not found.is_whole:
        said = f"TAMPERED: {found.problem}. No checkpoint was written"
        print_answer(parsed, {"whole": False, "problem": found.problem, "written": [], "failed": {}}, [said])
        return 1
    checked = f"checkpoint of {found.records} records, verified from seq {sealed.verified_from} on"
    lines = [f"{place}: {checked}" for place in sealed.places]
    lines += [f"FAILED {place}: {problem}" for place, problem in sealed.failed.items()]
    document = {
        "whole": True,
        "records": found.records,
        "verified_from": sealed.verified_from,
        "written": list(sealed.places),
        "failed": dict(sealed.failed),
    }
    print_answer(parsed, document, lines)
    return 1 if sealed.failed else 0


def _erase(parsed: argparse.Namespace) -> int:
    require_reason(parsed.reason)
    settings = required_settings()
    event = erasure(audit_user(), settings.environment, seq=parsed.seq, reason=parsed.reason)
    with closing(open_log(settings)) as log:
        appended = log.erase(event)
    done = "is erased" if appended.is_new else "was erased before"
    said = f"the content of seq {parsed.seq} {done}; seq {appended.seq} says so. Its hash and its place stay"
    print_answer(parsed, {"seq": parsed.seq, "erased": appended.is_new, "recorded_as": appended.seq}, [said])
    return 0


def _reconcile(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    with registry_server(parsed) as mlflow, closing(open_log(settings)) as log:
        require_permission(log, "audit", "read", actor())
        pages, silent = _pages(parsed.servers)
        done = reconcile(mlflow, log, settings.environment, audit_user(), pages)
    problems = (*silent, *done.problems)
    if parsed.format == "json":
        added = [json.loads(event.text) for event in done.added]
        print(json.dumps({"added": added, "problems": list(problems)}, indent=2))
    else:
        print("\n".join(_reconciled_text(done.added, problems)))
    return 1 if problems else 0


def _pages(servers: str) -> tuple[dict[str, str], list[str]]:
    """Return the events of every replica, and what did not answer: what is pulled later is not lost."""
    if not servers:
        return {}, []
    try:
        found = asyncio.run(ReplicaAddresses(read_addresses(servers)).read(PATH_EVENTS))
    except ServerUnreachableError as error:
        return {}, [str(error)]
    return {each.replica: each.text for each in found}, []


def _reconciled_text(added: Sequence[AuditEvent], problems: Sequence[str]) -> Iterator[str]:
    yield f"{len(added)} events were missing, and were recorded"
    for event in added:
        before = f"{in_short(dict(event.old))} -> " if event.old else ""
        yield f"  {event.action}  {event.subject}  {before}{in_short(dict(event.new or {}))}"
    yield from (f"PROBLEM {problem}" for problem in problems)
