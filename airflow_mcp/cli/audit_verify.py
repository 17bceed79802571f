"""The offline half of ``airflow-mcp audit``: verify a log or an export, and prove that one record is in it."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import audit_user, read_log, required_settings
from airflow_mcp.cli.options import add_format, print_answer
from airflow_mcp.core.audit.checkpoint import Checkpoint, read_checkpoint
from airflow_mcp.core.audit.log import about_log, export
from airflow_mcp.core.audit.merkle import inclusion_proof, is_included
from airflow_mcp.core.audit.record import ERASED, leaf_hash, read_link
from airflow_mcp.core.audit.verify import Verification, log_id_of, verify
from airflow_mcp.core.conformity.moves import MoveCheck
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.hooks.audit_anchors import anchors_of

PROOF = "airflow_mcp/audit_proof/1"
_LATEST = 24
"""Checkpoints of an anchor that are compared: the latest covers every record that the earlier ones do."""
_MOST_SHOWN = 20


def add_verify(check: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    check.add_argument("file", nargs="?", help="an export; - for stdin; default: the log, which is exported for it")
    check.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="a signed checkpoint")
    check.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="ADDRESS",
        help=f"a place with checkpoints; the latest {_LATEST}",
    )
    check.add_argument("--key", metavar="FILE", help="public key of the checkpoints, PEM")
    check.add_argument("--deep", action="store_true", help="also check the canonical form of every record")
    check.add_argument(
        "--decisions",
        action="store_true",
        help="also check that each move has its intent, and valid votes by the policy",
    )
    add_format(check)


def add_proof(proof: argparse.ArgumentParser) -> None:
    """Add the arguments of ``proof``."""
    proof.add_argument("file", help="an export, to prove a record of it; or a proof, to check it")
    proof.add_argument("--seq", type=int, metavar="N", help="number of the record; without it, FILE is a proof")
    proof.add_argument("--checkpoint", metavar="FILE", help="signed checkpoint that covers the record")
    proof.add_argument("--key", required=True, metavar="FILE", help="public key of the checkpoint, PEM")
    add_format(proof)


def run_verify(parsed: argparse.Namespace) -> int:
    """Verify, and print what was found; 1 when the log was tampered with, 2 when nothing can be said."""
    moves = MoveCheck() if parsed.decisions else None
    try:
        with _lines(parsed.file) as given:
            lines, checkpoints = _with_checkpoints(given, parsed)
            found = verify(moves.watched(lines) if moves else lines, checkpoints, deep=parsed.deep)
        if not parsed.file:
            _record(found)
    except EvidenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if parsed.format == "json":
        print(json.dumps(_document(found, moves), indent=2))
    else:
        print("\n".join(_text(found, moves)))
    return 0 if found.is_whole and not (moves and moves.findings) else 1


def run_proof(parsed: argparse.Namespace) -> int:
    """Write the proof of a record, or check one; 1 when it proves nothing."""
    try:
        return _prove(parsed) if parsed.seq is not None else _check_proof(parsed)
    except EvidenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def read_bytes(file: str) -> bytes:
    """Return the content of a file.

    :raises EvidenceError: when it cannot be read.
    """
    with _opened(file) as opened:
        return bytes(opened.read())


# --- verify -----------------------------------------------------------------------------------------------------


@contextmanager
def _lines(file: str | None) -> Iterator[Iterable[bytes]]:
    """Yield the records of an export, or of the log."""
    if file == "-":
        yield sys.stdin.buffer
    elif file:
        with _opened(file) as lines:
            yield lines
    else:
        settings = required_settings()
        with closing(open_log(settings)) as log:
            yield read_log(log, export(audit_user(), settings.environment, reason="verify"))


def _with_checkpoints(lines: Iterable[bytes], parsed: argparse.Namespace) -> tuple[Iterable[bytes], list[Checkpoint]]:
    """Return the records, and the checkpoints of this very log."""
    if bool(parsed.checkpoint or parsed.anchor) != bool(parsed.key):
        raise InvalidArgumentError("--checkpoint or --anchor must be given with --key; got one without the other")
    notes = [read_bytes(file).decode(errors="replace") for file in parsed.checkpoint]
    if parsed.anchor:
        found = iter(lines)
        first = next(found, b"")
        lines = chain([first], found)
        notes += _anchored(parsed.anchor, log_id_of(first))
    public = read_bytes(parsed.key) if parsed.key else b""
    return lines, [read_checkpoint(note, public) for note in notes]


def _anchored(places: Sequence[str], log_id: str) -> Iterator[str]:
    for anchor in anchors_of(places):
        files = anchor.files(log_id)
        if not files:
            raise EvidenceError(f"{anchor.name} has no checkpoint of log {log_id}. Nothing was verified")
        yield from (note for file in files[-_LATEST:] if (note := anchor.read(file)) is not None)


def _record(found: Verification) -> None:
    settings = required_settings()
    with closing(open_log(settings)) as log:
        said = {
            "records": found.records,
            "root": found.root.hex(),
            "is_whole": found.is_whole,
            "first_bad": found.first_bad,
        }
        log.append(about_log("audit.verified", audit_user(), settings.environment, said))


def _document(found: Verification, moves: MoveCheck | None) -> dict[str, Any]:
    document = {
        "log_id": found.log_id,
        "records": found.records,
        "root": found.root.hex(),
        "is_whole": found.is_whole,
        "first_bad": found.first_bad,
        "problem": found.problem,
        "checkpoints": found.checkpoints,
        "erased": list(found.erased),
    }
    if moves is not None:
        findings = [finding._asdict() for finding in moves.findings]
        document["decisions"] = {"moves": moves.moves, "late": moves.late, "findings": findings}
    return document


def _text(found: Verification, moves: MoveCheck | None) -> Iterator[str]:
    if not found.is_whole:
        yield f"TAMPERED: {found.problem}; {found.records} records before it are whole"
        return
    agreed = f"{found.checkpoints} checkpoints agree" if found.checkpoints else "no checkpoint was given"
    yield f"whole: {found.records} records of log {found.log_id}, root {found.root.hex()}; {agreed}"
    if found.erased:
        numbers = ", ".join(map(str, found.erased[:_MOST_SHOWN])) + (", …" if len(found.erased) > _MOST_SHOWN else "")
        yield f"erased, with a record that says so: {numbers}"
    if not found.checkpoints:
        yield "without a checkpoint, a cut end and a log that was written anew do not show"
    if moves is not None:
        late = f", {moves.late} of them recorded late" if moves.late else ""
        yield f"{len(moves.findings)} findings about {moves.moves} moves{late}"
        yield from (f"NOT ALLOWED: {finding.problem}" for finding in moves.findings[:_MOST_SHOWN])


def _opened(file: str) -> Any:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise EvidenceError(f"{file} cannot be read: {error.strerror}. Nothing was verified") from None


# --- proof ------------------------------------------------------------------------------------------------------


def _prove(parsed: argparse.Namespace) -> int:
    """Print a document with which anybody who trusts the checkpoint can check one record, without the others."""
    if not parsed.checkpoint:
        raise InvalidArgumentError("--checkpoint must name the checkpoint that covers the record; got nothing")
    note = read_bytes(parsed.checkpoint).decode(errors="replace")
    checkpoint = read_checkpoint(note, read_bytes(parsed.key))
    if not 1 <= parsed.seq <= checkpoint.size:
        raise InvalidArgumentError(
            f"--seq must be 1 to {checkpoint.size}, the size of the checkpoint; got {parsed.seq}"
        )
    leaves, record = _leaves(parsed.file, checkpoint.size, parsed.seq)
    proof = inclusion_proof(leaves, parsed.seq - 1)
    if not is_included(leaves[parsed.seq - 1], parsed.seq - 1, checkpoint.size, proof, checkpoint.root):
        raise EvidenceError(f"{parsed.file} is not the log of this checkpoint. Verify it to see where they part")
    document = {
        "schema": PROOF,
        "record": record.decode(),
        "proof": [base64.b64encode(each).decode() for each in proof],
        "checkpoint": note,
    }
    print(json.dumps(document, indent=2, ensure_ascii=False))
    return 0


def _leaves(file: str, size: int, seq: int) -> tuple[list[bytes], bytes]:
    """Return the hashes of so many records, and one record."""
    leaves, record = [], b""
    with _opened(file) as lines:
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip(b"\r\n")
            leaves.append(leaf_hash(line))
            record = line if number == seq else record
            if number == size:
                return leaves, record
    raise EvidenceError(f"{file} has {len(leaves)} records, and the checkpoint covers {size}. Nothing was proved")


def _check_proof(parsed: argparse.Namespace) -> int:
    try:
        document = json.loads(read_bytes(parsed.file))
        line, note = document["record"].encode(), document["checkpoint"]
        proof = [base64.b64decode(each, validate=True) for each in document["proof"]]
        is_ours = document["schema"] == PROOF
    except (ValueError, KeyError, TypeError, AttributeError):
        is_ours = False
    if not is_ours:
        raise EvidenceError(f"{parsed.file} is not a proof; it must be what airflow-mcp audit proof --seq N prints")
    if line.startswith(ERASED):
        raise EvidenceError("the record was erased: its place in the log can be proved, and not what it said")
    checkpoint, link = read_checkpoint(note, read_bytes(parsed.key)), read_link(line)
    if link is None or not is_included(leaf_hash(line), link.seq - 1, checkpoint.size, proof, checkpoint.root):
        said = f"NOT PROVED: this record is not in log {checkpoint.log_id} as its checkpoint says"
        print_answer(parsed, {"proved": False, "log": checkpoint.log_id}, [said])
        return 1
    said = f"proved: seq {link.seq} of log {checkpoint.log_id}, by a checkpoint of {checkpoint.size} records"
    document = {"proved": True, "seq": link.seq, "log": checkpoint.log_id, "checkpoint_size": checkpoint.size}
    print_answer(parsed, document, [said])
    return 0
