"""Helpers for the values of a plan: merged mappings, references, and templates for reused results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.pipeline.plan.entities import Reference, Template


def merge(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings at any depth; values that are not mappings are replaced.

    :param values: the values.
    :param over: values that take precedence.
    """
    merged = dict(values)
    for name, value in over.items():
        before = merged.get(name)
        is_map = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(before, value) if is_map else value  # type: ignore[arg-type]
    return merged


def references(value: Any) -> Iterator[Reference]:
    """Find the references to other tasks in arguments, at any depth.

    :param value: one argument, or all of them.
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
    """Return a template for the earlier training run to reuse; it renders empty when this run trains itself.

    :param key: ``run_id``, or the name of a candidate.
    """
    return Template(f"{{{{ (ti.xcom_pull(task_ids='begin', key='reuse')['train'] or {{}}).get('{key}', '') }}}}")


def reuses(stage: str) -> Template:
    """Return a template for whether a stage reuses the result of an earlier run.

    :param stage: the stage.
    """
    return Template(f"{{{{ ti.xcom_pull(task_ids='begin', key='reuse')['{stage}'] is not none }}}}")


def present(**values: str | None) -> dict[str, str]:
    """Return the values that are given, by name."""
    return {name: value for name, value in values.items() if value}


def seconds(duration: str | None) -> int | None:
    """Return a time limit in seconds; None for no limit.

    :param duration: as the file writes it, for example ``30m``.
    """
    return None if duration is None else seconds_of(duration)
