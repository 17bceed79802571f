"""The span of each request to a model, as a child of the caller's; made after the answer was sent."""

from __future__ import annotations

import time
from typing import Any

from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.spans import make_provider

_FLUSH_MILLISECONDS = 5000
"""A collector that is down delays the end of the server by no more."""
_NANOSECONDS = 1_000_000_000


class RequestSpans:
    """Sends a span for each request that is in a trace which is sampled.

    :param provider: makes and sends the spans.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415  (loaded with the provider)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider, self._tracer = provider, provider.get_tracer(__name__)
        self._extract = TraceContextTextMapPropagator().extract
        self._kind, self._error = SpanKind.SERVER, StatusCode.ERROR

    def record(self, exchange: Exchange) -> None:
        """Make the span of an exchange; the provider sends it from a thread of its own."""
        if exchange.is_disconnected:
            return
        route = "/invocations" if exchange.scope["path"] == "/invocations" else "/v2/models/{model}/infer"
        ended = time.time_ns()
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.route": route,
            "http.response.status_code": exchange.status,
            "airflow_mcp.request_id": exchange.request_id.decode(),
            "airflow_mcp.model": exchange.model,
        }
        if exchange.choice is not None:
            attributes["airflow_mcp.version"] = exchange.choice.version.version
            attributes["airflow_mcp.role"] = exchange.choice.role
        span = self._tracer.start_span(
            f"POST {route}",
            context=self._extract(exchange.headers),
            kind=self._kind,
            attributes=attributes,
            start_time=ended - int(exchange.seconds * _NANOSECONDS),
        )
        if exchange.code:
            span.set_attribute("error.type", exchange.code)
        if exchange.status >= 500:  # a status of 4xx is an error of the caller's span alone
            span.set_status(self._error, exchange.code)
        span.end(ended)

    def close(self) -> None:
        """Send what waits, and end the thread."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()


def make_request_spans() -> RequestSpans | None:
    """Return what sends spans of requests; None when no collector is configured, and then nothing is imported."""
    provider = make_provider("airflow-mcp-serving")
    return None if provider is None else RequestSpans(provider)
