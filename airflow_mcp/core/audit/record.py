"""Records of the audit log: one line of canonical JSON each, with the hash that links it to the line before."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

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


@dataclass(frozen=True)
class Link:
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
        return Record(fields["seq"], fields["recorded_at"], fields["by"], dict(fields["event"]), line)
    except (ValueError, KeyError, TypeError) as error:
        raise EvidenceError(
            f"this line is not a record of an audit log: {line[:80]!r} ({type(error).__name__}). Nothing was decided "
            "from it"
        ) from None
