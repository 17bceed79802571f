"""The span of a step, as a child of its task's span; only where OpenTelemetry is configured by its variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_mcp.core.contract import ENV_RUN_ID, ENV_TRACEPARENT
from airflow_mcp.spans import make_provider

_FLUSH_MILLISECONDS = 5000
"""A collector that is down delays the end of a step by no more."""


@contextmanager
def step_span(step: str) -> Iterator[Callable[[int], None]]:
    """Send a span around a step; without a collector nothing is imported.

    Inside, ``TRACEPARENT`` names the new span, so that spans of a training script become its children.

    :param step: name of the step.
    :return: takes the exit code of the step. An error is marked by its type alone: its text may quote data.
    """
    provider = make_provider("airflow-mcp-workload")
    if provider is None:
        yield lambda _: None
        return
    from opentelemetry.trace import StatusCode, set_span_in_context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier, given = TraceContextTextMapPropagator(), dict[str, str]()
    parent = carrier.extract({"traceparent": os.environ.get(ENV_TRACEPARENT, "")})
    span = provider.get_tracer(__name__).start_span(f"airflow_mcp.work {step}", context=parent)
    span.set_attributes({"mlflow.run_id": os.environ.get(ENV_RUN_ID, ""), "step": step})
    carrier.inject(given, set_span_in_context(span))
    os.environ[ENV_TRACEPARENT] = given["traceparent"]

    def end(exit_code: int) -> None:
        if exit_code:
            span.set_status(StatusCode.ERROR, f"exit code {exit_code}")

    try:
        yield end
    except BaseException as error:
        span.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        span.end()
        provider.force_flush(_FLUSH_MILLISECONDS)
        provider.shutdown()
