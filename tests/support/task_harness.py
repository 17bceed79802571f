"""Run one operator through Airflow's real task runner, without a metadata database.

Only the supervisor, the process that a task talks to, is replaced: by :class:`FakeSupervisor`, which answers its
messages from dictionaries. Templating, XCom, skipping, deferral and retries are Airflow's own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import DAG, BaseOperator

_numbers = itertools.count(1)


@dataclass
class FakeSupervisor:
    """Answers what a task asks of its supervisor, and keeps everything that it was sent."""

    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    existing_dag_runs: set[tuple[str, str]] = field(default_factory=set)
    dag_run_states: dict[tuple[str, str], str] = field(default_factory=dict)
    """State of a Dag run that is in ``existing_dag_runs``; ``queued`` when it is not here."""
    task_states: dict[str, str] = field(default_factory=dict)
    """States of the other tasks of the Dag run that a task asks about."""
    task_durations: dict[str, float] = field(default_factory=dict)
    """Seconds that these tasks took; 1 when not here, 0 for one that Airflow skipped without running it."""
    task_state: dict[str, Any] = field(default_factory=dict)
    """Task state store, as the tries of one task share it."""
    asset_state: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Asset state stores: asset and key to value."""
    sent: list[Any] = field(default_factory=list)

    def send(self, msg: Any) -> Any:
        """Answer one message (the parameter's name is Airflow's)."""
        self.sent.append(msg)
        answer = getattr(self, f"_on_{type(msg).__name__}", None)
        return answer(msg) if answer else None

    async def asend(self, msg: Any) -> Any:
        """Answer one message of an asynchronous caller."""
        return self.send(msg)

    def messages(self, *kinds: str) -> list[Any]:
        """Return the messages of some kinds that were sent, oldest first."""
        return [message for message in self.sent if type(message).__name__ in kinds]

    def _on_GetConnection(self, message: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse

        given = self.connections.get(message.conn_id)
        if given is None:
            return ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND)
        empty = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
        fields = {**empty, "conn_type": "mlflow", **given}
        if isinstance(fields["extra"], dict):
            fields["extra"] = json.dumps(fields["extra"])
        return ConnectionResult(conn_id=message.conn_id, **fields)

    def _on_GetVariable(self, message: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult

        value = self.variables.get(message.key)
        if value is None:
            return ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND)
        return VariableResult(key=message.key, value=value)

    def _on_SetXCom(self, message: Any) -> None:
        self.xcoms[(message.task_id, message.key)] = message.value

    def _on_GetXCom(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComResult

        return XComResult(key=message.key, value=self.xcoms.get((message.task_id, message.key)))

    def _on_GetXComSequenceSlice(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComSequenceSliceResult

        value = self.xcoms.get((message.task_id, message.key))
        return XComSequenceSliceResult(root=[] if value is None else [value])

    def _on_GetTaskStateStore(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskStateStoreResult

        return TaskStateStoreResult(value=self.task_state[message.key]) if message.key in self.task_state else None

    def _on_SetTaskStateStore(self, message: Any) -> None:
        self.task_state[message.key] = json.loads(json.dumps(message.value))

    def _on_GetAssetStateStoreByName(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import AssetStateStoreResult

        key = (message.name, message.key)
        return AssetStateStoreResult(value=self.asset_state[key]) if key in self.asset_state else None

    def _on_SetAssetStateStoreByName(self, message: Any) -> None:
        self.asset_state[(message.name, message.key)] = json.loads(json.dumps(message.value))

    def _on_ValidateInletsAndOutlets(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import InactiveAssetsResult

        return InactiveAssetsResult(inactive_assets=[])

    def _on_GetDRCount(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import DRCount

        found = [
            key
            for key in self.existing_dag_runs
            if key[0] == message.dag_id
            and (not message.run_ids or key[1] in message.run_ids)
            and (not message.states or self.dag_run_states.get(key, "queued") in message.states)
        ]
        return DRCount(count=len(found))

    def _on_GetDagRunState(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import DagRunStateResult

        return DagRunStateResult(state=self.dag_run_states.get((message.dag_id, message.run_id), "queued"))

    def _on_GetTaskStates(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskStatesResult

        return TaskStatesResult(task_states={run_id: dict(self.task_states) for run_id in message.run_ids or ()})

    def _on_GetTaskBreadcrumbs(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskBreadcrumbsResult

        seconds = self.task_durations
        ended = [
            {"task_id": name, "map_index": -1, "state": state, "operator": "", "duration": seconds.get(name, 1.0)}
            for name, state in self.task_states.items()
            if state in ("success", "failed", "skipped", "upstream_failed", "removed")
        ]
        return TaskBreadcrumbsResult(breadcrumbs=ended)

    def _on_TriggerDagRun(self, message: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse

        key = (message.dag_id, message.run_id)
        if key in self.existing_dag_runs:
            return ErrorResponse(error=ErrorType.DAGRUN_ALREADY_EXISTS)
        self.existing_dag_runs.add(key)
        return OKResponse(ok=True)


@dataclass
class TaskOutcome:
    """How a task ended."""

    state: str
    """Airflow's word: success, failed, up_for_retry, skipped, deferred…"""
    error: BaseException | None
    xcom: dict[str, Any]
    """Everything the task pushed, by key; the result is under ``return_value``."""
    supervisor: FakeSupervisor
    operator: BaseOperator
    executed: BaseOperator
    """The copy of the operator that Airflow has rendered and run."""

    @property
    def result(self) -> Any:
        """What the task returned."""
        return self.xcom.get("return_value")


def run_task(
    operator: BaseOperator,
    *,
    mlflow_url: str | None = None,
    connections: Mapping[str, Mapping[str, Any]] | None = None,
    supervisor: FakeSupervisor | None = None,
    run_id: str = "run-1",
    try_number: int = 1,
    params: Mapping[str, Any] | None = None,
    resume_with: Mapping[str, Any] | None = None,
    dag_run: Mapping[str, Any] | None = None,
    events: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> TaskOutcome:
    """Run an operator as Airflow would.

    :param operator: the operator; put into a Dag of its own when it has none.
    :param mlflow_url: shorthand for a connection ``mlflow_default`` to this address.
    :param connections: connection id to fields.
    :param supervisor: a supervisor to go on with, for its XCom and its Dag runs.
    :param run_id: Airflow's run id.
    :param try_number: which try this is, from 1.
    :param params: params of the Dag run.
    :param dag_run: further fields of the Dag run, such as ``run_type``.
    :param events: asset events that triggered the Dag run, oldest first: asset and payload of its watcher.
    :param resume_with: event of the trigger that the operator was deferred to, or of the end of waiting for an answer;
        needs the ``supervisor`` of that try.
    """
    import structlog
    from airflow.sdk.execution_time import task_runner

    known = {"mlflow_default": {"host": mlflow_url}} if mlflow_url else {}
    supervisor = supervisor or FakeSupervisor(connections={**known, **(connections or {})})
    if not operator.has_dag():  # type: ignore[no-untyped-call]
        operator.dag = DAG(f"dag_{next(_numbers)}", schedule=None, params=dict(params or {}))
    instance = _task_instance(operator, run_id, try_number, dict(params or {}))
    given = instance._ti_context_from_server.dag_run
    instance._ti_context_from_server.dag_run = given.model_copy(
        update={**(dag_run or {}), "consumed_asset_events": _consumed(events)}
    )
    if resume_with is not None:
        _resume(instance, supervisor.messages("DeferTask", "AwaitInputTask")[-1], resume_with)
    comms = vars(task_runner)  # Airflow's own type of what is replaced here allows nothing else
    before = comms.get("SUPERVISOR_COMMS")
    comms["SUPERVISOR_COMMS"] = supervisor
    try:
        context = instance.get_template_context()
        state, _, error = task_runner.run(instance, context, structlog.get_logger())
        context["exception"] = error
        task_runner.finalize(instance, state, context, structlog.get_logger(), error)
    finally:
        comms["SUPERVISOR_COMMS"] = before
    pushed = {key: value for (task_id, key), value in supervisor.xcoms.items() if task_id == operator.task_id}
    return TaskOutcome(str(getattr(state, "value", state)), error, pushed, supervisor, operator, instance.task)


def trigger_of(deferred: TaskOutcome) -> Any:
    """Build the trigger that a task was deferred to, as it comes back from the database."""
    from airflow.sdk._shared.module_loading import import_string
    from airflow.sdk.serde import deserialize

    deferral = deferred.supervisor.messages("DeferTask")[-1]
    arguments: Any = deserialize(deferral.trigger_kwargs)
    return import_string(deferral.classpath)(**arguments)


async def event_of_trigger(deferred: TaskOutcome) -> dict[str, Any]:
    """Run the trigger that a task was deferred to until its event."""
    async for event in trigger_of(deferred).run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


def event_within(deferred: TaskOutcome, seconds: float = 90) -> dict[str, Any]:
    """Run the trigger that a task was deferred to until its event, for a limited time."""
    return asyncio.run(asyncio.wait_for(event_of_trigger(deferred), seconds))


def run_dag(
    dag: DAG,
    *,
    mlflow_url: str,
    run_id: str = "run-1",
    params: Mapping[str, Any] | None = None,
    connections: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, TaskOutcome]:
    """Run the tasks of a Dag one after the other, each after what it needs, until one does not succeed.

    Triggers of deferred tasks run too; they find connections in the environment.

    :param dag: the Dag.
    :param mlflow_url: address of its connection ``mlflow_default``.
    :param run_id: Airflow's run id.
    :param params: what a person gave in the form behind "Trigger".
    :param connections: further connections, by id.
    :return: outcome by task.
    """
    supervisor = FakeSupervisor(connections={"mlflow_default": {"host": mlflow_url}, **(connections or {})})
    outcomes: dict[str, TaskOutcome] = {}
    for operator in dag.topological_sort():  # type: ignore[no-untyped-call]
        supervisor.task_state.clear()
        given = {**dag.params.dump(), **(params or {})}
        outcome = run_task(operator, supervisor=supervisor, run_id=run_id, params=given)
        while outcome.state == "deferred":
            event = event_within(outcome)
            outcome = run_task(operator, supervisor=supervisor, run_id=run_id, params=given, resume_with=event)
        outcomes[operator.task_id] = outcome
        if outcome.state != "success":
            break
    return outcomes


def _consumed(events: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    """Write the events as Airflow hands them to a task of the Dag run that they triggered."""
    from airflow.sdk.api.datamodels._generated import AssetEventDagRunReference

    first = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    empty = dict.fromkeys(("source_task_id", "source_dag_id", "source_run_id", "source_map_index"))
    return [
        AssetEventDagRunReference.model_validate(
            {
                **empty,
                "asset": {"name": asset, "uri": asset, "extra": {}},
                "extra": {"from_trigger": True, "payload": dict(payload)},
                "source_aliases": [],
                "timestamp": first + dt.timedelta(seconds=number),
            }
        )
        for number, (asset, payload) in enumerate(events)
    ]


def _task_instance(operator: BaseOperator, run_id: str, try_number: int, params: dict[str, Any]) -> Any:
    from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from uuid6 import uuid7

    now = dt.datetime.now(dt.UTC)
    times = dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "run_after", "start_date"), now)
    dag_run = DagRun.model_validate(
        {
            **times,
            "dag_id": operator.dag_id,
            "run_id": run_id,
            "end_date": None,
            "run_type": "manual",
            "state": "running",
            "conf": params,
            "consumed_asset_events": [],
            "partition_key": None,
        }
    )
    retries = operator.retries or 0
    return RuntimeTaskInstance.model_construct(  # type: ignore[call-arg]
        id=uuid7(),
        task_id=operator.task_id,
        dag_id=operator.dag_id,
        run_id=run_id,
        try_number=try_number,
        dag_version_id=uuid7(),
        map_index=-1,
        task=operator,
        start_date=now,
        max_tries=retries,
        _ti_context_from_server=TIRunContext(dag_run=dag_run, max_tries=retries, should_retry=try_number <= retries),
    )


def _resume(instance: Any, deferral: Any, event: Mapping[str, Any]) -> None:
    """Make a task instance go on where it was deferred, as the scheduler does."""
    from airflow.sdk.serde import serialize

    context = instance._ti_context_from_server
    context.next_method = deferral.next_method
    context.next_kwargs = {**deferral.next_kwargs, "event": serialize(dict(event))}
