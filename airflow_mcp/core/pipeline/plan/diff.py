"""The difference between two plans, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_mcp.core.identity import canonical_json
from airflow_mcp.core.pipeline.plan.entities import (
    EventSource,
    PipelinePlan,
    PlannedParam,
    PlannedTask,
    Reference,
    Template,
)

_GENERAL = ("dag_id", "environment", "description", "owner", "tags", "model_name", "experiment_name", "stages")
_MISSING = object()


def plan_diff(before: PipelinePlan, after: PipelinePlan) -> tuple[str, ...]:
    """Return the differences between two plans, one per line.

    Lines begin with ``+`` (new), ``-`` (removed) or ``~`` (changed). The text of the file, and the line of each task in
    it, are not compared.

    :param before: the old plan.
    :param after: the new plan.
    :return: empty when both plans do the same.
    """
    return (
        *_changes("pipeline", _general(before), _general(after)),
        *_changes("retries and limits", _limits(before), _limits(after)),
        *_named("trigger", _triggers(before), _triggers(after)),
        *_named("form field", _params(before), _params(after)),
        *_named("notification", _notifications(before), _notifications(after)),
        *_named("task", _tasks(before), _tasks(after)),
    )


def _general(plan: PipelinePlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in _GENERAL}


def _limits(plan: PipelinePlan) -> dict[str, Any]:
    retries = plan.retries
    return {
        "attempts": retries.attempts,
        "delay (s)": retries.delay,
        "max delay (s)": retries.max_delay,
        "time limit of a run (s)": plan.run_timeout,
        "catchup": plan.schedule.catchup,
    }


def _triggers(plan: PipelinePlan) -> dict[str, Mapping[str, Any]]:
    crons = {f"cron {cron}": {"timezone": timezone} for cron, timezone in plan.schedule.crons}
    return {**crons, **{source.name: _event(source) for source in plan.schedule.events}}


def _event(source: EventSource) -> dict[str, Any]:
    return {"kind": source.kind, **source.arguments}


def _params(plan: PipelinePlan) -> dict[str, Mapping[str, Any]]:
    return {param.name: _param(param) for param in plan.params}


def _param(param: PlannedParam) -> dict[str, Any]:
    names = ("types", "default", "title", "description", "enum", "minimum", "maximum", "sets")
    return {name: getattr(param, name) for name in names}


def _notifications(plan: PipelinePlan) -> dict[str, Mapping[str, Any]]:
    return {f"{each.webhook} ({each.format})": {"on": each.on} for each in plan.notifications}


def _tasks(plan: PipelinePlan) -> dict[str, Mapping[str, Any]]:
    return {task.task_id: _task(task) for task in plan.every_task}


def _task(task: PlannedTask) -> dict[str, Any]:
    return {"kind": task.kind, "needs": task.needs, "time limit (s)": task.timeout, **task.arguments}


def _named(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in (name for name in before if name not in after):
        yield f"- {what} {name}"
    for name, values in after.items():
        if name not in before:
            needs = values.get("needs")
            yield f"+ {what} {name}" + (f" after {', '.join(needs)}" if needs else "")
        else:
            yield from _changes(f"{what} {name}", before[name], values)


def _changes(owner: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = dict(_flat(before)), dict(_flat(after))
    for name in dict.fromkeys([*old, *new]):
        was, is_now = old.get(name, _MISSING), new.get(name, _MISSING)
        if was == is_now:
            continue
        both_lists = isinstance(was, list | tuple) and isinstance(is_now, list | tuple)
        items = list(_items(was, is_now)) if both_lists else []
        for change in items or [f"{_text(was)} -> {_text(is_now)}"]:
            yield f"~ {owner}: {name}: {change}"


def _items(before: Sequence[Any], after: Sequence[Any]) -> Iterator[str]:
    """Return what is gone from a list and what is new; nothing when only the order changed."""
    old, new = list(map(_text, before)), list(map(_text, after))
    yield from (f"- {each}" for each in old if each not in new)
    yield from (f"+ {each}" for each in new if each not in old)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _text(value: Any) -> str:
    if value is _MISSING or value is None:
        return "none"
    return value if isinstance(value, str) else canonical_json(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Reference | Template):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
