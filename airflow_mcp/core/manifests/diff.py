"""The difference between the objects that are there and those that are wanted, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_mcp.core.identity import canonical_json

_MISSING = object()
_KEYS = ("name", "containerPort", "mountPath", "key", "topologyKey", "type", "port")
"""Fields that name an item of a list, the first that every item has counts."""


def manifest_diff(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], *, is_live: bool = False
) -> tuple[str, ...]:
    """Return the differences between two sets of objects, one per line.

    Lines begin with ``+`` (new), ``-`` (removed) or ``~`` (changed, with both values).

    :param before: the old objects.
    :param after: the new objects.
    :param is_live: whether the old objects were read from a cluster: what only they have is then a default of the
        cluster or belongs to somebody else, and is not compared.
    :return: empty when nothing changes.
    """
    old = {identity_of(each): each for each in before}
    new = {identity_of(each): each for each in after}
    lines = [f"- {name}" for name in old if name not in new and not is_live]
    for name, manifest in new.items():
        if name not in old:
            lines.append(f"+ {name}")
        else:
            lines += [f"~ {name} {change}" for change in _changes("", old[name], manifest, is_live)]
    return tuple(lines)


def identity_of(manifest: Mapping[str, Any]) -> str:
    """Return kind and name of an object: ``Deployment fraud``."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _changes(place: str, old: Any, new: Any, is_live: bool) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*new, *(name for name in old if name not in new and not is_live)]
        for name in names:
            inner = f"{place}.{name}" if place else str(name)
            yield from _changes(inner, old.get(name, _MISSING), new.get(name, _MISSING), is_live)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        yield from _list_changes(place, old, new, is_live)
    elif old != new:
        yield f"{place}: {_text(old)} -> {_text(new)}"


def _list_changes(place: str, old: Sequence[Any], new: Sequence[Any], is_live: bool) -> Iterator[str]:
    """Compare items that have the same name, as Kubernetes does; other lists by position."""
    key = next((key for key in _KEYS if _is_named_by(key, [*old, *new])), None)
    before = {str(item[key]) if key else str(place): item for place, item in enumerate(old)}
    after = {str(item[key]) if key else str(place): item for place, item in enumerate(new)}
    if len(before) != len(old) or len(after) != len(new):
        if list(old) != list(new):
            yield f"{place}: {_text(old)} -> {_text(new)}"
        return
    for name in dict.fromkeys([*before, *after]):
        if is_live and key and name not in after:
            continue
        yield from _changes(f"{place}[{name}]", before.get(name, _MISSING), after.get(name, _MISSING), is_live)


def _is_named_by(key: str, items: Sequence[Any]) -> bool:
    return bool(items) and all(isinstance(item, Mapping) and key in item for item in items)


def _text(value: Any) -> str:
    return "(none)" if value is _MISSING else canonical_json(value)
