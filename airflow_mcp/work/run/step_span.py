"""The span of a step, as a child of its task's span; only where OpenTelemetry is configured by its variables."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from airflow_mcp.core.contract import ENV_RUN_ID, ENV_TRACEPARENT

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MILLISECONDS = 5000
"""A collector that is down delays the end of a step by no more."""
_log = logging.getLogger(__name__)


@contextmanager
def step_span(step: str) -> Iterator[Callable[[int], None]]:
    """Send a span around a step; without a collector nothing is imported.

    Inside, ``TRACEPARENT`` names the new span, so that spans of a training script become its children.

    :param step: name of the step.
    :return: takes the exit code of the step. An error is marked by its type alone: its text may quote data.
    """
    provider = _provider() if any(os.environ.get(name) for name in _ENDPOINTS) else None
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


def _provider() -> Any:
    """Return what sends spans, configured by the variables of OpenTelemetry; None when it is not installed."""
    name = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        if found is None:
            raise ImportError(f"no exporter of the name {name!r}")
        exporter = found.load()()
    except ImportError as error:
        _log.warning("no span is sent: %s. Install airflow-mcp[traces] where the step runs", error)
        return None
    service = os.environ.get("OTEL_SERVICE_NAME") or "airflow-mcp-workload"
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
