"""Requests and seats of one release or rollback, as tasks: a chain for rollbacks, a release tag without a signature.

Real: MLflow, the audit log, Git and Airflow's task runner. Airflow's REST API is a fake: test_approvals_airflow has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_mcp.core import contract
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.hooks.airflow_people import AirflowApiHook
from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator
from tests.support.audit_log import sqlite_logs
from tests.support.fakes.airflow_questions import FakeQuestions
from tests.support.git_server import Repository, new_ssh_key
from tests.support.governed import Governed
from tests.support.mlflow_world import World
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task

pytestmark = pytest.mark.integration

PEOPLE = {name: {} for name in ("ada", "dora", "eva", "olga", "omar")}
RULES = (
    {"when": {"act": "rollback"}, "chain": [{"name": "on-call", "approvers": ["olga", "omar"]}]},
    {"chain": [{"name": "lead", "approvers": ["olga", "omar"]}]},
)


class Release:
    """One version with a passport, the tasks that ask people about it, and where people answer.

    :param governed: the registry and the log.
    :param airflow: where people answer.
    """

    def __init__(self, governed: Governed, airflow: FakeQuestions) -> None:
        self.governed, self.airflow = governed, airflow

    def task(self, operator: type[Any], task_id: str, **arguments: Any) -> Any:
        given = {"model_name": self.governed.world.model_name, "version": "1", "environment": "prod", "seats": 2}
        with DAG(self.governed.world.dag_id, schedule=None):
            return operator(task_id=task_id, **given, **arguments)

    def run(self, task: Any, **more: Any) -> TaskOutcome:
        return run_task(task, supervisor=self.airflow.supervisor, **more)


@pytest.fixture
def release(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    logs = sqlite_logs(tmp_path)
    connection = {"conn_type": "audit_log", "extra": {"sqlite_path": logs.owner.sqlite_path}}
    for name, value in (
        ("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection)),
        ("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests"),
        ("AIRFLOW__AIRFLOW_MCP__AIRFLOW_API_CONN_ID", "airflow_tests"),
    ):
        monkeypatch.setenv(name, value)
    airflow = FakeQuestions(FakeSupervisor({"mlflow_default": {"host": world.url}}))
    monkeypatch.setattr(
        AirflowApiHook, "get_conn", lambda _: AirflowApi("http://airflow", token="t", transport=airflow.transport)
    )
    return Release(Governed(world, logs, "prod"), airflow)


def test_a_rollback_is_asked_about_with_its_own_chain_and_question(release: Release) -> None:
    release.governed.activate(people=PEOPLE, approvals=RULES)
    version = release.governed.version()
    asked = release.run(release.task(RequestReleaseOperator, "request", act="rollback"))
    assert asked.state == "success", asked.error
    assert (asked.result["status"], asked.result["chain"]) == ("open", ["on-call"])
    first, second = (release.task(ApprovalSeatOperator, f"seat_{n}", seat=n, act="rollback") for n in (1, 2))
    assert release.run(first).state == "awaiting_input"
    (question,) = release.airflow.supervisor.messages("CreateHITLDetailPayload")
    passport = version.tags[contract.TAG_PASSPORT]
    assert question.subject == f"[on-call] {version.name} back in prod: passport {passport}"
    assert "**Rollback** to version 1 of" in question.body
    release.airflow.answer("seat_1", "omar")
    done = release.run(first, resume_with={})
    assert (done.state, done.result["by"], done.result["status"]) == ("success", "omar", "granted")
    assert release.run(second).result["by"] is None  # a seat that the chain does not need asks nobody
    (request,) = release.governed.records("approval.requested")
    assert request.event["new"]["act"] == "rollback"
    released = release.run(release.task(RequestReleaseOperator, "request_again"))
    assert (released.result["status"], released.result["chain"]) == ("open", ["lead"])  # its release is another request


def test_nobody_is_asked_about_a_release_whose_tag_lacks_the_signature(release: Release, tmp_path: Path) -> None:
    code, key = Repository(tmp_path / "code"), new_ssh_key(tmp_path / "olga")
    commit = code.commit("print(1)")
    code.git("tag", "v1.2")
    people = {**PEOPLE, "olga": {"signingKeys": [key]}}
    release.governed.activate(people=people, approvals=RULES, releaseTags=[{"signedBy": ["olga"]}])
    release.governed.version(**{contract.TAG_CODE_URL: code.url, contract.TAG_CODE_COMMIT: commit})
    request = release.task(RequestReleaseOperator, "request")
    refused = release.run(request)
    assert refused.state == "failed"
    assert "tag v1.2 carries no signature of a permitted key" in str(refused.error)
    subject = model_subject(release.governed.world.model_name)
    assert not [each for each in release.governed.records("approval.") if each.event["subject"] == subject]
    back = release.run(release.task(RequestReleaseOperator, "request_back", act="rollback"))
    assert back.state == "success", back.error  # going back needs no new tag
    code.sign_tag("v1.2", tmp_path / "olga", commit, "--force")
    assert release.run(request).state == "success"
