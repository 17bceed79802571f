"""``airflow-mcp audit replay``: makes a past decision again from log and evidence, and says what differs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import audit_user, read_log, require_permission, required_settings
from airflow_mcp.cli.options import add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import actor, registry_server
from airflow_mcp.cli.retrain import add_ledger, connect, open_ledger
from airflow_mcp.core import contract
from airflow_mcp.core.audit.log import export
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.gate.inputs import GateInputs, versions
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.replay.gate import replay_gate
from airflow_mcp.core.replay.move import FORWARD, RETRAIN, find_decision, gate_of, replay_move
from airflow_mcp.core.replay.result import Replayed
from airflow_mcp.core.replay.retrain import replay_retrain
from airflow_mcp.core.replay.rules import intent_of_move, replay_rules, subjects_of
from airflow_mcp.core.retrain.documents import Ledger, plain_document
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import DirectMlflow

LOG_FILE = "log.jsonl"
"""Records in a folder for offline use; artifacts are below it, as ``RUN/PATH``."""
LEDGER_FILE = "ledger.json"
"""The ledger of retraining in such a folder."""
_NEEDED = (
    *("registry.move", "gate.decided", "policy.", "approval.", "delegation.", "passport.issued", "rollout.step"),
    RETRAIN,
)
"""Beginnings of the actions of the records that are replayed, and of those that a move rests on."""
EXIT_CODES = {"identical": 0, "different": 1, "impossible": 2}
Fetch = Callable[[str, str], bytes | None]
"""Returns an artifact of an MLflow run; None when it is gone."""


def add_arguments(action: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    action.add_argument(
        "name",
        nargs="?",
        default="",
        metavar="MOVE",
        help="identity of a move (new.move), or ID of the event retrain.decided, as the log names them",
    )
    action.add_argument("--seq", type=int, default=0, metavar="N", help="number of the record instead")
    action.add_argument(
        "--model", default="", metavar="NAME", help="registered model; else the whole log is read, which is recorded"
    )
    action.add_argument("--offline", default="", metavar="DIR", help="a folder that --save has written; no network")
    action.add_argument("--save", default="", metavar="DIR", help="write what was used to a new folder, for --offline")
    add_tracking_uri(action)
    add_ledger(action)
    add_format(action)


def run(parsed: argparse.Namespace) -> int:
    """Replay the move, or the decision on retraining; 0: identical, 1: different, 2: impossible."""
    if bool(parsed.name) == bool(parsed.seq):
        raise InvalidArgumentError("either MOVE or --seq must be given")
    try:
        if parsed.offline:
            records = _records((Path(parsed.offline) / LOG_FILE).read_bytes().splitlines())
        else:
            records = _of_log(parsed)
        decided = find_decision(records, name=parsed.name, seq=parsed.seq)
        if decided.event["action"] == RETRAIN:
            found = _replay_retrain(parsed, decided)
        else:
            found = _replay_move(parsed, decided, records)
    except (EvidenceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODES["impossible"]
    _print(parsed, decided, found)
    return EXIT_CODES[found.verdict]


def _replay_retrain(parsed: argparse.Namespace, decided: Record) -> Replayed:
    if parsed.offline:
        stored = (Path(parsed.offline) / LEDGER_FILE).read_bytes()
        return replay_retrain(decided.event, parse_document(Ledger, stored, LEDGER_FILE))
    with connect(parsed) as api:
        ledger = open_ledger(api, decided.event["subject"].partition(":")[2], parsed.ledger).ledger()
    if parsed.save:
        _Keep(Path(parsed.save)).ledger(ledger, decided)
    return replay_retrain(decided.event, ledger)


def _replay_move(parsed: argparse.Namespace, moved: Record, records: list[Record]) -> Replayed:
    if parsed.offline:
        return _replayed(moved, records, _from_folder(Path(parsed.offline)))
    with registry_server(parsed) as mlflow:
        keep = _Keep(Path(parsed.save)) if parsed.save else None
        found = _replayed(moved, records, _from_server(mlflow, keep))
        if keep is not None:
            keep.records(records, moved)
    return found


def _replayed(moved: Record, records: list[Record], fetch: Fetch) -> Replayed:
    gate, decided = gate_of(moved, records)
    found = replay_move(moved.event, gate.event if gate else None, decided) + replay_rules(moved, records)
    if gate is not None and moved.event["new"]["action"] in FORWARD:
        run_id = gate.event["new"]["run_id"]
        inputs = fetch(run_id, contract.ARTIFACT_GATE_INPUTS)
        report = fetch(run_id, contract.ARTIFACT_GATE_REPORT_JSON)
        found += replay_gate(gate.event, inputs, _contents(inputs, fetch), report)
    return found


def _contents(inputs: bytes | None, fetch: Fetch) -> dict[str, bytes]:
    """Return the reports that the gate read, by their hash: one that was changed since has another one."""
    if inputs is None:
        return {}
    try:
        files = parse_document(GateInputs, inputs, contract.ARTIFACT_GATE_INPUTS).files
    except EvidenceError:
        return {}
    found = (fetch(file.run_id, file.path) for file in files if file.hash)
    return {content_hash(content): content for content in found if content is not None}


def _of_log(parsed: argparse.Namespace) -> list[Record]:
    settings = required_settings()
    with closing(open_log(settings)) as log:
        if not parsed.model:
            reason = f"replay {parsed.name or parsed.seq}"
            return _records(read_log(log, export(audit_user(), settings.environment, reason=reason)))
        require_permission(log, "audit", "read", actor())
        found = {record.seq: record for record in _needed(log.facts(model_subject(parsed.model)))}
        moved = find_decision(found.values(), name=parsed.name, seq=parsed.seq)
        if moved.event["action"] == RETRAIN:
            return [moved]
        intent = intent_of_move(moved, found.values())
        for subject in subjects_of(moved.event, intent.event if intent else None)[1:]:
            found |= {record.seq: record for record in log.facts(subject)}
        return list(found.values())


def _records(lines: Iterable[bytes]) -> list[Record]:
    """Return the records that moves rest on; a log may be longer than memory holds, and these are few of it."""
    needed = tuple(f'"event":{{"action":"{action}'.encode() for action in _NEEDED)
    return [read_record(line.decode()) for line in lines if any(part in line for part in needed)]


def _needed(records: Iterable[Record]) -> Iterator[Record]:
    return (record for record in records if record.event["action"].startswith(_NEEDED))


def _from_folder(folder: Path) -> Fetch:
    def fetch(run_id: str, path: str) -> bytes | None:
        place = folder / run_id / path
        return place.read_bytes() if place.is_file() and place.resolve().is_relative_to(folder.resolve()) else None

    return fetch


def _from_server(mlflow: DirectMlflow, keep: _Keep | None) -> Fetch:
    def fetch(run_id: str, path: str) -> bytes | None:
        try:
            content = mlflow.find_artifact(run_id, path)
        except MlflowNotFoundError:
            return None
        if keep is not None and content is not None:
            keep.artifact(run_id, path, content)
        return content

    return fetch


class _Keep:
    """Writes what a replay has used.

    :param folder: a new folder.
    :raises InvalidArgumentError: when it exists.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, mode=0o700)  # the log names people
        except FileExistsError:
            raise InvalidArgumentError(f"--save must be a new folder; got {str(folder)!r}") from None
        self._folder = folder

    def artifact(self, run_id: str, path: str, content: bytes) -> None:
        """Write an artifact."""
        place = self._folder / run_id / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def records(self, records: list[Record], moved: Record) -> None:
        """Write the records about the model, the move included."""
        intent = intent_of_move(moved, records)
        subjects = subjects_of(moved.event, intent.event if intent else None)
        lines = [record.line for record in records if record.event["subject"] in subjects]
        (self._folder / LOG_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def ledger(self, ledger: Ledger, decided: Record) -> None:
        """Write the ledger of retraining, and the record of one of its decisions."""
        (self._folder / LEDGER_FILE).write_text(json.dumps(plain_document(ledger)), encoding="utf-8")
        (self._folder / LOG_FILE).write_text(f"{decided.line}\n", encoding="utf-8")


def _print(parsed: argparse.Namespace, decided: Record, found: Replayed) -> None:
    now, new = versions(), decided.event["new"]
    if parsed.format == "json":
        said: dict[str, Any] = {
            "verdict": found.verdict,
            "move": new.get("move"),
            "seq": decided.seq,
            "differences": [vars(one) for one in found.differences],
            "missing": list(found.missing),
            "packages": {"then": dict(found.packages), "now": now},
        }
        print(json.dumps(said, indent=2))
        return
    subject = decided.event["subject"]
    what = f"{new['action']} of {subject} to version {new['champion']}" if "move" in new else f"retraining of {subject}"
    print(f"{found.verdict}: {what}, seq {decided.seq}")
    for line in (*map(str, found.differences), *(f"missing: {one}" for one in found.missing)):
        print(f"  {line}")
    for name, then in sorted(found.packages.items()):
        if now.get(name) != then:
            print(f"  {name} {then} then, {now.get(name, 'not installed')} now")
