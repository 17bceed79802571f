"""Spans of requests: children of the caller's, without any value of it; none where no collector is configured."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from airflow_mcp.core.serving.traffic import Choice
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.request_spans import make_request_spans
from tests.support.collector import Collector, collector
from tests.support.paths import ROOT

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def exchange(traceparent: str = "", path: str = "/invocations", **fields: Any) -> Exchange:
    headers = [(b"x-request-id", b"r-1"), *([(b"traceparent", traceparent.encode())] if traceparent else [])]
    made = Exchange({"headers": headers, "method": "POST", "path": path}, 0.0)
    made.model, made.choice, made.seconds = "fraud", Choice(ServedVersion("fraud", "8"), "champion"), 0.25
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def sent(monkeypatch: pytest.MonkeyPatch, *exchanges: Exchange) -> Collector:
    with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp_proto_http")
        spans = make_request_spans()
        assert spans is not None
        for each in exchanges:
            spans.record(each)
        spans.close()
    return found


def attributes_of(span: Any) -> dict[str, Any]:
    return {each.key: each.value.int_value or each.value.string_value for each in span.attributes}


def test_an_answer_is_a_child_of_the_callers_span(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sent(monkeypatch, exchange(f"00-{TRACE}-{CALLER}-01"))
    (span,) = found.spans
    assert (span.name, span.kind, span.status.code) == ("POST /invocations", 2, 0)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000
    assert attributes_of(span) == {
        "http.request.method": "POST",
        "http.route": "/invocations",
        "http.response.status_code": 200,
        "airflow_mcp.request_id": "r-1",
        "airflow_mcp.model": "fraud",
        "airflow_mcp.version": "8",
        "airflow_mcp.role": "champion",
    }
    assert found.services == {"airflow-mcp-serving"}


@pytest.mark.parametrize(("status", "code", "marked"), [(500, "model_failed", 2), (400, "invalid_rows", 0)])
def test_an_error_is_named_by_its_code_and_only_the_servers_own_is_marked(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, marked: int
) -> None:
    path = "/v2/models/fraud/versions/8/infer"
    (span,) = sent(monkeypatch, exchange(path=path, status=status, code=code)).spans
    assert (span.name, span.status.code) == ("POST /v2/models/{model}/infer", marked)
    assert attributes_of(span)["error.type"] == code
    assert span.parent_span_id == b""


def test_a_trace_that_the_caller_does_not_sample_and_a_caller_who_left_have_no_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = exchange(f"00-{TRACE}-{CALLER}-01", is_disconnected=True)
    assert sent(monkeypatch, exchange(f"00-{TRACE}-{CALLER}-00"), left).spans == []


def test_without_a_collector_nothing_is_loaded_and_nothing_observes() -> None:
    code = (
        "import sys\nfrom airflow_mcp.serving import __main__ as server\n"
        "print(server.make_request_spans(), [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT, env={})
    assert done.stdout.split() == ["None", "[]"]
