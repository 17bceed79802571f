"""ReleaseGrantedSensor against a real MLflow server and a real audit log, in a worker and in the triggerer."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.events import Answer, Asked, ReleaseKey, answered, requested
from airflow_mcp.core.audit.event import AuditActor, AuditEvent
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.sensors.release import ReleaseGrantedSensor
from airflow_mcp.triggers.release import ReleaseDecidedTrigger
from tests.support.approvals import bank_of_test, put_in_force
from tests.support.audit_log import Logs, sqlite_logs
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome, run_task

pytestmark = pytest.mark.integration
LEADS = ("lena", "luis")


class Release:
    """A version that waits for people.

    :param world: the MLflow server.
    :param logs: the audit log.
    """

    def __init__(self, world: World, logs: Logs) -> None:
        self.world, self.logs = world, logs
        self.key = ReleaseKey(world.model_name, "test", f"sha256:{'d' * 64}")

    def sense(self, **options: Any) -> TaskOutcome:
        given = {"deferrable": False, "poke_interval": 0.05, "timeout": 0.2, "environment": "test", **options}
        return self.world.run(ReleaseGrantedSensor, model_name=self.key.model_name, version="1", **given)

    def register(self, passport: str = "") -> None:
        self.world.hook.create_registered_model(self.key.model_name)
        tags = {contract.TAG_PASSPORT: passport} if passport else {}
        self.world.hook.create_model_version(self.key.model_name, "s3://nowhere/model", tags=tags)

    def ask(self) -> None:
        asked = Asked("1", "low", Requester(account="dora"), bank_of_test().digest)
        task = TaskKey("churn__release", "r1", "request")
        self.append(requested(self.key, asked, AuditActor("user", "dora", authenticated=True), task))

    def answer(self, account: str, node: str, option: str = "Approve") -> None:
        task = TaskKey("churn__release", "r1", f"seat_{account}")
        given = Answer(task, self.key.question(node), option, account, account, "2099-01-01T00:00:00+00:00", "looked")
        self.append(answered(self.key, given, AuditActor("user", account), counts=True, why=""))

    def append(self, event: AuditEvent) -> None:
        with closing(open_log(self.logs.owner)) as log:
            log.append(event)


@pytest.fixture
def release(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    logs = sqlite_logs(tmp_path)
    with closing(open_log(logs.owner)) as log:
        put_in_force(log, bank_of_test())
    connection = {"conn_type": "audit_log", "extra": {"sqlite_path": logs.owner.sqlite_path}}
    monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")
    return Release(world, logs)


def test_it_waits_until_the_version_is_there_has_a_passport_is_asked_for_and_everybody_has_approved(
    release: Release,
) -> None:
    assert "timed out" in str(release.sense().error)
    release.register(release.key.passport)
    assert "timed out" in str(release.sense().error)
    release.ask()
    for account, node in ((LEADS[0], "algorithm-lead"), (LEADS[1], "algorithm-lead"), ("cora", "compliance")):
        assert "timed out" in str(release.sense().error)
        release.answer(account, node)
    outcome = release.sense()
    assert outcome.state == "success", outcome.error
    assert outcome.result == {
        "model_name": release.key.model_name,
        "version": "1",
        "environment": "test",
        "passport": release.key.passport,
        "status": "granted",
        "reason": "",
        "by": ["lena", "luis", "cora"],
    }


def test_a_rejection_while_it_waits_in_the_triggerer_fails_it_unless_the_dag_goes_on_with_that(
    release: Release,
) -> None:
    release.register(release.key.passport)
    release.ask()
    waiting = {
        each: release.sense(deferrable=True, timeout=60, statuses=each) for each in (("granted",), ("rejected",))
    }
    assert [outcome.state for outcome in waiting.values()] == ["deferred", "deferred"]
    (arguments,) = {
        json.dumps(outcome.supervisor.messages("DeferTask")[-1].trigger_kwargs) for outcome in waiting.values()
    }
    trigger = ReleaseDecidedTrigger(**{**json.loads(arguments), "mlflow_conn_id": "mlflow_tests", "poll_seconds": 1})
    trigger.poll_seconds = 0.05

    async def wait() -> dict[str, Any]:
        async with asyncio.timeout(30):
            first = asyncio.ensure_future(anext(aiter(trigger.run())))
            await asyncio.to_thread(release.answer, "lena", "algorithm-lead")
            await asyncio.sleep(0.2)
            assert not first.done()
            await asyncio.to_thread(release.answer, "luis", "algorithm-lead", "Reject")
            return dict((await first).payload)

    event = asyncio.run(wait())
    assert event["status"] == "found"
    resumed = [run_again(outcome, event) for outcome in waiting.values()]
    assert [outcome.state for outcome in resumed] == ["failed", "success"]
    assert "is rejected, luis rejected it at algorithm-lead: looked. Ask for it again" in str(resumed[0].error)
    assert (resumed[1].result["status"], resumed[1].result["by"]) == ("rejected", ["lena"])


def run_again(outcome: TaskOutcome, event: dict[str, Any]) -> TaskOutcome:
    return run_task(outcome.operator, supervisor=outcome.supervisor, resume_with=event)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": ""}, "model_name must be text that is not empty; got ''"),
        ({"version": "latest"}, "version must be"),
    ],
)
def test_a_wrong_argument_fails_at_once(release: Release, options: dict[str, str], message: str) -> None:
    given = {"model_name": "churn", "version": "1", **options}
    outcome = release.world.run(ReleaseGrantedSensor, deferrable=True, **given)
    assert outcome.state == "failed"
    assert message in str(outcome.error)


def test_without_an_audit_log_nothing_is_waited_for(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "")
    outcome = release.sense(deferrable=True)
    assert outcome.state == "failed"
    assert "[airflow_mcp] audit_conn_id must be the ID of a connection of type audit_log" in str(outcome.error)
    with pytest.raises(ValueError, match="statuses must be a list of granted, rejected"):
        ReleaseGrantedSensor(task_id="task", model_name="churn", version="1", statuses=["approved"])
