"""The Airflow Dag of a plan. The plan decides everything; this module only translates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetAny,
    AssetOrTimeSchedule,
    AssetWatcher,
    BaseOperator,
    CronTriggerTimetable,
    MultipleCronTriggerTimetable,
    Param,
    literal,
)

from airflow_mcp.core.notification import NoticeEvent
from airflow_mcp.core.pipeline.plan.entities import (
    EventSource,
    PipelinePlan,
    PlannedParam,
    PlannedRelease,
    PlannedTask,
    Reference,
    Schedule,
    TaskKind,
    Template,
)
from airflow_mcp.notifications.webhook import WebhookNotifier
from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.gate_approval import RecordApprovalOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.model_server import DeployModelServerOperator
from airflow_mcp.operators.pipeline import BeginPipelineOperator, require_pinned_spec
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mcp.operators.replay import ReplayModelOperator
from airflow_mcp.operators.retrain import RetrainOutcomeOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.operators.select import SelectModelOperator
from airflow_mcp.operators.step import RunStepOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.triggers.data import DatasetVersionTrigger
from airflow_mcp.triggers.drift import DriftVerdictTrigger
from airflow_mcp.triggers.git import GitCommitTrigger
from airflow_mcp.triggers.registry import RegistryEventTrigger

OPERATORS: Mapping[TaskKind, type[BaseOperator]] = {
    "begin": BeginPipelineOperator,
    "build": RunStepOperator,
    "pin_data": PinDatasetOperator,
    "train": TrainModelOperator,
    "evaluate": EvaluateModelOperator,
    "select": SelectModelOperator,
    "replay": ReplayModelOperator,
    "gate": EvaluationGateOperator,
    "register": RegisterModelOperator,
    "load_check": LoadCheckOperator,
    "deploy_server": DeployModelServerOperator,
    "rollout": RolloutModelOperator,
    "promote": PromoteModelOperator,
    "outcome": RetrainOutcomeOperator,
    "step": RunStepOperator,
    "approve": ApprovalOperator,
    "record_approval": RecordApprovalOperator,
    "ask_release": TriggerDagRunOperator,
    "request_release": RequestReleaseOperator,
    "approval_seat": ApprovalSeatOperator,
}
_TRIGGERS: Mapping[str, Callable[..., Any]] = {
    "commit": GitCommitTrigger,
    "data": DatasetVersionTrigger,
    "model": RegistryEventTrigger,
    "drift": DriftVerdictTrigger,
}
_LIMITS: Mapping[TaskKind, str] = {"deploy_server": "timeout"}
"""Arguments that are the time limit of a task; of all others it is ``workload_timeout``."""
_JINJA_MARKS = ("{{", "{%", "{#")
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_AT_THE_NEXT_TICK = timedelta(0)
"""A Dag that is unpaused waits for its next cron time, and does not run for the last one."""
TAG = "airflow-mcp"
_LEAST_RETRIES = 5
"""Retries in a release Dag: Airflow can lose the state of a task that was answered right after it began to wait, and a
retry finds the answer."""
_RELEASES = 64
"""Release runs at the same time: one that waits for people holds no worker, and must not hold up the next one."""


def render(plan: PipelinePlan) -> DAG:
    """Build the Dag of a plan; the same plan gives the same Dag.

    :param plan: the plan.
    """
    dag = DAG(
        dag_id=plan.dag_id,
        description=plan.description or None,
        doc_md=documentation(plan),
        schedule=_schedule(plan.schedule),
        start_date=_FIRST_DAY if plan.schedule.catchup else None,
        catchup=plan.schedule.catchup,
        max_active_runs=1,
        dagrun_timeout=_seconds(plan.run_timeout),
        tags=sorted({TAG, plan.environment, *plan.tags}),
        on_failure_callback=_notifiers(plan, "failure"),
        on_success_callback=_notifiers(plan, "success"),
    )
    _fill(dag, plan, plan.tasks, _shared(plan), is_pinned=True)
    # Last, because Airflow copies the params of a Dag for each class in the hierarchy of each of its operators.
    for param in plan.params:
        dag.params[param.name] = _param(param)
    return dag


def render_all(plan: PipelinePlan) -> tuple[DAG, ...]:
    """Build the Dag of a plan, and its release Dag when people are asked before a release.

    :param plan: the plan.
    """
    return (render(plan), *([render_release(plan, plan.release)] if plan.release is not None else []))


def render_release(plan: PipelinePlan, release: PlannedRelease) -> DAG:
    """Build the Dag that asks people, and then promotes a version or rolls it out.

    It is not paused when Airflow first sees it, because nothing but a pipeline's run or a person starts it.

    :param plan: the plan of the pipeline.
    :param release: its release.
    """
    dag = DAG(
        dag_id=release.dag_id,
        description=f"Ask people, then release a version of {plan.model_name}",
        doc_md=documentation(plan),
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=_RELEASES,
        tags=sorted({TAG, plan.environment, *plan.tags}),
        on_failure_callback=_notifiers(plan, "failure"),
        on_success_callback=_notifiers(plan, "success"),
    )
    shared = {**_shared(plan), "retries": max(_LEAST_RETRIES, plan.retries.attempts)}
    # Not pinned: a release acts by the file as it is then, because its run trains nothing.
    _fill(dag, plan, release.tasks, shared, is_pinned=False)
    for param in release.params:
        dag.params[param.name] = _param(param)
    return dag


def _fill(
    dag: DAG, plan: PipelinePlan, planned: Iterable[PlannedTask], shared: Mapping[str, Any], *, is_pinned: bool
) -> None:
    """Add the tasks to a Dag, each after what it needs."""
    tasks: dict[str, BaseOperator] = {}
    for task in planned:
        operator = _task(plan, task, tasks, {**shared, "dag": dag}, is_pinned=is_pinned)
        operator.set_upstream([tasks[need] for need in task.needs if need not in operator.upstream_task_ids])
        tasks[task.task_id] = operator


def documentation(plan: PipelinePlan) -> str:
    """Return the documentation of the Dag: description, and the source with its location.

    :param plan: the plan.
    """
    fence = "```"
    while fence in plan.source_text:
        fence += "`"
    described = f"{plan.description}\n\n" if plan.description else ""
    return (
        f"{described}Rendered for `{plan.environment}` from `{plan.source_file}`. Edit that file, not the Dag.\n\n"
        f"{fence}yaml\n{plan.source_text.rstrip()}\n{fence}\n"
    )


def _shared(plan: PipelinePlan) -> dict[str, Any]:
    """Return the arguments that all tasks share."""
    return {
        "owner": plan.owner,
        "retries": plan.retries.attempts,
        "retry_delay": timedelta(seconds=plan.retries.delay),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(seconds=plan.retries.max_delay),
    }


def _task(
    plan: PipelinePlan,
    task: PlannedTask,
    before: Mapping[str, BaseOperator],
    shared: Mapping[str, Any],
    *,
    is_pinned: bool,
) -> BaseOperator:
    operator = OPERATORS[task.kind]
    templated = frozenset(operator.template_fields)
    arguments = {
        name: _argument(value, before, is_templated=name in templated) for name, value in task.arguments.items()
    }
    if task.timeout is not None:
        arguments[_LIMITS.get(task.kind, "workload_timeout")] = timedelta(seconds=task.timeout)
    if task.kind == "begin":
        arguments["spec_hash"] = plan.spec_hash
    elif is_pinned and task.kind != "outcome":  # outcome runs even when nothing was pinned, and needs no spec
        arguments["pre_execute"] = require_pinned_spec(plan.spec_hash)
    if task.kind == "gate":
        arguments["on_failure_callback"] = _notifiers(plan, "gateRejected")
    return operator(task_id=task.task_id, doc_md=task.origin, **shared, **arguments)


def _argument(value: Any, before: Mapping[str, BaseOperator], *, is_templated: bool) -> Any:
    """Return an argument for the operator; text of the file is never rendered as a template, at any depth."""
    if isinstance(value, Reference):
        output: Any = before[value.task_id].output
        return output[value.key]
    if isinstance(value, Template):
        return value.text
    if isinstance(value, str):
        return literal(value) if is_templated and would_change(value) else value
    if isinstance(value, Mapping):
        return {name: _argument(each, before, is_templated=is_templated) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_argument(each, before, is_templated=is_templated) for each in value]
    return value


def would_change(text: str) -> bool:
    """Whether rendering a text as a template could change it.

    :param text: text that is data.
    """
    return any(mark in text for mark in _JINJA_MARKS) or "\r" in text or text.endswith("\n")


def _schedule(schedule: Schedule) -> Any:
    timetable = _timetable(schedule)
    events = [_asset(source) for source in schedule.events]
    if not events:
        return timetable
    watched = AssetAny(*events)
    return watched if timetable is None else AssetOrTimeSchedule(timetable=timetable, assets=watched)


def _timetable(schedule: Schedule) -> Any:
    if not schedule.crons:
        return None
    crons, timezone = [cron for cron, _ in schedule.crons], schedule.crons[0][1]
    if len(crons) == 1:
        return CronTriggerTimetable(crons[0], timezone=timezone, run_immediately=_AT_THE_NEXT_TICK)
    return MultipleCronTriggerTimetable(*crons, timezone=timezone, run_immediately=_AT_THE_NEXT_TICK)


def _asset(source: EventSource) -> Asset:
    trigger = _TRIGGERS[source.kind](**source.arguments)
    return Asset(source.name, watchers=[AssetWatcher(name=source.name, trigger=trigger)])


def _param(param: PlannedParam) -> Param:
    schema: dict[str, Any] = {
        "enum": list(param.enum) if param.enum else None,
        "minimum": param.minimum,
        "maximum": param.maximum,
        "maxLength": param.max_length,
        "pattern": param.pattern,
    }
    types = param.types[0] if len(param.types) == 1 else list(param.types)
    return Param(
        **({} if param.is_required else {"default": param.default}),
        type=types,
        title=param.title,
        description=param.description,
        **{name: value for name, value in schema.items() if value is not None},
    )


def _notifiers(plan: PipelinePlan, event: NoticeEvent) -> list[Any] | None:
    found = [
        WebhookNotifier(webhook_conn_id=each.webhook, event=event, format=each.format)
        for each in plan.notifications
        if event in each.on
    ]
    return found or None


def _seconds(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
