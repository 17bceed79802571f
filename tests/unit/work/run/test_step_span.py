"""A step's span reaches a collector as a child of its task's; without one nothing is loaded, and nothing fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from airflow_mcp.core.contract import EXIT_REFUSED
from tests.support.collector import collector
from tests.support.paths import ROOT

TRACE, TASK = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{TASK}-01"
COUNT = """
import os, sys
from airflow_mcp.work.run.step_span import step_span
with step_span("train") as end:
    end(int(sys.argv[1]))
    print(os.environ.get("TRACEPARENT", ""), any(name.startswith("opentelemetry") for name in sys.modules))
"""


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *command], env={**kept, **env}, capture_output=True, text=True, check=False, cwd=ROOT
    )


def to(url: str, **more: str) -> dict[str, str]:
    return {
        "TRACEPARENT": PARENT,
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        **more,
    }


def test_a_refused_step_sends_its_span_in_the_trace_of_its_task() -> None:
    with collector() as found:
        done = run("-m", "airflow_mcp.work", "train", **to(found.url, OTEL_EXPORTER_OTLP_HEADERS="x-key=a-secret"))
    assert done.returncode == EXIT_REFUSED
    (span,) = found.spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("airflow_mcp.work train", TRACE, TASK)
    assert (span.status.code, span.status.message) == (2, "InvalidArgumentError")
    assert list(span.events) == [], "the text of an error may quote data"
    assert found.services == {"airflow-mcp-workload"}
    assert found.headers[0]["x-key"] == "a-secret"
    assert "a-secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(("exit_code", "status"), [("0", 0), ("3", 2)])
def test_a_script_gets_the_span_of_the_step_as_its_parent(exit_code: str, status: int) -> None:
    with collector() as found:
        done = run("-c", COUNT, exit_code, **to(found.url))
    (span,) = found.spans
    assert done.stdout.split()[0] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert span.status.code == status


def test_without_a_collector_nothing_is_loaded_and_the_parent_stays() -> None:
    assert run("-c", COUNT, "0", TRACEPARENT=PARENT).stdout.split() == [PARENT, "False"]


def test_a_collector_that_is_down_fails_nothing() -> None:
    started = time.monotonic()
    done = run("-c", COUNT, "0", **to("http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1"))
    assert done.returncode == 0
    assert time.monotonic() - started < 60


def test_an_exporter_that_is_not_installed_is_named() -> None:
    done = run("-c", COUNT, "0", **to("http://127.0.0.1:9", OTEL_TRACES_EXPORTER="nowhere"))
    assert done.returncode == 0
    assert "no exporter of the name 'nowhere'" in done.stderr
