"""Which version was champion when, and who moved it: read from the tags that every move leaves on the registered model.

A move outside airflow-mcp leaves no record, but it shows: the next record begins with another version than the last one
ended with, or the alias points elsewhere now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_PREFIX
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.moves import MoveRecord, read_history, read_recent_history, unfinished_move
from airflow_mcp.core.registry.plans import settled_aliases
from airflow_mcp.exceptions import InvalidArgumentError


@dataclass(frozen=True)
class Change:
    """One change of the champion."""

    before: str | None
    after: str | None
    """None: no version."""
    earliest: datetime | None
    """Earliest possible time; None: before the first record."""
    latest: datetime
    """Latest possible time; the same as ``earliest`` when the change was recorded."""
    move: MoveRecord | None
    """The record; None: it was made outside airflow-mcp."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        move = self.move
        return {
            "action": move.action if move else "unrecorded",
            "from": self.before,
            "to": self.after,
            "earliest": self.earliest and self.earliest.isoformat(),
            "latest": self.latest.isoformat(),
            "by": move.by if move else None,
            "reason": move.reason if move else None,
            "run_id": move.run_id if move else None,
            "gate_verdict": move.gate_verdict if move else None,
            "load_check": move.load_check if move else None,
            "forced": move.forced if move else None,
        }


@dataclass(frozen=True)
class Timeline:
    """Every known change of a model's champion, oldest first."""

    changes: tuple[Change, ...]
    champion: str | None
    until: datetime
    """When the registered model was read."""


@dataclass(frozen=True)
class ChampionAt:
    """The champion at one time."""

    time: datetime
    versions: tuple[str | None, ...]
    """The version; several when it may have been any of them."""
    since: Change | None
    """The last change that had certainly been made by then."""
    doubtful: tuple[Change, ...]
    """Unrecorded changes that were made either before or after that time."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "time": self.time.isoformat(),
            "versions": list(self.versions),
            "is_certain": not self.doubtful,
            "since": self.since and self.since.to_json(),
            "doubtful": [change.to_json() for change in self.doubtful],
        }


@dataclass(frozen=True)
class UnrecordedMove:
    """An alias that is not where the last recorded move left it."""

    alias: str
    recorded: str | None
    found: str | None
    last: MoveRecord


def read_timeline(model: RegisteredModel, now: datetime) -> Timeline:
    """Return every change of the champion.

    Records are ordered by their number, which is assigned under the claim, not by the clocks of the workers. A record
    with an earlier time than the record before it counts as made at that record's time.

    :param model: the registered model as it is now.
    :param now: present time, with a time zone.
    """
    champion = model.aliases.get(ALIAS_CHAMPION)
    changes: list[Change] = []
    version: str | None = None
    time: datetime | None = None
    for move, written in _dated(recorded_moves(model)):
        at = written if time is None else max(written, time)
        if move.champion_before != version:
            changes.append(Change(version, move.champion_before, time, at, None))
        changes.append(Change(move.champion_before, move.champion_after, at, at, move))
        version, time = move.champion_after, at
    if champion != version:
        changes.append(Change(version, champion, time, now if time is None else max(now, time), None))
    return Timeline(tuple(changes), champion, now)


def recorded_moves(model: RegisteredModel) -> tuple[MoveRecord, ...]:
    """Return every move of ``champion``, oldest first, including one whose task died before it recorded it."""
    return _with_unfinished(read_history(model.tags), model)


def recent_moves(model: RegisteredModel) -> tuple[MoveRecord, ...]:
    """Return the latest moves of ``champion`` as :func:`recorded_moves` does: at least the last one, if there is one.

    It costs the same however long the history is.
    """
    return _with_unfinished(read_recent_history(model.tags), model)


def _with_unfinished(moves: tuple[MoveRecord, ...], model: RegisteredModel) -> tuple[MoveRecord, ...]:
    unfinished = unfinished_move(model.aliases, model.tags)
    return (*moves, *((unfinished,) if unfinished else ()))


def _dated(moves: Sequence[MoveRecord]) -> Iterator[tuple[MoveRecord, datetime]]:
    for move in moves:
        try:
            at = datetime.fromisoformat(move.at)
        except (TypeError, ValueError):
            continue
        yield move, at if at.tzinfo else at.replace(tzinfo=UTC)


def champion_at(timeline: Timeline, time: datetime) -> ChampionAt:
    """Return what the champion was at one time.

    :param timeline: every change.
    :param time: the time, with a time zone.
    :raises InvalidArgumentError: when the time is in the future.
    """
    if time > timeline.until:
        raise InvalidArgumentError(
            f"time must be at or before now ({timeline.until.isoformat()}); got {time.isoformat()}"
        )
    made = [change for change in timeline.changes if change.latest <= time]
    doubtful = tuple(
        change
        for change in timeline.changes
        if change.latest > time and (change.earliest is None or change.earliest <= time)
    )
    since = made[-1] if made else None
    certain = since.after if since else None
    return ChampionAt(time, (certain, *(change.after for change in doubtful)), since, doubtful)


def changes_between(timeline: Timeline, first: datetime, second: datetime) -> tuple[Change, ...]:
    """Return the changes that were, or may have been, made after one time and up to another."""
    return tuple(
        change
        for change in timeline.changes
        if change.latest > first and (change.earliest is None or change.earliest <= second)
    )


def unrecorded_moves(model: RegisteredModel) -> tuple[UnrecordedMove, ...]:
    """Return the aliases that were moved outside airflow-mcp since the last recorded move.

    What an unfinished move of airflow-mcp has not moved yet is not reported.

    :param model: the registered model as it is now.
    :return: empty for a model that airflow-mcp never moved.
    """
    moves = recent_moves(model)
    if not moves:
        return ()
    found = settled_aliases(model.aliases, model.tags)
    return tuple(
        UnrecordedMove(alias, recorded, found.get(alias), moves[-1])
        for alias, recorded in moves[-1].left.items()
        if found.get(alias) != recorded
    )


def mover_of(model: RegisteredModel, alias: str) -> MoveRecord | None:
    """Return the record of the move that set or removed an alias.

    :param model: the registered model as it is now.
    :param alias: any alias; only ``champion`` and ``previous_champion`` are ever recorded.
    :return: None when it was moved outside airflow-mcp, or no move of it was ever recorded.
    """
    moves = recent_moves(model)
    if not moves or alias not in moves[-1].left:
        return None
    is_unrecorded = any(move.alias == alias for move in unrecorded_moves(model))
    return None if is_unrecorded else moves[-1]


def former_champions(model: RegisteredModel) -> tuple[str, ...]:
    """Return the versions that were champion and no longer are, the latest first."""
    moves = reversed(recorded_moves(model))
    named = [version for move in moves for version in (move.champion_after, move.champion_before)]
    present = model.aliases.get(ALIAS_CHAMPION)
    return tuple(dict.fromkeys(version for version in named if version not in (None, present)))


def is_way_back(model: RegisteredModel, version: str) -> bool:
    """Return whether a version was champion, by the records or by the alias ``previous_champion``."""
    return version in (model.aliases.get(ALIAS_PREVIOUS_CHAMPION), *former_champions(model))


def provenance_difference(
    first: Mapping[str, str], second: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """Compare the provenance of two versions.

    :param first: tags of the first version.
    :param second: tags of the second version.
    :return: the tags that differ, each with both values; None for a tag that is missing.
    """
    names = sorted(name for name in {*first, *second} if name.startswith(TAG_PREFIX))
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def parse_time(argument: str, text: str) -> datetime:
    """Read a time as a person writes it.

    :param argument: name of the argument, for the message.
    :param text: ISO 8601 with an offset, such as ``2026-11-21T08:00Z``.
    :raises InvalidArgumentError: when it is not ISO 8601, or has no offset and so depends on the time zone.
    """
    expected = "ISO 8601 with an offset, such as 2026-11-21T08:00Z or 2026-11-21T09:00+01:00"
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{argument} must be {expected}; got {text!r}") from error
    if time.tzinfo is None:
        raise InvalidArgumentError(
            f"{argument} must be {expected}; got {text!r}. Without an offset it depends on the reader's time zone"
        )
    return time
