"""Every metric that tasks report: its name, tags and meaning. ``docs/metrics.md`` lists the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "timer"]
PREFIX = "airflow_mcp."
"""Begins the name of every metric, after the prefix that Airflow is configured with."""
NO_MODEL = "none"
"""Value of the tag ``model`` for a task that is about no registered model."""
Outcome = Literal["succeeded", "skipped", "refused", "failed"]
"""How one try of a task ended; ``refused`` is never tried again."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    :param kind: ``counter``, ``gauge``, or ``timer`` in milliseconds.
    :param tags: tags besides ``model``, which every metric has.
    :param says: what it says, for the documentation.
    """

    kind: Kind
    tags: tuple[str, ...]
    says: str


TASKS, WORKLOADS, ROLLOUT_STEPS = "tasks", "workload.duration", "rollout.steps"
METRICS: Mapping[str, Metric] = {
    TASKS: Metric("counter", ("operator", "outcome"), "tries of tasks: `succeeded`, `skipped`, `refused`, `failed`"),
    WORKLOADS: Metric("timer", ("operator", "runtime", "outcome"), "how long pods and processes worked"),
    "gate.verdicts": Metric("counter", ("verdict", "decision"), "judgements of evaluation gates"),
    "gate.approvals": Metric("counter", ("decision",), "inconclusive candidates that a person approved"),
    "versions.registered": Metric("counter", (), "registrations, also those that found their version"),
    "versions.copied": Metric("counter", ("copied",), "copies of versions; `copied` is `false` when the copy existed"),
    "versions.checked": Metric("counter", ("verdict",), "load checks"),
    "versions.load": Metric("timer", (), "how long versions took to load in their checks"),
    "champion.moves": Metric(
        "counter", ("action", "moved"), "promotions and rollbacks; `moved` is `false` for retries"
    ),
    "champion.rehearsals": Metric("counter", ("verdict",), "rehearsals of a rollback"),
    "stage.moves": Metric("counter", ("stage", "moved"), "moves between stages"),
    ROLLOUT_STEPS: Metric("counter", ("phase",), "steps of rollouts"),
    "rollout.ends": Metric("counter", ("phase", "cause"), "rollouts that ended: `SUCCEEDED` or `FAILED`, and why"),
    "drift.checks": Metric("counter", ("verdict",), "drift checks"),
    "drift.drift_share": Metric("gauge", (), "share of drifted columns; none when nothing could be compared"),
    "drift.drifted_columns": Metric("gauge", (), "number of drifted columns"),
    "drift.current_rows": Metric("gauge", (), "rows that were checked"),
    "drift.findings": Metric("gauge", (), "findings beyond their limit"),
    "drift.drifted": Metric("gauge", (), "1 `drifted`, 0 `not_drifted`; none when inconclusive"),
    "features.checks": Metric("counter", ("verdict",), "checks of online against offline features"),
    "quality.checks": Metric("counter", ("verdict",), "quality checks"),
    "retrain.decisions": Metric("counter", ("verdict", "retrain"), "decisions; `retrain`: a training was triggered"),
    "retrain.outcomes": Metric("counter", ("outcome",), "trainings that reported how they ended"),
    "approval.requests": Metric("counter", ("environment", "risk", "status"), "releases that approval was asked for"),
    "approval.seats": Metric("counter", ("status",), "seats of approvals that were taken"),
    "server.deployments": Metric("counter", ("phase",), "changes of model servers: `READY`, `UNDONE` or `FAILED`"),
}
"""By name, without :data:`PREFIX`. Tags have few values: no run ID, version or reason is one."""


def prometheus_name(name: str) -> str:
    """Return how a metric is called in Prometheus, after statsd_exporter with our mapping.

    :param name: name without :data:`PREFIX`.
    """
    ending = {"counter": "_total", "timer": "_seconds", "gauge": ""}[METRICS[name].kind]
    return (PREFIX + name).replace(".", "_") + ending
