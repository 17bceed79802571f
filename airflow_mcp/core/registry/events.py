"""Changes of a model registry: what is remembered of each registered model, and which events follow from the next look.

An event is always made from the remembered state and the model as it is now. The same state and the same change have
the same ``key``, so a receiver can recognise an event that is delivered twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from airflow_mcp.core.contract import (
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    ALIASES_OF_OURS,
    TAG_CLAIM_PREFIX,
    TAG_LAST_MOVE,
    TAG_MOVE_PREFIX,
    TAG_PACKED_MOVES_PREFIX,
)
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.history import mover_of, recent_moves, recorded_moves
from airflow_mcp.core.registry.moves import MoveRecord, unfinished_move

EventName = Literal["new_version", "alias_moved", "alias_removed", "model_tag_changed", "version_tag_changed"]
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)
MOVED_OUTSIDE = "moved outside"
"""The mover of an alias that was moved without a record."""
LONGEST_VALUE = 256
"""Characters; a longer tag value is replaced by its beginning and its hash."""
_EMPTY_FIELDS = {"version": "", "run_id": "", "alias": "", "tag": "", "from": None, "to": None, "by": "", "reason": ""}
_OWN_TAGS = (TAG_CLAIM_PREFIX, TAG_MOVE_PREFIX, TAG_LAST_MOVE, TAG_PACKED_MOVES_PREFIX)
"""Bookkeeping that changes with every move, for which there is an alias event."""


@dataclass(frozen=True)
class RegistryScope:
    """The registered models that are watched."""

    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    """Every model whose name begins with one of them; the empty prefix means all models."""

    @classmethod
    def of(cls, models: Iterable[str]) -> RegistryScope:
        """Read names; a trailing ``*`` is a prefix match."""
        given = frozenset(models)
        prefixes = frozenset(name for name in given if name.endswith("*"))
        return cls(given - prefixes, frozenset(prefix[:-1] for prefix in prefixes))

    @classmethod
    def union(cls, scopes: Iterable[RegistryScope]) -> RegistryScope:
        """Return the scope of all models of several scopes."""
        return cls.of(name for scope in scopes for name in scope.to_json())

    def has(self, name: str) -> bool:
        """Return whether a model is watched."""
        return name in self.names or any(name.startswith(prefix) for prefix in self.prefixes)

    def includes(self, other: RegistryScope) -> bool:
        """Return whether every model of another scope is in this one."""
        return all(map(self.has, other.names)) and all(
            any(prefix.startswith(own) for own in self.prefixes) for prefix in other.prefixes
        )

    def to_json(self) -> list[str]:
        """Return the names that :meth:`of` reads."""
        return sorted([*self.names, *(f"{prefix}*" for prefix in self.prefixes)])


@dataclass(frozen=True)
class Wanted:
    """The changes that are events."""

    events: frozenset[EventName]
    aliases: frozenset[str] | None = None
    """None: every alias."""
    tags: frozenset[str] | None = None
    """None: every tag except the bookkeeping of airflow-mcp."""

    def is_alias(self, alias: str) -> bool:
        """Return whether an alias is watched."""
        return self.aliases is None or alias in self.aliases

    def values(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the watched tags, with long values shortened."""
        return {
            name: _kept(value)
            for name, value in sorted(tags.items())
            if (not name.startswith(_OWN_TAGS) if self.tags is None else name in self.tags)
        }


@dataclass(frozen=True)
class SeenModel:
    """A registered model as it was read once."""

    model: RegisteredModel
    versions: Mapping[int, ModelVersion]
    """Versions by number: the needed ones, or all when ``is_complete``."""
    is_complete: bool = False


@dataclass(frozen=True)
class ModelState:
    """What is remembered of a registered model."""

    created: int = 0
    """Creation time, milliseconds since the epoch: a later model of the same name is another model."""
    newest: int = 0
    waiting: tuple[int, ...] = ()
    """Versions up to the newest that were not READY."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    move: int = 0
    """Number of the last recorded move of ``champion`` for which there was an event."""
    generation: int = 0
    """Number of looks that had an event without a number of its own."""
    tags: Mapping[str, str] | None = None
    """None: tags were not watched."""
    version_tags: Mapping[str, Mapping[str, str]] | None = None
    """By version; None: tags of versions were not watched."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "created": self.created,
            "newest": self.newest,
            "waiting": list(self.waiting),
            "aliases": dict(self.aliases),
            "move": self.move,
            "generation": self.generation,
            "tags": self.tags and dict(self.tags),
            "version_tags": self.version_tags and {name: dict(tags) for name, tags in self.version_tags.items()},
        }


@dataclass(frozen=True)
class RegistryWatermark:
    """What a watcher of the registry remembers."""

    scope: RegistryScope
    """What was watched: a model in it that is not in ``models`` did not exist."""
    models: Mapping[str, ModelState]

    def before(self, name: str) -> ModelState | None:
        """Return what is remembered of a model; None when it was not watched, so its first look makes no events."""
        return self.models.get(name) or (ModelState() if self.scope.has(name) else None)

    def to_json(self) -> dict[str, Any]:
        """Return it as the JSON value that a store keeps."""
        return {
            "watched": self.scope.to_json(),
            "models": {name: state.to_json() for name, state in sorted(self.models.items())},
        }


def read_registry_watermark(stored: Any) -> RegistryWatermark | None:
    """Read a watermark from a store; None when there is none, or the stored value is something else."""
    try:
        models = {
            str(name): replace(ModelState(**fields), waiting=tuple(map(int, fields["waiting"])))
            for name, fields in stored["models"].items()
        }
        return RegistryWatermark(RegistryScope.of(map(str, stored["watched"])), models)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def versions_to_read(before: ModelState | None, model: RegisteredModel, wanted: Wanted) -> frozenset[int]:
    """Return the versions that have to be read in addition to the registered model.

    :param before: what is remembered; None before the first look.
    :param model: the registered model as it is now.
    :param wanted: the changes that are events.
    :return: numbers of versions.
    """
    known = {int(version.version) for version in model.latest_versions}
    state = _same_model(before, model)
    if state is None:
        return frozenset()
    needed: set[int] = set()
    if "new_version" in wanted.events:
        needed |= {*range(state.newest + 1, model.newest + 1), *state.waiting}
    if "alias_moved" in wanted.events:
        moved = model.aliases.items() - state.aliases.items()
        needed |= {int(version) for alias, version in moved if wanted.is_alias(alias) and version.isdigit()}
    return frozenset(needed - known)


def seems_unrecorded(before: ModelState | None, model: RegisteredModel) -> bool:
    """Return whether ``champion`` or ``previous_champion`` seems to have moved without a record.

    The caller then reads the model again before it reports that: aliases and tags may have been read one after the
    other, and a recorded move writes its record before it moves the alias.
    """
    state = _same_model(before, model)
    if state is None:
        return False
    changes = [*_champion_changes(state, model), *_other_changes(state, model)]
    return any(change.move is None for change in changes if change.alias in ALIASES_OF_OURS)


def look_at_model(
    before: ModelState | None, seen: SeenModel, wanted: Wanted
) -> tuple[ModelState, list[dict[str, Any]], bool]:
    """Compare a registered model with what is remembered of it.

    :param before: what is remembered; None before the first look, which never makes events.
    :param seen: the model as it is now.
    :param wanted: the changes that are events.
    :return: what to remember; the events, as far as known in the order in which they happened; and whether the same
        model would make no further events later (false while a version is not READY or a move is in progress).
    """
    model = seen.model
    state = _same_model(before, model)
    held = _is_moving(model)
    first = _first_state(seen, wanted, state)
    if state is None:
        return first, [], not first.waiting
    events = [*_version_events(state, seen, wanted), *_tag_events(state, seen, wanted)]
    changes = [*_champion_changes(state, model), *_other_changes(state, model)]
    events += [event for change in changes for event in _alias_event(change, state, seen, wanted)]
    aliases = dict(model.aliases)
    if held:
        aliases = {**aliases, ALIAS_PREVIOUS_CHAMPION: state.aliases.get(ALIAS_PREVIOUS_CHAMPION, "")}
        aliases = {alias: version for alias, version in aliases.items() if version}
    unnumbered = [event.pop("unnumbered") for event in events]
    after = replace(first, aliases=aliases, generation=state.generation + any(unnumbered))
    return after, events, not (held or after.waiting)


def describe_change(change: Mapping[str, Any]) -> str:
    """Return one change as a short text.

    :param change: an event of :func:`look_at_model`.
    """
    model = f"model {change.get('model_name')}"
    version = f"version {change.get('version')} of {model}"
    match change.get("event"):
        case "new_version":
            return version
        case "alias_moved":
            return f"{version}, now {change.get('alias')} ({change.get('by')})"
        case "alias_removed":
            return f"alias {change.get('alias')} of {model} removed ({change.get('by')})"
        case _:
            return f"tag {change.get('tag')} of {version if change.get('version') else model}"


# --- state ------------------------------------------------------------------------------------------------------------


def _same_model(before: ModelState | None, model: RegisteredModel) -> ModelState | None:
    """Return what is remembered of this model, ignoring an earlier model of the same name."""
    if before is None or before.created in (0, model.creation_timestamp):
        return before
    return ModelState()


def _first_state(seen: SeenModel, wanted: Wanted, state: ModelState | None) -> ModelState:
    """Return the state that remembers a model as it is now."""
    model = seen.model
    lowest = 1 if state is None else state.newest + 1
    candidates = {*range(lowest, model.newest + 1), *(state.waiting if state else ())}
    waiting = [
        number
        for number in sorted(candidates)
        if number in seen.versions and seen.versions[number].status == "PENDING_REGISTRATION"
    ]
    return ModelState(
        created=model.creation_timestamp,
        newest=max(model.newest, state.newest if state else 0),
        waiting=tuple(waiting),
        aliases=dict(model.aliases),
        move=max((state.move if state else 0, *(move.number for move in recent_moves(model)))),
        tags=wanted.values(model.tags) if "model_tag_changed" in wanted.events else None,
        version_tags={str(number): wanted.values(version.tags) for number, version in sorted(seen.versions.items())}
        if "version_tag_changed" in wanted.events and seen.is_complete
        else None,
    )


def _is_moving(model: RegisteredModel) -> bool:
    """Return whether a move is unfinished; it sets ``previous_champion`` after ``champion``."""
    return unfinished_move(model.aliases, model.tags) is not None


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AliasChange:
    alias: str
    before: str | None
    after: str | None
    move: MoveRecord | None = None
    number: int = 0
    """Number of this recorded move of ``champion``, or of the recorded move before it."""
    is_numbered: bool = False


def _champion_changes(state: ModelState, model: RegisteredModel) -> Iterator[_AliasChange]:
    """Yield every move of ``champion`` since then: recorded moves, and moves outside airflow-mcp in the gaps."""
    position, number = state.aliases.get(ALIAS_CHAMPION), state.move
    moves = recent_moves(model)
    if moves and moves[0].number > state.move + 1:  # older ones may have come since then too
        moves = recorded_moves(model)
    for move in moves:
        if move.number <= state.move:
            continue
        if move.champion_before != position:
            yield _AliasChange(ALIAS_CHAMPION, position, move.champion_before, number=number)
        position, number = move.champion_after, move.number
        yield _AliasChange(ALIAS_CHAMPION, move.champion_before, position, move, number, is_numbered=True)
    present = model.aliases.get(ALIAS_CHAMPION)
    if present != position:
        yield _AliasChange(ALIAS_CHAMPION, position, present, number=number)


def _other_changes(state: ModelState, model: RegisteredModel) -> Iterator[_AliasChange]:
    for alias in sorted({*state.aliases, *model.aliases} - {ALIAS_CHAMPION}):
        before, after = state.aliases.get(alias), model.aliases.get(alias)
        if before == after or (alias == ALIAS_PREVIOUS_CHAMPION and _is_moving(model)):
            continue
        yield _AliasChange(alias, before, after, mover_of(model, alias))


def _alias_event(change: _AliasChange, state: ModelState, seen: SeenModel, wanted: Wanted) -> Iterator[dict[str, Any]]:
    name: EventName = "alias_removed" if change.after is None else "alias_moved"
    if name not in wanted.events or not wanted.is_alias(change.alias):
        return
    move = change.move
    version = seen.versions.get(int(change.after)) if change.after and change.after.isdigit() else None
    mark = f"move/{change.number}"
    if not change.is_numbered:
        mark = f"{state.generation}/alias/{change.alias}/{change.number}/{change.before or ''}/{change.after or ''}"
    told = {
        "alias": change.alias,
        "version": change.after or "",
        "run_id": (move.run_id if move and change.is_numbered else "") or (version.run_id if version else ""),
        "from": change.before,
        "to": change.after,
        "by": move.by if move else MOVED_OUTSIDE,
        "reason": move.reason if move else "",
    }
    yield _event(seen.model, name, mark, told, is_numbered=change.is_numbered)


def _version_events(state: ModelState, seen: SeenModel, wanted: Wanted) -> Iterator[dict[str, Any]]:
    if "new_version" not in wanted.events:
        return
    for number in sorted({*range(state.newest + 1, seen.model.newest + 1), *state.waiting}):
        version = seen.versions.get(number)  # None: it was deleted meanwhile
        if version is not None and version.status == "READY":
            told = {"version": version.version, "run_id": version.run_id, "to": version.version}
            yield _event(seen.model, "new_version", f"version/{number}", told)


def _tag_events(state: ModelState, seen: SeenModel, wanted: Wanted) -> Iterator[dict[str, Any]]:
    if "model_tag_changed" in wanted.events and state.tags is not None:
        for changed in _differences(state.tags, wanted.values(seen.model.tags)):
            yield _tag_event(seen.model, state, changed)
    if "version_tag_changed" not in wanted.events or state.version_tags is None or not seen.is_complete:
        return
    for number, version in sorted(seen.versions.items()):
        known = state.version_tags.get(str(number))  # None: a new version, whose tags came with it
        for changed in _differences(known, wanted.values(version.tags)) if known is not None else ():
            yield _tag_event(seen.model, state, changed, version)


_Difference = tuple[str, str | None, str | None]
"""A tag, its value before, and its value now."""


def _tag_event(
    model: RegisteredModel, state: ModelState, changed: _Difference, version: ModelVersion | None = None
) -> dict[str, Any]:
    tag, before, after = changed
    number, run_id = (version.version, version.run_id) if version else ("", "")
    values = hashlib.sha256(f"{before!r} {after!r}".encode()).hexdigest()[:16]
    name: EventName = "version_tag_changed" if version else "model_tag_changed"
    told = {"tag": tag, "version": number, "run_id": run_id, "from": before, "to": after}
    return _event(model, name, f"{state.generation}/tag/{number}/{tag}/{values}", told, is_numbered=False)


def _event(
    model: RegisteredModel, name: EventName, mark: str, told: Mapping[str, Any], *, is_numbered: bool = True
) -> dict[str, Any]:
    """Return an event; every event has all fields."""
    return {
        "event": name,
        "model_name": model.name,
        **_EMPTY_FIELDS,
        **told,
        "key": f"{model.name}/{model.creation_timestamp}/{mark}",
        "unnumbered": not is_numbered,
    }


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[_Difference]:
    names = sorted({*before, *after})
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _kept(value: str) -> str:
    if len(value) <= LONGEST_VALUE:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:16]
    return f"{value[: LONGEST_VALUE - 40]}… (sha256:{digest})"
