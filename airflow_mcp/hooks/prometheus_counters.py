"""What the replicas of a model server have counted, as a Prometheus has scraped it, for replicas out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.hooks.prometheus import Sample
from airflow_mcp.hooks.replica_metrics import ReplicaText

MAX_AGE = 120.0
"""Seconds; counts that were scraped longer ago do not say how the version does now."""
_GENERATION = "airflow_mcp_serving_plan_generation"
_NAMES = "|".join(
    (
        *("requests_total", "request_seconds_bucket", "unfit_total", "predictions_total", "prediction_range_total"),
        *("shadow_total", "plan_generation", "version_ready", "breaker_open", "weight"),
    )
)
_OF_THE_SERVER = frozenset({"model", "version", "role", "code", "le", "value", "from", "result"})
"""Labels that the server sets; all others tell where Prometheus found it."""


class Vectors(Protocol):
    """What answers queries, such as :class:`~airflow_mcp.hooks.prometheus.PrometheusHook`."""

    async def vector(self, query: str) -> list[Sample]:
        """Return the present series of a query."""


@dataclass(frozen=True)
class PrometheusCounters:
    """The replicas of one model, read from a Prometheus.

    A replica is what has one ``job`` and ``instance``.
    """

    prometheus: Vectors
    model_name: str
    selector: str = ""
    """Further matchers, when several servers of that model are scraped."""

    async def read(self) -> list[ReplicaText]:
        """Return the metrics of every replica, in the form in which the replica itself answers.

        :raises ServerUnreachableError: when Prometheus does not answer, or answers in part.
        :raises EvidenceError: when it knows no replica, or what it knows is old or not of one Prometheus alone.
        """
        matchers = ", ".join(filter(None, (f"model={_quoted(self.model_name)}", self.selector)))
        generation = f"{_GENERATION}{{{matchers}}}"
        counts, starts, ages = await asyncio.gather(
            self.prometheus.vector(f'{{__name__=~"airflow_mcp_serving_(?:{_NAMES})", {matchers}}}'),
            self.prometheus.vector(f"process_start_time_seconds and on (job, instance) {generation}"),
            self.prometheus.vector(f"time() - timestamp({generation})"),
        )
        if not counts:
            raise EvidenceError(
                f"Prometheus has no metrics of a model server with {matchers}. Nothing was counted; check whether the "
                "server is scraped, and prometheus_selector"
            )
        _require_fresh(ages)
        lines: dict[str, list[str]] = {}
        seen: set[tuple[str, str]] = set()
        for sample in (*counts, *starts):
            replica, line = _replica(sample.labels), _line(sample.labels)
            if (replica, line) in seen:
                raise EvidenceError(
                    f"Prometheus has the metrics of {replica} several times. Nothing was counted; select one of them "
                    "by prometheus_selector"
                )
            seen.add((replica, line))
            lines.setdefault(replica, []).append(f"{line} {sample.value}")
        return [ReplicaText(replica, "\n".join(found)) for replica, found in sorted(lines.items())]


def _require_fresh(ages: Iterable[Sample]) -> None:
    for sample in ages:
        if not float(sample.value) <= MAX_AGE:
            raise EvidenceError(
                f"what Prometheus has of {_replica(sample.labels)} is {float(sample.value):.0f} s old, and more than "
                f"{MAX_AGE:g} s is too old. Nothing was counted"
            )


def _replica(labels: Mapping[str, str]) -> str:
    return "/".join(filter(None, (labels.get("job", ""), labels.get("instance", ""))))


def _line(labels: Mapping[str, str]) -> str:
    named = ",".join(f"{name}={_quoted(value)}" for name, value in sorted(labels.items()) if name in _OF_THE_SERVER)
    return f"{labels.get('__name__', '')}{{{named}}}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
