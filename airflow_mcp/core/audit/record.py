"""Records of the audit log: one line of canonical JSON each, with the hash that links it to the line before."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_mcp.core.identity import canonical_json
from airflow_mcp.exceptions import EvidenceError

NO_RECORD = bytes(32)
"""What the first record names as the hash before it."""
_LEAF = b"\0"
"""RFC 6962: a leaf is hashed with 0x00 before it, an inner node with 0x01."""
_TAIL = re.compile(
    rb',"prev":"([0-9a-f]{64})","recorded_at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)","seq":([1-9]\d{0,18})\}$'
)
_TAIL_LENGTH = 180
"""Bytes at the end of a line that hold every tail."""
ERASED = b'{"erased":'
"""How the line of an erased record begins."""
_NOBODY = {"kind": "system", "name": "", "id": "", "via": "", "authenticated": False, "on_behalf_of": ""}


class Link(NamedTuple):
    """What the end of a line says, without reading its event."""

    seq: int
    prev: bytes
    recorded_at: bytes


@dataclass(frozen=True)
class Record:
    """One record, read."""

    seq: int
    recorded_at: str
    by: str
    """Login of the database, or user of the operating system, that appended it."""
    event: dict[str, Any]
    """Of an erased record only what was kept; ``erased`` is true in it."""
    line: str


def record_line(event_text: str, *, seq: int, prev: bytes, recorded_at: datetime, by: str) -> str:
    """Return the line of a record; its keys are in canonical order.

    :param event_text: the event as canonical JSON.
    :param seq: number of the record, from 1.
    :param prev: hash of the record before, or :data:`NO_RECORD`.
    :param recorded_at: time of the store.
    :param by: who appends, as the store knows it.
    """
    time = format_time(recorded_at)
    login = json.dumps(by, ensure_ascii=False)
    return f'{{"by":{login},"event":{event_text},"prev":"{prev.hex()}","recorded_at":"{time}","seq":{seq}}}'


def format_time(time: datetime) -> str:
    """Return a time in UTC with microseconds, as records hold it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record_hash(line: bytes) -> bytes:
    """Return the hash of a line: the link of the next record, and the leaf of the Merkle tree."""
    return hashlib.sha256(_LEAF + line).digest()


def leaf_hash(line: bytes) -> bytes:
    """Return the hash that a line has in the chain; an erased record keeps the one that it had.

    :raises EvidenceError: when an erased record names no hash.
    """
    if not line.startswith(ERASED):
        return record_hash(line)
    try:
        return bytes.fromhex(json.loads(line)["hash"])
    except (ValueError, KeyError, TypeError):
        raise EvidenceError("an erased record must name the hash that it had; got another line") from None


def erased_line(line: str) -> str:
    """Return what is left of a record that is erased: nothing about people, and its place in the chain.

    :param line: the record; an erased one stays as it is.
    """
    fields = json.loads(line)
    if "erased" in fields:
        return line
    event = fields["event"]
    kept = {name: event[name] for name in ("action", "environment", "id", "refs", "subject")}
    kept["move"] = (event["new"] or {}).get("move")
    place = {name: fields[name] for name in ("prev", "recorded_at", "seq")}
    return canonical_json({"erased": kept, "hash": record_hash(line.encode()).hex(), **place})


def read_link(line: bytes) -> Link | None:
    """Return what the end of a line says; None when it is not the end of a record."""
    found = _TAIL.search(line, max(0, len(line) - _TAIL_LENGTH))
    return Link(int(found[3]), bytes.fromhex(found[1].decode()), found[2]) if found else None


def read_record(line: str) -> Record:
    """Read one record.

    :raises EvidenceError: when the line is not a record.
    """
    try:
        fields = json.loads(line)
        if "erased" in fields:
            return Record(fields["seq"], fields["recorded_at"], "", _kept(fields["erased"]), line)
        return Record(fields["seq"], fields["recorded_at"], fields["by"], dict(fields["event"]), line)
    except (ValueError, KeyError, TypeError) as error:
        raise EvidenceError(
            f"this line is not a record of an audit log: {line[:80]!r} ({type(error).__name__}). Nothing was decided "
            "from it"
        ) from None


def _kept(kept: dict[str, Any]) -> dict[str, Any]:
    """Return the event of an erased record; what is gone is empty."""
    gone = {"actor": dict(_NOBODY), "task": None, "old": None, "reason": "", "inputs": {}, "late": False}
    return {**gone, **kept, "new": {"move": kept["move"]}, "erased": True}
