"""``airflow-mcp audit``: create, list, verify, export, checkpoint and reconcile the audit log."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_mcp.audit.stores import create_log, open_log
from airflow_mcp.cli.governance import audit_user, required_settings
from airflow_mcp.cli.options import add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import registry_server
from airflow_mcp.core.audit.checkpoint import Checkpoint, read_checkpoint, sign
from airflow_mcp.core.audit.event import AuditEvent
from airflow_mcp.core.audit.log import MOST_LISTED, about_log, created, export, listing
from airflow_mcp.core.audit.record import read_record
from airflow_mcp.core.audit.verify import Verification, verify
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.registry.aliases import as_taken
from airflow_mcp.registry.reconcile import reconcile


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = command.add_subparsers(dest="action", required=True)
    init = _action(actions, "init", "create the log, and set what each login of PostgreSQL may append", _init)
    init.add_argument(
        *("--grant", "-g"),
        action="append",
        default=[],
        metavar="LOGIN=ACTIONS",
        help="replace the rights of a login: beginnings of actions, with commas, such as registry.,promotion.; "
        "audit.read may list, audit.exported may export and verify",
    )
    shown = _action(actions, "list", "show the latest records; that is recorded too", _list)
    shown.add_argument("--subject", default="", help="such as model:NAME; default: all")
    shown.add_argument("--event", default="", metavar="ACTION", help="how the action begins; default: all")
    shown.add_argument("--limit", type=int, default=50, metavar="N", help=f"1 to {MOST_LISTED}; default: 50")
    add_format(shown)
    out = _action(actions, "export", "write the whole log as JSON Lines; that is recorded too", _export)
    out.add_argument("file", help="file to write, which must not exist; - for stdout")
    out.add_argument("--reason", required=True, help="what for; recorded")
    check = _action(actions, "verify", "check an export offline, or the log itself", _verify)
    check.add_argument("file", nargs="?", help="an export; - for stdin; default: the log, which is exported for it")
    check.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="a signed checkpoint")
    check.add_argument("--key", metavar="FILE", help="public key of the checkpoints, PEM")
    check.add_argument("--deep", action="store_true", help="also check the canonical form of every record")
    add_format(check)
    sealed = _action(actions, "checkpoint", "verify the log and write its size and root as a signed note", _checkpoint)
    sealed.add_argument("--key", required=True, metavar="FILE", help="private Ed25519 key, PEM")
    sealed.add_argument(
        *("--to", "-t"), action="append", required=True, metavar="FOLDER", help="where to write it; may be given again"
    )
    again = _action(actions, "reconcile", "record the moves in MLflow that the log missed", _reconcile)
    add_tracking_uri(again)
    add_format(again)


def _action(actions: Any, name: str, what: str, answer: Any) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=what, description=what)
    action.set_defaults(answer=answer)
    return action


def run(parsed: argparse.Namespace) -> int:
    """Run the action; 1 from ``verify`` means that the log was tampered with, 2 that nothing can be said."""
    return int(parsed.answer(parsed))


def _init(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    rights = dict(_grant(text) for text in parsed.grant)
    is_new = create_log(settings, created(audit_user(), settings.environment), rights)
    print(f"{settings.name}: the audit log {'was created' if is_new else 'exists'}")
    for login, actions in rights.items():
        print(f"{login} may append {', '.join(actions) or 'nothing'}")
    return 0


def _grant(text: str) -> tuple[str, tuple[str, ...]]:
    login, found, actions = text.partition("=")
    if not (login and found):
        raise InvalidArgumentError(f"--grant must be LOGIN=ACTIONS, such as mcp_release=registry.; got {text!r}")
    return login, tuple(filter(None, actions.split(",")))


def _list(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    event = listing(audit_user(), settings.environment, limit=parsed.limit, subject=parsed.subject, action=parsed.event)
    with closing(open_log(settings)) as log:
        for raw in log.read(event):
            line = raw.decode()
            print(line if parsed.format == "json" else _shown(line))
    return 0


def _shown(line: str) -> str:
    record = read_record(line)
    event = record.event
    late, reason = " LATE" if event["late"] else "", f": {event['reason']}" if event["reason"] else ""
    changed = f"  {_short(event['old'])} -> {_short(event['new'])}" if event["new"] else ""
    return (
        f"{record.seq:>8}  {record.recorded_at}  {event['action']}{late}  {event['subject']}{changed}\n"
        f"{'':>8}  by {event['actor']['name']} ({event['actor']['kind']}, login {record.by}){reason}"
    )


def _short(values: dict[str, Any] | None) -> str:
    """Return the part of the values that people look for."""
    for key in ("champion", "stages", "version", "challenger"):
        if values and key in values:
            return f"{key} {values[key] or 'none'}" if not isinstance(values[key], dict) else str(values[key])
    return "none" if not values else ", ".join(f"{key} {value}" for key, value in list(values.items())[:3])


def _export(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    event = export(audit_user(), settings.environment, reason=parsed.reason)
    number = 0
    with closing(open_log(settings)) as log:
        lines = log.read(event)
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
    print(f"{parsed.file}: {number} records of {settings.name}; the export is the last of them")
    return 0


def _verify(parsed: argparse.Namespace) -> int:
    try:
        checkpoints = _checkpoints(parsed.checkpoint, parsed.key)
        found = _verified(parsed.file, checkpoints, deep=parsed.deep)
    except EvidenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if parsed.format == "json":
        print(json.dumps({**vars(found), "root": found.root.hex(), "is_whole": found.is_whole}, indent=2))
    elif found.is_whole:
        agreed = f"{found.checkpoints} checkpoints agree" if found.checkpoints else "no checkpoint was given"
        print(f"whole: {found.records} records of log {found.log_id}, root {found.root.hex()}; {agreed}")
        if not found.checkpoints:
            print("without a checkpoint, a cut end and a log that was written anew do not show")
    else:
        print(f"TAMPERED: {found.problem}; {found.records} records before it are whole")
    return 0 if found.is_whole else 1


def _verified(file: str | None, checkpoints: Sequence[Checkpoint], *, deep: bool) -> Verification:
    if file == "-":
        return verify(sys.stdin.buffer, checkpoints, deep=deep)
    if file:
        with _opened(file) as lines:
            return verify(lines, checkpoints, deep=deep)
    settings = required_settings()
    with closing(open_log(settings)) as log:
        lines = log.read(export(audit_user(), settings.environment, reason="verify"))
        found = verify(lines, checkpoints, deep=deep)
        said = {
            "records": found.records,
            "root": found.root.hex(),
            "is_whole": found.is_whole,
            "first_bad": found.first_bad,
        }
        log.append(about_log("audit.verified", audit_user(), settings.environment, said))
    return found


def _opened(file: str) -> Any:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise EvidenceError(f"{file} cannot be read: {error.strerror}. Nothing was verified") from None


def _checkpoints(files: Sequence[str], key: str | None) -> list[Checkpoint]:
    if bool(files) != bool(key):
        raise InvalidArgumentError("--checkpoint and --key must be given together; got one without the other")
    public = _bytes(key) if key else b""
    return [read_checkpoint(_bytes(file).decode(errors="replace"), public) for file in files]


def _bytes(file: str) -> bytes:
    with _opened(file) as opened:
        return bytes(opened.read())


def _checkpoint(parsed: argparse.Namespace) -> int:
    settings, private = required_settings(), _bytes(parsed.key)
    with closing(open_log(settings)) as log:
        found = verify(log.read(export(audit_user(), settings.environment, reason="checkpoint")))
        if not found.is_whole:
            print(f"TAMPERED: {found.problem}. No checkpoint was written")
            return 1
        note = sign(Checkpoint(found.log_id, found.records, found.root), private)
        written, failed = _write(note, f"{found.log_id}-{found.records:012}.txt", parsed.to)
        said = {"size": found.records, "root": found.root.hex(), "places": written}
        if written:
            log.append(about_log("audit.checkpointed", audit_user(), settings.environment, said))
        for place, problem in failed.items():
            what = {"size": found.records, "place": place, "problem": problem}
            log.append(about_log("audit.anchor_failed", audit_user(), settings.environment, what))
    for place in written:
        print(f"{place}: checkpoint of {found.records} records")
    for place, problem in failed.items():
        print(f"FAILED {place}: {problem}")
    return 1 if failed else 0


def _write(note: str, name: str, folders: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Write a note into every folder; a file that exists with another content is never replaced."""
    written, failed = [], {}
    for folder in folders:
        place = Path(folder) / quote(name, safe="")
        try:
            with place.open("x", encoding="utf-8") as file:
                file.write(note)
        except FileExistsError:
            if place.read_text(encoding="utf-8") != note:
                failed[str(place)] = "it exists with another content"
                continue
        except OSError as error:
            failed[str(place)] = error.strerror or str(error)
            continue
        written.append(str(place))
    return written, failed


def _reconcile(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    with registry_server(parsed) as mlflow, closing(open_log(settings)) as log:
        models = (as_taken(mlflow, model) for model in mlflow.search_registered_models())
        added = reconcile(models, log, settings.environment, audit_user())
    if parsed.format == "json":
        print(json.dumps([json.loads(event.text) for event in added], indent=2))
        return 0
    for line in _added_text(added):
        print(line)
    return 0


def _added_text(added: Sequence[AuditEvent]) -> Iterator[str]:
    yield f"{len(added)} events were missing, and were recorded"
    for event in added:
        yield f"  {event.action}  {event.subject}  {_short(dict(event.old or {}))} -> {_short(dict(event.new or {}))}"
