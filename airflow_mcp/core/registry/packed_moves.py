"""Older records of moves, several of them packed into one tag, so that a long history does not slow down every read.

MLflow returns all tags of a registered model with every read of it. Nothing is left out: a rollback, a retry and the
history need old records too. They do not go into an artifact, because a rollback must work without the artifact store,
with no other rights than those on the registered model, and after a clean-up of runs.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airflow_mcp.core.contract import (
    TAG_LAST_MOVE,
    TAG_LAST_STAGE_MOVE,
    TAG_MOVE_PREFIX,
    TAG_PACKED_MOVES_PREFIX,
    TAG_STAGE_MOVE_PREFIX,
)

MAX_RECORD_CHARACTERS = 5000
"""Longest tag value of a registered model or a version that every database of MLflow keeps; SQLite keeps more."""
PACKED_FROM = 60
"""Number of records with a tag of their own from which the oldest are packed."""
KEPT = 20
"""Number of the newest records that keep a tag of their own, which people and other programs can read."""
_DONE = (TAG_MOVE_PREFIX, TAG_STAGE_MOVE_PREFIX)
_MOST_BYTES = 1_000_000
"""Bytes that a tag may hold when it is unpacked: about 1,000 records, ten times what fits."""

Records = tuple[tuple[str, str], ...]
"""Names of tags, and their values."""


@dataclass(frozen=True)
class Packing:
    """Tags to set, and then tags to delete; dying in between loses nothing."""

    to_set: Mapping[str, str]
    to_delete: tuple[str, ...]


def done_records(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the record of every move that is done, by the name of its own tag, whether it is packed or not.

    :param tags: tags of the registered model.
    """
    records: dict[str, str] = {}
    for name, value in tags.items():
        if name.startswith(TAG_PACKED_MOVES_PREFIX):
            records.update(unpacked(value))
    return records | recent_records(tags)


def recent_records(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the records that have a tag of their own; the latest move of each kind is always among them.

    :param tags: tags of the registered model.
    """
    return {name: value for name, value in tags.items() if name.startswith(_DONE)}


def record_number(value: str) -> int:
    """Return the number of a record; 0 for one without a number."""
    try:
        fields: Any = json.loads(value)
        number = fields.get("number") if isinstance(fields, dict) else None
    except ValueError:
        return 0
    return number if isinstance(number, int) else 0


def plan_packing(tags: Mapping[str, str]) -> Packing | None:
    """Return how to pack the oldest records, or None while there are few.

    :param tags: tags of the registered model.
    """
    own = recent_records(tags)
    if len(own) < PACKED_FROM:
        return None
    named = {
        _done_tag(tags, TAG_LAST_MOVE, TAG_MOVE_PREFIX),
        _done_tag(tags, TAG_LAST_STAGE_MOVE, TAG_STAGE_MOVE_PREFIX),
    }
    oldest = sorted(own.items(), key=lambda record: record_number(record[1]))[: len(own) - KEPT]
    packs = {name: unpacked(value) for name, value in tags.items() if name.startswith(TAG_PACKED_MOVES_PREFIX)}
    known = {name for records in packs.values() for name, _ in records}
    to_pack = [record for record in oldest if record[0] not in named | known]
    to_set, packed_now = _packed(to_pack, packs)
    return Packing(to_set, tuple(name for name, _ in oldest if name not in named and name in known | packed_now))


def _packed(records: list[tuple[str, str]], packs: Mapping[str, Records]) -> tuple[dict[str, str], set[str]]:
    """Return the tags that hold records, and which records they hold; the latest pack is filled up first."""
    latest = max(
        packs, key=lambda name: max((record_number(value) for _, value in packs[name]), default=-1), default=""
    )
    name, held = latest, list(packs.get(latest, ()))
    to_set: dict[str, str] = {}
    done: set[str] = set()
    for record in records:
        text = _pack((*held, record)) if held else ""
        if not text or len(text) > MAX_RECORD_CHARACTERS:
            name, held, text = TAG_PACKED_MOVES_PREFIX + record[0].rpartition(".")[2], [], _pack((record,))
        if len(text) > MAX_RECORD_CHARACTERS:
            continue  # it keeps its own tag
        held.append(record)
        to_set[name] = text
        done.add(record[0])
    return to_set, done


def _pack(records: Records) -> str:
    text = json.dumps(records, ensure_ascii=False).encode()
    return base64.b85encode(zlib.compress(text, 9)).decode("ascii")


@lru_cache(maxsize=256)
def unpacked(value: str) -> Records:
    """Return the records in a packed tag; none when the tag was not written by airflow-mcp."""
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(base64.b85decode(value), _MOST_BYTES)
        records: Any = json.loads(text)
        return tuple((str(name), str(record)) for name, record in records if str(name).startswith(_DONE))
    except (ValueError, TypeError, zlib.error, binascii.Error):
        return ()


def _done_tag(tags: Mapping[str, str], last: str, prefix: str) -> str:
    try:
        fields: Any = json.loads(tags.get(last, "null"))
    except ValueError:
        return ""
    return f"{prefix}{fields.get('identity', '')}" if isinstance(fields, dict) else ""
