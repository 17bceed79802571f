"""A chain of approvals in a real Airflow: who counts, the race after parking, clear, mark success, restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.state import RequestState
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.exceptions import ApprovalMissingError
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.hooks.airflow_people import AirflowPeople
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.registry.approvals import ReleaseApprovals, ReleaseBook
from airflow_mcp.registry.guard import Question
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import ADMIN, READER, AirflowStack
from tests.support.approvals import bank_of_test, put_in_force
from tests.support.audit_log import Logs, postgresql_logs, sqlite_logs
from tests.support.mlflow_world import World
from tests.support.postgresql import new_database
from tests.support.processes import wait_until
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration

DAG_ID = "churn__release"
SECONDS = 300
PEOPLE = ("dora", "lena", "luis", "rita", "cora", "carl")
DAGS = '''
"""Three seats: two algorithm leads, then one person of compliance."""
from datetime import timedelta

from airflow.sdk import DAG

from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator

release = {"model_name": "{{ params.model }}", "version": "1", "seats": 3, "environment": "test"}
patience = {"retries": 5, "retry_delay": timedelta(seconds=2)}

with DAG("churn__release", schedule=None, params={"model": ""}, max_active_runs=20):
    before = RequestReleaseOperator(task_id="request", risk="low", **release, **patience)
    for number in (1, 2, 3):
        seat = ApprovalSeatOperator(task_id=f"seat_{number}", seat=number, **release, **patience)
        before >> seat
        before = seat
'''


class Bank:
    """Airflow, MLflow and the log of a bank, and what its people do.

    :param stack: Airflow.
    :param log: the audit log.
    :param log_url: address of the audit log for the command line.
    """

    def __init__(self, stack: AirflowStack, log: AuditLog, log_url: str) -> None:
        self.stack, self.log, self.log_url = stack, log, log_url

    def client(self, account: str) -> AirflowClient:
        return self.stack.api(account)

    def version(self, operations: MlflowOperations) -> ReleaseKey:
        """Register a model whose version has a passport."""
        name = f"churn-{uuid4().hex[:8]}"
        operations.create_registered_model(name)
        operations.create_model_version(
            name, "s3://nowhere/model", tags={contract.TAG_PASSPORT: f"sha256:{uuid4().hex}{uuid4().hex}"}
        )
        passport = operations.get_model_version(name, "1").tags[contract.TAG_PASSPORT]
        return ReleaseKey(name, "test", passport)

    def ask(self, key: ReleaseKey, by: str = "dora") -> str:
        with closing(self.client(by)) as client:
            return client.trigger(DAG_ID, {"model": key.model_name})

    def wait_for(self, run_id: str, task_id: str, state: str = "awaiting_input") -> None:
        with closing(self.client(ADMIN)) as client:
            assert wait_until(lambda: client.task_states(DAG_ID, run_id).get(task_id) == state, seconds=SECONDS)

    def answer(self, run_id: str, task_id: str, account: str, option: str = "Approve") -> None:
        self.wait_for(run_id, task_id)
        with closing(self.client(account)) as client:
            client.answer(DAG_ID, run_id, task_id, option, "looked at it")

    def command(self, account: str, *arguments: str) -> int:
        """Run ``airflow-mcp approvals`` as somebody whom Airflow knows by a token."""
        with closing(self.client(account)) as client, pytest.MonkeyPatch.context() as patch:
            for name, value in (("AIRFLOW_URL", self.stack.url), ("AIRFLOW_TOKEN", client.token)):
                patch.setenv(f"AIRFLOW_MCP_{name}", value)
            patch.setenv("AIRFLOW_MCP_AUDIT_LOG", self.log_url)
            patch.setenv("AIRFLOW_MCP_ENVIRONMENT", "test")
            return main(["approvals", *arguments, "--reason", "on leave"])

    def state(self, key: ReleaseKey) -> RequestState:
        in_force = read_in_force(self.log)
        assert in_force is not None
        return ReleaseBook(self.log, key, ApprovalPolicy.of(in_force.policy)).state(datetime.now(UTC))


@contextmanager
def simple(_: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[AirflowStack, Logs]]:
    """Airflow as it is installed: its simple auth manager, SQLite, and the log in a file."""
    accounts = {**dict.fromkeys(PEOPLE, "user"), READER: "viewer"}
    yield AirflowStack(folder / "home", folder / "dags", accounts=accounts), sqlite_logs(folder)


@contextmanager
def fab(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[AirflowStack, Logs]]:
    """Airflow as it is operated: FAB, PostgreSQL, and the log in PostgreSQL with a login for each right."""
    server = request.getfixturevalue("postgresql")
    with new_database(server) as database, postgresql_logs(server) as logs:
        accounts = {**dict.fromkeys(PEOPLE, "user"), READER: READER}
        yield (
            AirflowStack(folder / "home", folder / "dags", accounts=accounts, auth_manager="fab", database=database),
            logs,
        )


@pytest.fixture(scope="module", params=[simple, fab], ids=["simple-sqlite", "fab-postgresql"])
def the_bank(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer
) -> Iterator[Bank]:
    with opened(request.param(request, folder := tmp_path_factory.mktemp("approvals")), folder, mlflow_server) as found:
        yield found


@contextmanager
def opened(
    parts: AbstractContextManager[tuple[AirflowStack, Logs]], folder: Path, mlflow_server: MlflowServer
) -> Iterator[Bank]:
    (folder / "dags").mkdir()
    (folder / "dags" / "release.py").write_text(DAGS)
    with parts as (stack, logs):
        log = open_log(logs.as_login("mcp_policy"))
        put_in_force(log, bank_of_test())
        stack.env |= {
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
            "AIRFLOW_CONN_AUDIT_LOG_DEFAULT": json.dumps(connection_to(logs.as_login("mcp_release"))),
            "AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID": "audit_log_default",
            "AIRFLOW__AIRFLOW_MCP__AIRFLOW_API_CONN_ID": "airflow_api_default",
        }
        with stack, closing(stack.api()) as client:
            reader = {"login": READER, "password": stack.passwords[READER]}
            client.add_connection("airflow_api_default", "airflow_api", host=stack.url, **reader)
            client.wait_for_dag(DAG_ID)
            yield Bank(stack, log, logs.url("mcp_people"))


def connection_to(log: AuditSettings) -> dict[str, Any]:
    if log.sqlite_path:
        return {"conn_type": "audit_log", "extra": {"sqlite_path": log.sqlite_path}}
    return {"conn_type": "audit_log", "host": log.host, "port": log.port, "schema": log.database, "login": log.login}


@pytest.fixture
def operations(world: World) -> MlflowOperations:
    return world.hook


def test_two_leads_and_compliance_approve_and_airflow_confirms_each(
    the_bank: Bank, operations: MlflowOperations
) -> None:
    key = the_bank.version(operations)
    run = the_bank.ask(key, by="lena")
    the_bank.answer(run, "seat_1", "lena")  # she asked herself
    the_bank.answer(run, "seat_1", "cora")  # not her turn
    the_bank.answer(run, "seat_1", "luis")
    the_bank.answer(run, "seat_2", "rita")
    the_bank.answer(run, "seat_3", "cora")
    with closing(the_bank.client(ADMIN)) as client:
        assert client.wait_for_run(DAG_ID, run, SECONDS) == "success"
        assert client.xcom(DAG_ID, run, "seat_3", "by") == "cora"
    state = the_bank.state(key)
    assert state.status == "granted"
    assert [(vote.person, vote.counts) for vote in state.votes] == [
        ("lena", False),
        ("cora", False),
        ("luis", True),
        ("rita", True),
        ("cora", True),
    ]
    assert confirm(the_bank, key, operations) == ("luis", "rita", "cora")
    with closing(the_bank.client(ADMIN)) as client:  # a second run for the same passport asks nobody
        again = the_bank.ask(key)
        assert client.wait_for_run(DAG_ID, again, SECONDS) == "success"
        client.delete_run(DAG_ID, run)
    with pytest.raises(ApprovalMissingError, match="Airflow does not know such a question"):
        confirm(the_bank, key, operations)


def confirm(the_bank: Bank, key: ReleaseKey, operations: MlflowOperations) -> tuple[str, ...]:
    in_force = read_in_force(the_bank.log)
    assert in_force is not None

    @contextmanager
    def people() -> Iterator[AirflowPeople]:
        with AirflowApi(the_bank.stack.url, user=READER, password=the_bank.stack.passwords[READER]) as api:
            yield AirflowPeople(api)

    version = operations.get_model_version(key.model_name, "1")
    question = Question(key.model_name, key.environment, key.passport, version, in_force)
    return ReleaseApprovals(people).granted(question, the_bank.log).people


def test_marking_success_is_no_vote_a_clear_keeps_the_answers_and_a_delegate_votes(
    the_bank: Bank, operations: MlflowOperations, capsys: pytest.CaptureFixture[str]
) -> None:
    key = the_bank.version(operations)
    run = the_bank.ask(key)
    the_bank.answer(run, "seat_1", "lena")
    the_bank.wait_for(run, "seat_2")
    with closing(the_bank.client("dora")) as client:
        client.set_task_state(DAG_ID, run, "seat_2", "success")
        the_bank.wait_for(run, "seat_3")
        assert "[algorithm-lead]" in client.question(DAG_ID, run, "seat_3")["subject"]
        assert len(the_bank.state(key).approvals) == 1
    with closing(the_bank.client("rita")) as client:
        client.clear_task(DAG_ID, run, "seat_1")
    the_bank.wait_for(run, "seat_1", "success")  # lena is not asked again
    assert [vote.person for vote in the_bank.state(key).approvals] == ["lena"]
    the_bank.answer(run, "seat_3", "rita")  # she has cleared a task, and counts as having asked
    the_bank.wait_for(run, "seat_3")
    assert [(vote.person, vote.counts) for vote in the_bank.state(key).votes] == [("lena", True), ("rita", False)]
    seq = delegate(the_bank, "luis", "carl", capsys)
    the_bank.answer(run, "seat_3", "carl")  # compliance, who may not vote for themselves here
    the_bank.wait_for(run, "seat_3", "failed")  # Airflow keeps its question, and compliance needs another: a new run
    assert [(vote.person, vote.why) for vote in the_bank.state(key).approvals[1:]] == [("carl", "for luis")]
    assert the_bank.command("cora", "undelegate", str(seq)) == 1
    assert "'cora' has no role that grants policy/activate" in capsys.readouterr().err
    assert the_bank.command("carl", "undelegate", str(seq)) == 0


def delegate(the_bank: Bank, giver: str, receiver: str, capsys: pytest.CaptureFixture[str]) -> int:
    arguments = ("delegate", receiver, "--until", "2099-01-01T00:00Z", "--role", "algorithm-lead", "--format", "json")
    assert the_bank.command(giver, *arguments) == 0
    given = json.loads(capsys.readouterr().out)
    assert (given["giver"], given["receiver"], given["is_valid"]) == (giver, receiver, True)
    return int(given["seq"])


def test_an_answer_after_the_scheduler_was_killed_counts_and_one_reject_ends_it(
    the_bank: Bank, operations: MlflowOperations
) -> None:
    key = the_bank.version(operations)
    run = the_bank.ask(key)
    the_bank.wait_for(run, "seat_1")
    scheduler = the_bank.stack.component("scheduler")
    scheduler.kill()
    the_bank.answer(run, "seat_1", "lena")
    scheduler.start()
    the_bank.answer(run, "seat_2", "luis", "Reject")
    with closing(the_bank.client(ADMIN)) as client:
        assert client.wait_for_run(DAG_ID, run, SECONDS) == "failed"
    state = the_bank.state(key)
    assert (state.status, state.reason) == ("rejected", "luis rejected it at algorithm-lead: looked at it")
    assert [vote.person for vote in state.approvals] == ["lena"]
