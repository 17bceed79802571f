"""The end of a training's Dag run, as its last task sees it in the states of the other tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.bases.skipmixin import XCOM_SKIPMIXIN_FOLLOWED, XCOM_SKIPMIXIN_KEY, XCOM_SKIPMIXIN_SKIPPED

from airflow_mcp.core.argument import flag
from airflow_mcp.core.retrain.documents import TrainingOutcome

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

_NOT_AFTER_SUCCESS = ("all_failed", "one_failed", "all_skipped")
"""Trigger rules with which Airflow skips a task because the tasks before it succeeded."""


class Ending(NamedTuple):
    """The end of a Dag run, as far as its tasks show it."""

    outcome: TrainingOutcome
    """The outcome when there is no MLflow run of a training; ``failed`` when the Dag run did not end well."""
    detail: str


def read_ending(operator: BaseOperator, context: Context) -> Ending:
    """Return how the Dag run ended.

    When a person marks a Dag run as failed or successful, Airflow sets the tasks that have not run to skipped. Such
    a Dag run did not end well, unlike one in which a task decided to skip.

    :param operator: the running task, which is the last one.
    :param context: its context.
    """
    instance: Any = context["ti"]
    others = [
        task
        for task in instance.get_task_breadcrumbs(instance.dag_id, instance.run_id)
        if task["task_id"] != operator.task_id
    ]
    failed = _named(others, "failed")
    if failed:
        return Ending("failed", f"task {', '.join(failed)} failed")
    skipped = _named(others, "skipped")
    stopped = [task_id for task_id in skipped if _is_stopped(task_id, others, operator, context)]
    if stopped:
        return Ending("failed", f"task {', '.join(stopped)} did not run: somebody ended the Dag run before")
    if skipped:
        return Ending("unchanged", f"task {', '.join(skipped)} was skipped: nothing has changed")
    return Ending("failed" if _named(others, "upstream_failed") else "unchanged", "no training was done")


def _named(tasks: Iterable[Mapping[str, Any]], state: str) -> list[str]:
    return sorted({task["task_id"] for task in tasks if str(getattr(task["state"], "value", task["state"])) == state})


def _is_stopped(task_id: str, others: Iterable[Mapping[str, Any]], operator: BaseOperator, context: Context) -> bool:
    """Return whether a task is skipped although neither it nor a task before it decided that."""
    task = operator.dag.task_dict.get(task_id)
    if task is None or task.trigger_rule in _NOT_AFTER_SUCCESS:
        return False
    before = task.upstream_task_ids
    if before & set(_named(others, "skipped")) or any(_was_told(task_id, other, context) for other in before):
        return False
    # Airflow gives a task that it skips without running it a duration of 0, and a mapped one without items none.
    has_run = any(each["duration"] != 0 for each in others if each["task_id"] == task_id)
    return not has_run or _waited_for_a_retry(task, operator, context)


def _was_told(task_id: str, other: str, context: Context) -> bool:
    """Return whether a task told Airflow to skip another one, as a branch or a gate does."""
    pushed = context["ti"].xcom_pull(task_ids=other, key=XCOM_SKIPMIXIN_KEY)
    told = [pushed] if isinstance(pushed, Mapping) else list(pushed or ())
    return any(
        task_id in (each.get(XCOM_SKIPMIXIN_SKIPPED) or ())
        or (XCOM_SKIPMIXIN_FOLLOWED in each and task_id not in each[XCOM_SKIPMIXIN_FOLLOWED])
        for each in told
    )


def _waited_for_a_retry(task: Any, operator: BaseOperator, context: Context) -> bool:
    """Return whether a task that ran cannot have skipped itself: it does that in a dry run only, and this is none."""
    if "dry_run" not in task.template_fields:
        return False
    return not flag("dry_run", operator.render_template(getattr(task, "dry_run", False), context))
