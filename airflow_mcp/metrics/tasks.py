"""What each task reports, from what it has pushed to XCom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mcp.metrics.catalogue import NO_MODEL, TASKS, WORKLOADS, Outcome


@dataclass(frozen=True)
class Sample:
    """One value of a metric.

    :param metric: its name in the catalogue.
    :param value: what a counter grows by, a gauge's value, or milliseconds.
    """

    metric: str
    value: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EndedTask:
    """One try of a task that has ended.

    :param operator: class of the operator.
    :param model: registered model that it is about; empty for none.
    :param ended: how it ended.
    :param pushed: what it has pushed to XCom.
    """

    operator: str
    model: str
    ended: Outcome
    pushed: Mapping[str, Any]


def samples_of(classes: Iterable[str], task: EndedTask) -> list[Sample]:
    """Return what a task reports.

    :param classes: name of its operator class, and of the classes that this one inherits from.
    :param task: the task.
    :return: empty for sensors, which only wait.
    """
    names = list(classes)
    if "BaseSensorOperator" in names:
        return []
    tags = {"model": task.model or NO_MODEL}
    counted = Sample(TASKS, tags={**tags, "operator": task.operator, "outcome": task.ended})
    reports = next((REPORTS[name] for name in names if name in REPORTS), ())
    return [counted, *(sample for report in reports for sample in report.samples(task.pushed, tags))]


def workload_sample(task: EndedTask, runtime: str, milliseconds: float) -> Sample:
    """Return how long a workload worked.

    :param task: its task.
    :param runtime: ``local`` or ``kubernetes``.
    :param milliseconds: from its start to its end.
    """
    tags = {"model": task.model or NO_MODEL, "operator": task.operator, "runtime": runtime, "outcome": task.ended}
    return Sample(WORKLOADS, milliseconds, tags)


@dataclass(frozen=True)
class Count:
    """Counts one, if the task has pushed what is counted.

    :param metric: name of the counter.
    :param keys: what is pushed under these keys becomes tags of the same names; the first one must be there.
    :param fixed: further tags.
    :param when: key that must be there instead of the first one.
    """

    metric: str
    keys: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    when: str = ""

    def samples(self, pushed: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[Sample]:
        """Yield the sample."""
        if (self.when or self.keys[0]) in pushed:
            named = {key: _text(pushed.get(key)) for key in self.keys}
            yield Sample(self.metric, tags={**tags, **named, **self.fixed})


@dataclass(frozen=True)
class Seconds:
    """Reports a time that the task has pushed in seconds.

    :param metric: name of the timer.
    :param key: what it is pushed under.
    """

    metric: str
    key: str

    def samples(self, pushed: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[Sample]:
        """Yield the sample."""
        value = pushed.get(self.key)
        if isinstance(value, int | float):
            yield Sample(self.metric, value * 1000, tags)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


_LOADED = Seconds("versions.load", "load_seconds")
_SERVER = (Count("server.deployments", ("phase",)),)
REPORTS: Mapping[str, tuple[Count | Seconds, ...]] = {
    "EvaluationGateOperator": (Count("gate.verdicts", ("verdict", "decision")),),
    "RecordApprovalOperator": (Count("gate.approvals", ("decision",)),),
    "RegisterModelOperator": (Count("versions.registered", when="version"),),
    "CopyModelVersionOperator": (Count("versions.copied", ("copied",)),),
    "LoadCheckOperator": (Count("versions.checked", ("verdict",)), _LOADED),
    "PromoteModelOperator": (Count("champion.moves", ("moved",), {"action": "promote"}),),
    "RollbackModelOperator": (Count("champion.moves", ("moved",), {"action": "rollback"}),),
    "RehearseRollbackOperator": (Count("champion.rehearsals", ("verdict",), when="way"), _LOADED),
    "TransitionModelStageOperator": (Count("stage.moves", ("moved", "stage")),),
    "RolloutModelOperator": (Count("rollout.ends", ("phase", "cause")),),
    "GetHistoricalFeaturesOperator": (),
    "FeatureSkewCheckOperator": (Count("features.checks", ("verdict",)),),
    "CheckQualityOperator": (Count("quality.checks", ("verdict",)),),
    "RetrainTriggerOperator": (Count("retrain.decisions", ("verdict", "retrain")),),
    "RetrainOutcomeOperator": (Count("retrain.outcomes", ("outcome",)),),
    "RequestReleaseOperator": (Count("approval.requests", ("status", "environment", "risk")),),
    "ApprovalSeatOperator": (Count("approval.seats", ("status",)),),
    "DeployModelServerOperator": _SERVER,
    "RollbackModelServerOperator": _SERVER,
}
"""By operator: what it reports besides that it ended; ``DriftCheckOperator`` reports more than it pushes, by itself."""
