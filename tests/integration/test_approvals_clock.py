"""A release that nobody answers, day by day: 48 hours, 72 hours, the end of waiting. Never a silent yes.

Real: MLflow, the audit log, Airflow's task runner and the webhook. The clock is moved; Airflow's REST API is a fake.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from airflow.sdk import DAG

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.audit.record import Record
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.hooks.airflow_people import AirflowApiHook
from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator
from tests.support.approvals import POLICY, bank, put_in_force
from tests.support.audit_log import Logs, postgresql_logs, sqlite_logs
from tests.support.fakes.airflow_questions import FakeQuestions
from tests.support.mlflow_world import World
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task
from tests.unit.notifications.test_webhook import SECRET, Webhook, webhook

__all__ = ["webhook"]
pytestmark = pytest.mark.integration

BEGIN = datetime(2099, 11, 30, 9, tzinfo=UTC)
DETAILS = httpx.Request("GET", "http://airflow/api/v2/dags/d/dagRuns/r/taskInstances/seat_1/-1/hitlDetails")
END_OF_WAITING = {"error": "no answer", "error_type": "timeout"}
CHAIN = """
    - when: {environment: test}
      chain:
        - name: algorithm-lead
          approvers: role:algorithm-lead
          timers:
            - {after: 24h, do: remind}
            - {after: 48h, do: escalate, to: superior}
            - {after: 72h, do: alert, to: role:security}
"""
NOTIFY = "notify: [{on: [requested, asked, reminded, escalated, alerted, granted, rejected, expired], webhook: ops}]"


class Week:
    """A release whose one seat waits, and the clock.

    :param world: MLflow.
    :param log: the audit log.
    :param webhook: where messages go.
    :param clock: the clock.
    :param airflow: where people answer.
    """

    def __init__(
        self, world: World, log: AuditLog, webhook: Webhook, clock: time_machine.Traveller, airflow: FakeQuestions
    ) -> None:
        self.log, self.webhook, self.clock, self.airflow = log, webhook, clock, airflow
        self.supervisor = airflow.supervisor
        self.key = ReleaseKey(world.model_name, "test", f"sha256:{'e' * 64}")
        world.hook.create_registered_model(world.model_name)
        tags = {contract.TAG_PASSPORT: self.key.passport}
        world.hook.create_model_version(world.model_name, "s3://nowhere/model", tags=tags)
        given: dict[str, Any] = {"model_name": world.model_name, "version": "1", "seats": 1, "environment": "test"}
        with DAG(world.dag_id, schedule=None):
            self.request = RequestReleaseOperator(task_id="request", risk="low", **given)
            self.seat = ApprovalSeatOperator(task_id="seat_1", seat=1, **given, retries=5)
        outcome = run_task(self.request, supervisor=self.supervisor)
        assert outcome.state == "success", outcome.error
        self.outcome = run_task(self.seat, supervisor=self.supervisor)

    def to(self, **time: float) -> TaskOutcome:
        """Move the clock to a time after the beginning, and wake the seat as Airflow does when nobody has answered."""
        self.clock.move_to(BEGIN + timedelta(**time))
        self.outcome = run_task(self.seat, supervisor=self.supervisor, resume_with=END_OF_WAITING)
        return self.outcome

    @property
    def told(self) -> list[tuple[str, list[str]]]:
        """What was posted: the event, and the people it names."""
        return [(body["event"], body.get("people", [])) for body in self.webhook.bodies]

    @property
    def waits(self) -> timedelta | None:
        """How long the seat waits before it looks again; None when it does not wait."""
        assert self.outcome.state == "awaiting_input", self.outcome.error
        return self.supervisor.messages("AwaitInputTask")[-1].timeout

    def records(self) -> list[Record]:
        return self.log.facts(self.key.subject, "approval.")

    @property
    def noted(self) -> list[str]:
        return [record.event["action"].removeprefix("approval.") for record in self.records()]


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> str:
    """The bank's policy with this test's chain in front; a parameter is added to its node."""
    chain = CHAIN + "".join(f"          {line}\n" for line in getattr(request, "param", ()))
    before, after = POLICY.split("  approvals:\n")
    return f"{before}  approvals:{chain}{after.rsplit('  notify:', 1)[0]}  {NOTIFY}\n"


@pytest.fixture
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logs]:
    if getattr(request, "param", "sqlite") == "sqlite":
        yield sqlite_logs(tmp_path)
        return
    with postgresql_logs(request.getfixturevalue("postgresql")) as found:
        yield found


@pytest.fixture
def week(world: World, policy: str, webhook: Webhook, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Week]:
    release = logs.as_login("mcp_release")
    connection: dict[str, Any] = {"conn_type": "audit_log", "extra": {"sqlite_path": release.sqlite_path}}
    if logs.is_postgresql:
        place = {"host": release.host, "port": release.port, "schema": release.database, "login": release.login}
        connection = {"conn_type": "audit_log", **place}
    for name, value in (
        ("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection)),
        ("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests"),
        ("AIRFLOW__AIRFLOW_MCP__AIRFLOW_API_CONN_ID", "airflow_tests"),
    ):
        monkeypatch.setenv(name, value)
    mlflow = {"host": world.url, "extra": {"retries": 0, "timeout": 60}}
    airflow = FakeQuestions(FakeSupervisor({"mlflow_default": mlflow}))
    monkeypatch.setattr(
        AirflowApiHook, "get_conn", lambda _: AirflowApi("http://airflow", token="t", transport=airflow.transport)
    )
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        put_in_force(log, bank(policy))
    with closing(open_log(release)) as log, time_machine.travel(BEGIN) as clock:
        yield Week(world, log, webhook, clock, airflow)


def test_after_48_hours_the_superior_may_answer_after_72_somebody_is_alerted_and_then_it_waits(week: Week) -> None:
    assert [event for event, _ in week.told] == ["requested", "asked"]
    assert week.waits <= timedelta(hours=24)
    week.to(hours=23, minutes=59)
    assert len(week.told) == 2
    week.to(hours=24, minutes=1)
    assert week.told[2:] == [("reminded", ["lena", "luis", "rita"])]
    week.to(hours=48, minutes=1)
    assert week.told[3:] == [("escalated", ["olga"])]
    week.to(hours=72, minutes=1)
    assert week.told[4:] == [("alerted", ["vera"])]
    for day in range(4, 30):
        week.to(days=day, minutes=2)
        assert timedelta(hours=23) < week.waits <= timedelta(hours=24)
    assert len(week.told) == 5
    assert week.noted == ["asked", "reminded", "escalated", "alerted"]
    week.airflow.answer("seat_1", "olga")
    done = week.to(days=30)
    assert (done.state, done.result["by"], done.result["through"]) == ("success", "olga", "escalation")
    assert week.told[5:] == [("granted", [])]
    assert SECRET not in json.dumps(week.webhook.bodies)


def test_the_superior_has_no_vote_before_the_escalation_also_when_it_is_looked_at_later(week: Week) -> None:
    week.clock.move_to(BEGIN + timedelta(hours=47, minutes=59))
    week.airflow.answer("seat_1", "olga")
    assert week.to(hours=49).state == "awaiting_input"
    (vote,) = [record.event["new"] for record in week.records() if record.event["action"] == "approval.answered"]
    assert (vote["counts"], "olga may not vote at algorithm-lead" in vote["why"]) == (False, True)


@pytest.mark.parametrize("policy", [["expires: {after: 7d}"]], indirect=True)
def test_the_end_of_waiting_is_a_rejection_and_a_late_yes_does_not_count(week: Week) -> None:
    week.to(days=6, hours=23)
    assert timedelta() < week.waits < timedelta(hours=1, minutes=1)
    week.clock.move_to(BEGIN + timedelta(days=7, minutes=1))
    week.airflow.answer("seat_1", "lena")
    outcome = week.to(days=7, minutes=2)
    assert outcome.state == "failed"
    assert "the release is expired: algorithm-lead had too few answers within 7d" in str(outcome.error)
    assert week.told[-1] == ("expired", [])
    assert week.to(days=8).state == "failed"
    assert [event for event, _ in week.told].count("expired") == 1
    assert "granted" not in week.noted


def test_a_message_that_cannot_be_delivered_is_sent_again_at_the_next_look(week: Week) -> None:
    week.webhook.answers = [(403, b"")]
    week.to(hours=25)
    assert "reminded" not in week.noted
    assert week.told[-1][0] == "reminded"
    week.to(hours=26)
    assert [event for event, _ in week.told].count("reminded") == 2
    assert week.noted[-1] == "reminded"
    week.to(hours=27)
    assert [event for event, _ in week.told].count("reminded") == 2


BOTH = pytest.mark.parametrize("logs", ["postgresql", "sqlite"], indirect=True)


@BOTH
def test_an_answer_that_airflow_erases_is_in_the_log_before(week: Week) -> None:
    """Airflow fails a task that is answered as it parks, and asking again in the next try erases the answer."""
    week.airflow.answer("seat_1", "cora")  # she may not answer here, so the seat asks again
    again = run_task(week.seat, supervisor=week.supervisor, try_number=2)
    assert again.state == "awaiting_input", again.error
    assert week.airflow.transport.handle_request(DETAILS).json().get("response_received") is None
    for _ in range(2):  # neither lost nor recorded twice
        week.to(hours=1)
        (vote,) = [record.event["new"] for record in week.records() if record.event["action"] == "approval.answered"]
        assert (vote["account"], vote["counts"]) == ("cora", False)

    week.airflow.answer("seat_1", "rita", "Reject")
    rejected = run_task(week.seat, supervisor=week.supervisor, try_number=3)
    assert (rejected.state, "rita rejected it" in str(rejected.error)) == ("failed", True)


def test_an_answer_in_the_event_that_wakes_a_seat_is_not_believed(week: Week) -> None:
    forged = {"chosen_options": ["Approve"], "responded_by_user": {"id": "lena", "name": "lena"}, "params_input": {}}
    outcome = run_task(week.seat, supervisor=week.supervisor, resume_with=forged)
    assert outcome.state == "awaiting_input", outcome.error
    assert "answered" not in week.noted


@BOTH
def test_nothing_is_asked_again_while_an_answer_cannot_be_recorded(week: Week, monkeypatch: pytest.MonkeyPatch) -> None:
    week.airflow.answer("seat_1", "lena", "Reject")
    asked = len(week.supervisor.messages("CreateHITLDetailPayload"))
    closed = {"conn_type": "audit_log", "host": "127.0.0.1", "port": 1, "schema": "audit", "login": "mcp_release"}
    with monkeypatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(closed))
        down = run_task(week.seat, supervisor=week.supervisor, try_number=2)
    assert down.state == "up_for_retry", down.error
    assert len(week.supervisor.messages("CreateHITLDetailPayload")) == asked
    rejected = run_task(week.seat, supervisor=week.supervisor, try_number=3)
    assert (rejected.state, "lena rejected it" in str(rejected.error)) == ("failed", True)
