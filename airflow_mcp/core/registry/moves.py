"""Records of moves of the champion alias, kept in tags of the registered model: the history of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.contract import (
    ALIAS_CHAMPION,
    TAG_LAST_MOVE,
    TAG_LAST_STAGE_MOVE,
    TAG_MOVE_PREFIX,
    TAG_STAGE_MOVE_PREFIX,
)

Action = Literal["promote", "rollback", "migrate", "transition"]
"""``promote``, ``rollback``: the champion moves. ``transition``: a version changes between stages other than
Production. ``migrate``: either, taken over from MLflow's stages."""
NO_WAY_BACK = "none"
_NUMBERED = (TAG_LAST_MOVE, TAG_MOVE_PREFIX, TAG_LAST_STAGE_MOVE, TAG_STAGE_MOVE_PREFIX)
"""Beginnings of the tags whose records are numbered."""


@dataclass(frozen=True)
class MoveOrder:
    """Who wants an alias moved, and why."""

    action: Action
    identity: str
    """Name of the move, the same on every retry."""
    by: Actor
    reason: str = ""


@dataclass(frozen=True)
class MoveRecord:
    """The record of one move of the champion alias.

    :data:`~airflow_mcp.core.contract.TAG_LAST_MOVE` holds the latest move and is written before the alias moves; a
    tag named by the move's identity is written when the move is done. Those tags together are the history.
    """

    action: Action
    identity: str
    champion_before: str | None
    champion_after: str
    at: str
    """ISO 8601, UTC."""
    by: str
    """The actor, as text."""
    reason: str = ""
    number: int = 0
    """Position among the moves of the model, assigned under the claim; 0 in records that have no number."""
    run_id: str = ""
    """MLflow run of the new champion; of a copy, the run of the copy. It keeps the gate report even when the version
    is deleted."""
    gate_verdict: str = ""
    """The gate's verdict on the new champion."""
    load_check: str = ""
    """What was known of the new champion's load check; empty in records that say nothing about it."""
    way_back: str = ""
    """Where ``previous_champion`` was left when that is not the champion before: a version, or ``none``."""

    def to_tag(self) -> str:
        """Return the value of its tag."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def done_tag(self) -> str:
        """Name of the tag that says that this move is done."""
        return TAG_MOVE_PREFIX + self.identity


def read_last_move(tags: Mapping[str, str]) -> MoveRecord | None:
    """Return the latest move; None when there is none or the tag was not written by airflow-mcp."""
    return _read_move(tags.get(TAG_LAST_MOVE))


def read_done_move(tags: Mapping[str, str], identity: str) -> MoveRecord | None:
    """Return the record of a move that is done; None when it is not."""
    return _read_move(tags.get(TAG_MOVE_PREFIX + identity))


def read_history(tags: Mapping[str, str]) -> tuple[MoveRecord, ...]:
    """Return every move that is done, oldest first."""
    moves = (_read_move(value) for name, value in tags.items() if name.startswith(TAG_MOVE_PREFIX))
    return tuple(sorted((move for move in moves if move is not None), key=lambda move: (move.number, move.at)))


def unfinished_move(aliases: Mapping[str, str], tags: Mapping[str, str]) -> MoveRecord | None:
    """Return the latest move if the alias moved, but the task died before it recorded that.

    The next mover records it before it does anything else: afterwards nobody could tell that the move happened.

    :param aliases: aliases of the registered model as they are now.
    :param tags: tags of the registered model as they are now.
    """
    last = read_last_move(tags)
    if last is None or last.done_tag in tags or aliases.get(ALIAS_CHAMPION) != last.champion_after:
        return None
    return last


def next_number(tags: Mapping[str, str]) -> int:
    """Return the number of the next move; moves of the champion and between stages share one counter."""
    return 1 + max((_number(value) for name, value in tags.items() if name.startswith(_NUMBERED)), default=0)


def _number(value: str) -> int:
    try:
        fields: Any = json.loads(value)
        number = fields.get("number") if isinstance(fields, dict) else None
    except ValueError:
        return 0
    return number if isinstance(number, int) else 0


def _read_move(value: str | None) -> MoveRecord | None:
    try:
        fields: Any = json.loads(value or "null")
        move = MoveRecord(**fields) if isinstance(fields, dict) else None
    except (ValueError, TypeError):
        return None
    is_ours = move is not None and isinstance(move.at, str) and isinstance(move.number, int)
    return move if is_ours else None
