"""Values of a plan: mappings merged, references found, and templates that say what a run hands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mcp.core.pipeline.file.fields import seconds_of
from airflow_mcp.core.pipeline.plan.entities import Reference, Template


def merge(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings: maps merge, everything else is replaced.

    :param values: the values.
    :param over: values that go before them.
    """
    merged = dict(values)
    for name, value in over.items():
        before = merged.get(name)
        is_map = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(before, value) if is_map else value  # type: ignore[arg-type]
    return merged


def references(value: Any) -> Iterator[Reference]:
    """Find the values of other tasks in arguments, at any depth.

    :param value: an argument, or all of them.
    """
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def reused(key: str) -> Template:
    """Read which training of an earlier run is handed on; an empty text when this run trains itself.

    :param key: ``run_id``, or the name of a candidate.
    """
    return Template(f"{{{{ (ti.xcom_pull(task_ids='begin', key='reuse')['train'] or {{}}).get('{key}', '') }}}}")


def reuses(stage: str) -> Template:
    """Say whether a stage hands on the result of an earlier run.

    :param stage: the stage.
    """
    return Template(f"{{{{ ti.xcom_pull(task_ids='begin', key='reuse')['{stage}'] is not none }}}}")


def present(**values: str | None) -> dict[str, str]:
    """Give the values that there are, by their names."""
    return {name: value for name, value in values.items() if value}


def seconds(duration: str | None) -> int | None:
    """Return a time limit in seconds; None for no limit.

    :param duration: as the file writes it, for example ``30m``.
    """
    return None if duration is None else seconds_of(duration)
