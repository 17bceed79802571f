"""The trace of a task, which Airflow keeps for each Dag run, and what continues it in a workload."""

from __future__ import annotations

import os

from airflow.sdk import conf

from airflow_mcp.core.contract import ENV_TRACEPARENT

_EXPORT = (
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    *("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_TRACES_EXPORTER"),
)
_SECRET = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
"""Headers hold the credentials of a collector."""


def traceparent() -> str:
    """Return the span that the task runs in, as the W3C writes it; empty outside a task.

    Airflow gives every Dag run a trace, also when it sends none.
    """
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - the task runner has loaded it already
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    if not get_current_span().get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def trace_environment() -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables with which a workload continues the trace, and sends spans if Airflow does.

    :return: plain variables, and secret ones.
    """
    parent = traceparent()
    plain = {ENV_TRACEPARENT: parent} if parent else {}
    if not conf.getboolean("traces", "otel_on", fallback=False):
        return plain, {}
    given = {name: os.environ[name] for name in (*_EXPORT, *_SECRET) if os.environ.get(name)}
    secret = {name: value for name, value in given.items() if name in _SECRET}
    return {**plain, **{name: value for name, value in given.items() if name not in _SECRET}}, secret
