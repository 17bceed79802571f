"""The release of a version after an approval: the task that asks for it, and the Dag that asks people first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from airflow_mcp.core.identity import PARENT_RUN
from airflow_mcp.core.pipeline.file.stages import ApprovalStage
from airflow_mcp.core.pipeline.plan.entities import PlannedParam, PlannedRelease, PlannedTask, Reference, Template
from airflow_mcp.core.pipeline.plan.layout import ASK_RELEASE, BEGIN, LOAD_CHECK, REQUEST_RELEASE, Layout
from airflow_mcp.core.pipeline.plan.registry import DRY_RUN
from airflow_mcp.core.pipeline.plan.values import references

RELEASE_SUFFIX = "__release"
"""Follows the name of a pipeline in the id of its release Dag."""
UNDECLARED_RISK = "high"
"""Risk of a model about which the file says nothing."""
_FROM_RUN = {
    "version": Reference(LOAD_CHECK, "version"),
    "expected_champion": Reference("gate", "champion_version"),
    "reason": Reference(BEGIN, "reason"),
    "load_seconds": Reference(LOAD_CHECK, "load_seconds"),
}
"""Field of the release Dag's form to the result of the training run that it holds."""
_GIVEN: Mapping[Reference, Template] = {
    reference: Template(f"{{{{ params.{name} or '' }}}}") for name, reference in _FROM_RUN.items()
}
"""Result of the training run to the field that stands for it: a release has no training of its own."""
_PARAMS = (
    PlannedParam(
        "version", ("string",), None, "Version", "Version to release.", pattern=r"^[1-9]\d*$", is_required=True
    ),
    PlannedParam(
        "expected_champion",
        ("string",),
        "none",
        "Expected champion",
        "Champion that the gate compared with, or none. The release is refused when it is another one by then.",
        pattern=r"^([1-9]\d*|none)$",
    ),
    PlannedParam(
        "reason", ("null", "string"), None, "Reason", "Why it is released; recorded with the move.", max_length=2000
    ),
    PlannedParam(
        "load_seconds",
        ("number",),
        60,
        "Load time",
        "Seconds that the version needs to load, for the limits of a model server.",
        minimum=0,
    ),
)


def ask_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``approval``: start the release Dag once per run, on behalf of whoever started this run.

    :param layout: the pipeline.
    """
    arguments = {
        "trigger_dag_id": release_dag_id(layout),
        # One release per run: a retry or a clear finds it and is skipped.
        "trigger_run_id": Template("release__{{ run_id }}"),
        "conf": {
            **_FROM_RUN,
            PARENT_RUN: {"dag_id": Template("{{ dag.dag_id }}"), "dag_run_id": Template("{{ run_id }}")},
        },
        "skip_when_already_exists": True,
        "fail_when_dag_is_paused": True,
    }
    needs = layout.needs("approval", *layout.before("approval"))
    yield PlannedTask(ASK_RELEASE, "ask_release", "approval", arguments, needs, layout.origin("approval"))


def release_dag_id(layout: Layout) -> str:
    """Return the id of the Dag that asks people and then releases a version."""
    return f"{layout.dag_id}{RELEASE_SUFFIX}"


def planned_release(layout: Layout, tasks: Iterable[PlannedTask]) -> PlannedRelease | None:
    """Plan the release Dag: one task asks, one more per approval, then the stages after the approval.

    :param layout: the pipeline.
    :param tasks: tasks of the stages after the approval, as they would be without it.
    :return: None when nobody is asked in this environment.
    """
    stage = layout.approval
    if stage is None:
        return None
    asking = tuple(_asking(layout, stage))
    own = {task.task_id: task for task in tasks}
    moved = (_after_approval(task, own, asking[-1].task_id) for task in own.values())
    return PlannedRelease(release_dag_id(layout), _PARAMS, (*asking, *moved))


def _asking(layout: Layout, stage: ApprovalStage) -> Iterator[PlannedTask]:
    shared = {
        "model_name": layout.model_name,
        "version": _GIVEN[_FROM_RUN["version"]],
        "seats": stage.seats,
        "environment": layout.environment,
    }
    origin = layout.origin("approval")
    request = {**shared, "risk": layout.spec.risk or UNDECLARED_RISK}
    yield PlannedTask(REQUEST_RELEASE, "request_release", "approval", request, (), origin)
    before = REQUEST_RELEASE
    for number in range(1, stage.seats + 1):
        seat = {**shared, "seat": number}
        yield PlannedTask(f"seat_{number}", "approval_seat", "approval", seat, (before,), origin)
        before = f"seat_{number}"


def _after_approval(task: PlannedTask, own: Mapping[str, PlannedTask], last_seat: str) -> PlannedTask:
    """Return a task as the release Dag has it: results of the training come from its form, and it waits for a seat."""
    arguments = {name: _given(value) for name, value in task.arguments.items() if value != DRY_RUN}
    taken = [reference.task_id for reference in references(arguments)]
    needs = tuple(dict.fromkeys(need for need in (*task.needs, *taken) if need in own))
    return replace(task, arguments=arguments, needs=needs or (last_seat,))


def _given(value: Any) -> Any:
    if isinstance(value, Reference):
        return _GIVEN.get(value, value)
    if isinstance(value, Mapping):
        return {name: _given(each) for name, each in value.items()}
    return [_given(each) for each in value] if isinstance(value, list | tuple) else value
