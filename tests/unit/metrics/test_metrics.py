"""What tasks report to Airflow's metrics, and how it looks on the wire of StatsD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DagRunTriggerException,
    TaskAwaitingInput,
    TaskDeferred,
)
from airflow.sdk.observability.stats import Stats

from airflow_mcp.exceptions import FailedError, GateRejectedError
from airflow_mcp.metrics.catalogue import METRICS, PREFIX, prometheus_name
from airflow_mcp.metrics.stats import ending_of, publish, reported
from airflow_mcp.metrics.tasks import REPORTS, EndedTask, Sample, samples_of, workload_sample
from airflow_mcp.operators.base import ModelControlOperator
from tests.support.operator_classes import operator_classes
from tests.support.paths import DOCS
from tests.support.statsd import Wire, airflow_client, exposition, open_wire

PUSHED: dict[str, dict[str, Any]] = {
    "EvaluationGateOperator": {"verdict": "failed", "decision": "rejected"},
    "RecordApprovalOperator": {"decision": "approved"},
    "RegisterModelOperator": {"model_name": "fraud", "version": "7"},
    "CopyModelVersionOperator": {"copied": True},
    "LoadCheckOperator": {"verdict": "passed", "load_seconds": 1.5},
    "PromoteModelOperator": {"model_name": "fraud", "moved": True},
    "RollbackModelOperator": {"model_name": "fraud", "moved": False},
    "RehearseRollbackOperator": {"way": "follow", "verdict": "passed", "load_seconds": 2},
    "TransitionModelStageOperator": {"moved": True, "stage": "Staging"},
    "RolloutModelOperator": {"phase": "FAILED", "cause": "analysis"},
    "RetrainTriggerOperator": {"verdict": "retrain", "retrain": True},
    "RetrainOutcomeOperator": {"outcome": "promoted"},
    "RequestReleaseOperator": {"status": "open", "environment": "prod", "risk": "high"},
    "ApprovalSeatOperator": {"status": "granted"},
    "CheckQualityOperator": {"verdict": "good"},
    "FeatureSkewCheckOperator": {"verdict": "equal"},
    "GetHistoricalFeaturesOperator": {},
    "DeployModelServerOperator": {"phase": "READY"},
    "RollbackModelServerOperator": {"phase": "READY"},
}
"""What tasks push, as far as it is reported."""


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What Airflow's own StatsD client sends, with tags."""
    with open_wire() as opened:
        opened.configure(monkeypatch)
        with airflow_client():
            yield opened


def ended(pushed: dict[str, Any], operator: str = "TrainModelOperator") -> EndedTask:
    return EndedTask(operator, "fraud", "succeeded", pushed)


@pytest.mark.parametrize("operator", operator_classes(), ids=lambda each: each.__name__)
def test_every_operator_reports_how_it_ended(operator: type[ModelControlOperator]) -> None:
    (sample,) = samples_of([each.__name__ for each in operator.__mro__], ended({}, operator.__name__))
    assert sample == Sample("tasks", tags={"model": "fraud", "operator": operator.__name__, "outcome": "succeeded"})


def test_reports_are_about_operators_that_exist() -> None:
    assert REPORTS.keys() <= {each.__name__ for each in operator_classes()}
    assert REPORTS.keys() <= PUSHED.keys()


@pytest.mark.parametrize("operator", sorted(REPORTS))
def test_samples_have_the_tags_that_the_catalogue_names(operator: str) -> None:
    samples = samples_of([operator], ended(PUSHED[operator], operator))
    assert len(samples) == 1 + len(REPORTS[operator])
    assert all(set(each.tags) == {"model", *METRICS[each.metric].tags} for each in samples)
    assert [sample.metric for sample in samples_of([operator], ended({}, operator))] == ["tasks"], "nothing was pushed"


def test_every_metric_of_the_catalogue_is_reported_by_somebody() -> None:
    by_tasks = {each.metric for operator in REPORTS for each in REPORTS[operator]}
    elsewhere = {name for name in METRICS if name.startswith("drift.")} | {
        "tasks",
        "workload.duration",
        "rollout.steps",
    }
    assert by_tasks | elsewhere == set(METRICS)


def test_a_subclass_reports_like_its_base_under_its_own_name_and_a_sensor_nothing() -> None:
    (sample,) = samples_of(["MyTraining", "TrainModelOperator"], ended({}, "MyTraining"))
    assert sample.tags["operator"] == "MyTraining"
    assert samples_of(["MySensor", "BaseSensorOperator", "ModelControlOperator"], ended({})) == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AirflowSkipException(), "skipped"),
        (GateRejectedError("no"), "refused"),
        (AirflowFailException("no"), "refused"),
        (FailedError("later"), "failed"),
        (KeyboardInterrupt(), "failed"),
        (TaskDeferred(trigger=None, method_name="resume"), None),
        (TaskAwaitingInput(method_name="resume"), None),
    ],
)
def test_an_error_is_an_ending_unless_the_task_only_waits(error: BaseException, outcome: str | None) -> None:
    seen: list[str] = []
    with pytest.raises(type(error)), reported(lambda ended: seen.append(ended) or ()):  # type: ignore[func-returns-value]
        raise error
    assert seen == ([outcome] if outcome else [])


def test_asking_airflow_for_a_dag_run_is_a_success() -> None:
    assert ending_of(DagRunTriggerException.__new__(DagRunTriggerException)) == "succeeded"


def test_airflow_sends_a_counter_a_gauge_and_a_timer_with_tags(wire: Wire) -> None:
    publish(
        [
            *samples_of(["PromoteModelOperator"], ended({"moved": True}, "PromoteModelOperator")),
            Sample("drift.drift_share", 0.25, {"model": "fraud"}),
            workload_sample(ended({}), "local", 1234.5),
        ]
    )
    assert wire.lines(4) == [
        "airflow.airflow_mcp.tasks,model=fraud,operator=PromoteModelOperator,outcome=succeeded:1|c",
        "airflow.airflow_mcp.champion.moves,model=fraud,moved=true,action=promote:1|c",
        "airflow.airflow_mcp.drift.drift_share,model=fraud:0.25|g",
        "airflow.airflow_mcp.workload.duration,model=fraud,operator=TrainModelOperator,runtime=local,outcome=succeeded"
        ":1234.500000|ms",
    ]


def test_prometheus_finds_them_under_the_names_of_the_page(wire: Wire) -> None:
    for name, metric in METRICS.items():
        publish([Sample(name, 1500.0, dict.fromkeys(("model", *metric.tags), "a.b"))])
    lines = exposition(wire.lines(len(METRICS))).splitlines()
    for name, metric in METRICS.items():
        suffix = "_count" if metric.kind == "timer" else ""
        (line,) = [each for each in lines if each.startswith(f"{prometheus_name(name)}{suffix}{{")]
        assert all(f'{tag}="a.b"' in line for tag in ("model", *metric.tags))
    assert 'airflow_mcp_versions_load_seconds_sum{model="a.b"} 1.5' in lines


def test_without_tags_their_values_are_parts_of_the_name(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "False")
    publish([Sample("gate.verdicts", tags={"model": "a.b c", "verdict": "passed", "decision": "passed"})])
    assert wire.lines(1) == ["airflow.airflow_mcp.gate.verdicts.a_b_c.passed.passed:1|c"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a,b=c", "a_b_c"),
        ("a|b#c", "a_b_c"),
        ("a\nb:1|c", "a_b_1_c"),
        ("Betrug \u6b3a\u8bc8", "Betrug___"),
        ("m" * 256, "m" * 100),
        ("", "none"),
    ],
)
def test_a_name_has_only_characters_that_airflow_sends(wire: Wire, name: str, sent: str) -> None:
    publish([Sample("versions.registered", tags={"model": name})])
    assert wire.lines(1) == [f"airflow.airflow_mcp.versions.registered,model={sent}:1|c"]


def test_a_client_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the client is broken")

    monkeypatch.setattr(Stats, "incr", broken)
    publish([Sample("versions.registered", tags={"model": "fraud"})])
    assert "the client is broken" in caplog.text


def test_the_page_lists_every_metric() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = [
        f"| `{PREFIX}{name}` | {metric.kind} | {', '.join(f'`{tag}`' for tag in metric.tags)} | {metric.says} |"
        for name, metric in METRICS.items()
    ]
    assert [row for row in rows if row not in page] == []
    assert page.count(f"| `{PREFIX}") == len(rows)
