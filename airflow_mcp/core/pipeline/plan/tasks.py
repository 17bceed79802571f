"""The tasks of a pipeline, stage by stage, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from airflow_mcp.core.pipeline.plan.deploying import deploy_tasks
from airflow_mcp.core.pipeline.plan.entities import PlannedRelease, PlannedTask
from airflow_mcp.core.pipeline.plan.judging import evaluate_tasks, gate_tasks, outcome_task
from airflow_mcp.core.pipeline.plan.layout import Layout
from airflow_mcp.core.pipeline.plan.registry import promote_tasks, register_tasks
from airflow_mcp.core.pipeline.plan.releasing import ask_tasks, planned_release
from airflow_mcp.core.pipeline.plan.values import references
from airflow_mcp.core.pipeline.plan.working import begin_task, build_tasks, own_step, train_tasks

_OF_STAGE: Mapping[str, Callable[[Layout], Iterator[PlannedTask]]] = {
    "build": build_tasks,
    "train": train_tasks,
    "evaluate": evaluate_tasks,
    "gate": gate_tasks,
    "register": register_tasks,
    "approval": ask_tasks,
    "deploy": deploy_tasks,
    "promote": promote_tasks,
}
"""Built-in stage to its tasks."""


def planned_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan all tasks, each after what it needs; a task needs those whose results it takes.

    :param layout: the pipeline.
    """
    for task in _tasks(layout):
        taken = (reference.task_id for reference in references(task.arguments))
        yield replace(task, needs=tuple(dict.fromkeys((*task.needs, *taken))))


def release_of(layout: Layout) -> PlannedRelease | None:
    """Plan the release Dag; None when nobody is asked before a release.

    :param layout: the pipeline.
    """
    return planned_release(layout, (task for name in layout.released for task in _OF_STAGE[name](layout)))


def _tasks(layout: Layout) -> Iterator[PlannedTask]:
    own = {stage.name: stage for stage in layout.custom}
    yield begin_task(layout)
    for name in layout.stages:
        if name in own:
            yield own_step(layout, own[name])
        else:
            yield from _OF_STAGE[name](layout)
    if "gate" in layout.built_in:
        yield outcome_task(layout)
