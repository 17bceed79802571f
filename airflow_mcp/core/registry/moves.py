"""Records of moves of the champion alias, kept in tags of the registered model: the history of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.contract import (
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    TAG_LAST_MOVE,
    TAG_LAST_STAGE_MOVE,
    TAG_MOVE_PREFIX,
    TAG_STAGE_MOVE_PREFIX,
)
from airflow_mcp.core.registry.packed_moves import (
    MAX_RECORD_CHARACTERS,
    done_records,
    recent_records,
    record_number,
)
from airflow_mcp.exceptions import InvalidArgumentError

Action = Literal["promote", "rollback", "migrate", "transition"]
"""``promote``, ``rollback``: the champion moves. ``transition``: a version changes between stages other than
Production. ``migrate``: either, taken over from MLflow's stages."""
NO_WAY_BACK = "none"
_CUT = "… (cut)"
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

    def __post_init__(self) -> None:
        """Make text of the reason, which may be any value when Airflow renders templates as native objects."""
        object.__setattr__(self, "reason", storable_text(self.reason))


def storable_text(value: Any) -> str:
    """Return a value as text that every database keeps: without NUL and lone surrogates, and not too long.

    :param value: text, bytes, or any other value; None is empty.
    """
    text = value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
    clean = "".join("\ufffd" if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in text)
    return shortened(clean, MAX_RECORD_CHARACTERS)


def shortened(text: str, limit: int) -> str:
    """Return a text of at most so many characters; the end of a longer one says that it was cut."""
    return text if len(text) <= limit else text[: max(limit - len(_CUT), 0)] + _CUT


@dataclass(frozen=True)
class MoveRecord:
    """The record of one move of the champion alias.

    :data:`~airflow_mcp.core.contract.TAG_LAST_MOVE` holds the latest move and is written before the first alias moves;
    a tag named by the move's identity is written when the move is done. Those tags together are the history.
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
    previous_before: str | None = None
    """Where ``previous_champion`` was before the move."""
    forced: bool = False
    """Whether a rollback went to a version that never was champion and that no gate accepted."""
    audit: str = ""
    """``pending`` for a rollback that began while the audit log was down."""

    def to_tag(self) -> str:
        """Return the value of its tag."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    def fitted(self) -> MoveRecord:
        """Return the record with its reason cut so far that its tag fits.

        :raises InvalidArgumentError: when it does not fit without a reason either; nothing has been moved by then.
        """
        reason = fitted_reason(self.reason, lambda reason: replace(self, reason=reason).to_tag())
        return replace(self, reason=reason)

    @property
    def left(self) -> dict[str, str | None]:
        """Where the move leaves the aliases; a first promotion does not touch ``previous_champion``."""
        left: dict[str, str | None] = {ALIAS_CHAMPION: self.champion_after}
        if self.action != "rollback" and self.champion_before is None:
            return left
        way_back = self.way_back or (None if self.action == "rollback" else self.champion_before)
        return {**left, ALIAS_PREVIOUS_CHAMPION: None if way_back == NO_WAY_BACK else way_back}

    @property
    def done_tag(self) -> str:
        """Name of the tag that says that this move is done."""
        return TAG_MOVE_PREFIX + self.identity


def fitted_reason(reason: str, write: Callable[[str], str]) -> str:
    """Return a reason cut so far that the tag of its record fits; the record is measured as it is written.

    :param reason: the reason.
    :param write: writes the tag with a reason.
    :raises InvalidArgumentError: when the tag is too long without a reason.
    """
    limit = len(reason)
    while (excess := len(write(shortened(reason, limit))) - MAX_RECORD_CHARACTERS) > 0:
        if limit <= len(_CUT):
            raise InvalidArgumentError(
                f"the record of the move has {excess} characters more than the {MAX_RECORD_CHARACTERS} that MLflow "
                "keeps. Nothing was moved"
            )
        # JSON writes some characters as six, so cutting a sixth of the excess never cuts too much.
        limit = max(min(limit - excess // 6 - 1, len(reason) - 1), len(_CUT))
    return shortened(reason, limit)


def read_last_move(tags: Mapping[str, str]) -> MoveRecord | None:
    """Return the latest move; None when there is none or the tag was not written by airflow-mcp."""
    return _read_move(tags.get(TAG_LAST_MOVE))


def read_done_move(tags: Mapping[str, str], identity: str) -> MoveRecord | None:
    """Return the record of a move that is done; None when it is not."""
    name = TAG_MOVE_PREFIX + identity
    return _read_move(tags.get(name) or done_records(tags).get(name))


def read_history(tags: Mapping[str, str]) -> tuple[MoveRecord, ...]:
    """Return every move that is done, oldest first."""
    return _moves(done_records(tags))


def read_recent_history(tags: Mapping[str, str]) -> tuple[MoveRecord, ...]:
    """Return the latest moves that are done, oldest first: at least the last one, without unpacking older records."""
    return _moves(recent_records(tags))


def _moves(records: Mapping[str, str]) -> tuple[MoveRecord, ...]:
    return _in_order(tuple(value for name, value in records.items() if name.startswith(TAG_MOVE_PREFIX)))


@lru_cache(maxsize=4096)
def _in_order(records: tuple[str, ...]) -> tuple[MoveRecord, ...]:
    moves = map(_read_move, records)
    return tuple(sorted((move for move in moves if move is not None), key=lambda move: (move.number, move.at)))


def unfinished_move(aliases: Mapping[str, str], tags: Mapping[str, str]) -> MoveRecord | None:
    """Return the latest move if the champion moved, but the task has not recorded yet that the move is done.

    If the task died, the next mover completes and records the move before it does anything else.

    :param aliases: aliases of the registered model as they are now.
    :param tags: tags of the registered model as they are now.
    """
    last = read_last_move(tags)
    if last is None or last.done_tag in tags or aliases.get(ALIAS_CHAMPION) != last.champion_after:
        return None
    return last


def next_number(tags: Mapping[str, str]) -> int:
    """Return the number of the next move; moves of the champion and between stages share one counter."""
    return 1 + max((record_number(value) for name, value in tags.items() if name.startswith(_NUMBERED)), default=0)


# A sweep over all models asks for the moves of each model four times, and again a minute later.
@lru_cache(maxsize=8192)
def _read_move(value: str | None) -> MoveRecord | None:
    try:
        fields: Any = json.loads(value or "null")
        move = MoveRecord(**fields) if isinstance(fields, dict) else None
    except (ValueError, TypeError):
        return None
    is_ours = move is not None and isinstance(move.at, str) and isinstance(move.number, int)
    return move if is_ours else None
