"""One identity from the task through its workload and its MLflow run to the registered version, with real parts."""

from __future__ import annotations

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from airflow_mcp.core import contract
from airflow_mcp.operators.registry import RegisterModelOperator
from airflow_mcp.operators.training import TrainModelOperator
from tests.support.mlflow_world import World

pytestmark = pytest.mark.integration
TRACE = "0af7651916cd43dd8448eb211c80319c"
TASK_SPAN = SpanContext(int(TRACE, 16), 0xB7AD6B7169203331, is_remote=True, trace_flags=TraceFlags(1))
"""What Airflow's task runner opens around a task, from the trace of the Dag run."""


def test_a_version_names_the_trace_that_its_workload_has_continued(world: World) -> None:
    told = world.folder / "traceparent"
    command = ["sh", "-c", f'printf "%s" "$TRACEPARENT" > {told}; exec "$@"', "sh", *world.command("model")]
    with use_span(NonRecordingSpan(TASK_SPAN)):
        outcome = world.run(
            TrainModelOperator,
            experiment_name=world.experiment,
            model_name=world.model_name,
            command=command,
            env={"MARKER": world.marker},
        )
        assert outcome.state == "success", outcome.error
        registered = world.run(
            RegisterModelOperator,
            model_name=world.model_name,
            model_uri=outcome.result["model_uri"],
            require_gate=False,
        )
    assert registered.state == "success", registered.error
    (run,) = world.runs()
    assert told.read_text() == f"00-{TRACE}-b7ad6b7169203331-01"
    assert run.tags[contract.TAG_TRACE_ID] == TRACE
    version = world.hook.get_model_version(world.model_name, registered.result["version"])
    assert version.tags[contract.TAG_TRACE_ID] == TRACE


def test_a_variable_of_the_user_wins(world: World) -> None:
    told = world.folder / "traceparent"
    command = ["sh", "-c", f'printf "%s" "$TRACEPARENT" > {told}; exec "$@"', "sh", *world.command("model")]
    with use_span(NonRecordingSpan(TASK_SPAN)):
        outcome = world.run(
            TrainModelOperator,
            experiment_name=world.experiment,
            model_name=world.model_name,
            command=command,
            env={"MARKER": world.marker, "TRACEPARENT": "mine"},
        )
    assert outcome.state == "success", outcome.error
    assert told.read_text() == "mine"
