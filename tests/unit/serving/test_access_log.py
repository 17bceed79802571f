"""A line of the log of requests carries the trace of whoever asks."""

from __future__ import annotations

import json
import os

import pytest

from airflow_mcp.serving.access_log import AccessLog
from airflow_mcp.serving.exchange import Exchange

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("header", "logged"),
    [(f"00-{TRACE}-b7ad6b7169203331-01", TRACE), ("forged\n", None), ("", None)],
)
def test_the_trace_of_a_caller_is_logged_if_it_is_one(header: str, logged: str | None) -> None:
    reading, writing = os.pipe()
    log = AccessLog(writing)
    headers = [(b"traceparent", header.encode())] if header else []
    log.record(Exchange({"headers": headers, "method": "POST", "path": "/invocations"}, 0.0))
    log.close()
    os.close(writing)
    with os.fdopen(reading) as lines:
        (line,) = map(json.loads, lines)
    assert line.get("trace_id") == logged
    assert line["path"] == "/invocations"
