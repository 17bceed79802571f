"""What sends spans to a collector; only where the variables of OpenTelemetry configure one; without Airflow."""

from __future__ import annotations

import logging
import os
from importlib.metadata import entry_points
from typing import Any

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_log = logging.getLogger(__name__)


def make_provider(service: str) -> Any:
    """Return what makes and sends spans; None, and nothing is imported, when no collector is configured.

    :param service: name of the service, unless ``OTEL_SERVICE_NAME`` is set.
    :return: a ``TracerProvider``, which the caller flushes and shuts down; None also when it is not installed, which is
        logged.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
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
        _log.warning("no span is sent: %s. Install airflow-mcp[traces] where %s runs", error, service)
        return None
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or service})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
