"""What continues the trace of a Dag run in a workload, and how its identity is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from airflow_mcp.core.trace import trace_id_of
from airflow_mcp.metrics.traces import trace_environment, traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def span() -> Iterator[None]:
    """The span that Airflow's task runner opens around a task."""
    context = SpanContext(int(TRACE, 16), 0xB7AD6B7169203331, is_remote=True, trace_flags=TraceFlags(0))
    with use_span(NonRecordingSpan(context)):
        yield


def test_a_workload_continues_the_trace_also_when_airflow_sends_none(span: None) -> None:
    assert trace_environment() == ({"TRACEPARENT": f"00-{TRACE}-b7ad6b7169203331-00"}, {})


def test_outside_a_task_there_is_no_trace() -> None:
    assert (traceparent(), trace_environment()) == ("", ({}, {}))


@pytest.mark.parametrize("on", ["True", "False"])
def test_where_spans_go_is_passed_on_only_if_airflow_sends_them(
    span: None, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", on)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=a-secret")
    plain, secret = trace_environment()
    assert plain.get("OTEL_EXPORTER_OTLP_ENDPOINT") == ("http://collector:4318" if on == "True" else None)
    assert secret == ({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=a-secret"} if on == "True" else {})
    assert "a-secret" not in str(plain)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"01-{TRACE}-b7ad6b7169203331-01-more", TRACE),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", ""),
        ("", ""),
        ('"}{', ""),
    ],
)
def test_only_a_well_formed_identity_is_read(given: str, read: str) -> None:
    assert trace_id_of(given) == read
