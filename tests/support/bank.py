"""A bank whose people approve releases: a real Airflow with accounts, its audit log and its policy.

Twice: as it is installed, and as it is operated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.access.policy import GovernancePolicy, read_policy
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.seats import chain_mistakes
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.registry.approvals import ReleaseBook
from tests.support import warm
from tests.support.airflow_stack import ADMIN, READER, AirflowStack
from tests.support.approvals import bank_of_test, put_in_force
from tests.support.audit_log import Logs, new_key, postgresql_logs, sqlite_logs
from tests.support.postgresql import new_database
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from airflow_mcp.audit.settings import AuditSettings
    from airflow_mcp.core.approvals.state import RequestState
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from tests.support.airflow_api import AirflowClient
    from tests.support.services import MlflowServer

DAG_ID = "churn__release"
SECONDS = 300
AUTHOR = "Tests@example.com"
"""Author of every commit of :mod:`tests.support.git_server`."""
PEOPLE = ("dora", "lena", "luis", "rita", "cora", "carl", "omar", "rosa")
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
    """Airflow and the log of a bank, and what its people do.

    :param stack: Airflow.
    :param log: the audit log, as the login that changes policies sees it.
    :param logs: the audit log, as each login sees it.
    :param private_key: the key that signs passports and clearances, PEM.
    """

    def __init__(self, stack: AirflowStack, log: AuditLog, logs: Logs, private_key: bytes) -> None:
        self.stack, self.log, self.logs, self.private_key = stack, log, logs, private_key
        self._clients: dict[str, AirflowClient] = {}

    def client(self, account: str) -> AirflowClient:
        """Return the client of an account, which stays logged in."""
        if account not in self._clients:
            self._clients[account] = self.stack.api(account)
        return self._clients[account]

    def close(self) -> None:
        """Close what was opened."""
        for client in self._clients.values():
            client.close()
        self.log.close()

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
        """Ask for a release; return the run."""
        return self.client(by).trigger(DAG_ID, {"model": key.model_name})

    def wait_for(self, run_id: str, task_id: str, state: str = "awaiting_input", dag_id: str = DAG_ID) -> None:
        """Wait for the state of a task."""
        client = self.client(ADMIN)
        # Not more often: each look takes CPU from the API server, which serves the tasks too.
        assert wait_until(lambda: client.task_states(dag_id, run_id).get(task_id) == state, seconds=SECONDS, every=0.25)

    def answer(self, run_id: str, task_id: str, account: str, option: str = "Approve", dag_id: str = DAG_ID) -> None:
        """Answer a seat once it waits."""
        self.wait_for(run_id, task_id, dag_id=dag_id)
        self.client(account).answer(dag_id, run_id, task_id, option, "looked at it")

    def command(self, account: str, *arguments: str) -> int:
        """Run ``airflow-mcp approvals`` as somebody whom Airflow knows by a token."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("AIRFLOW_URL", self.stack.url), ("AIRFLOW_TOKEN", self.client(account).token)):
                patch.setenv(f"AIRFLOW_MCP_{name}", value)
            patch.setenv("AIRFLOW_MCP_AUDIT_LOG", self.logs.url("mcp_people"))
            patch.setenv("AIRFLOW_MCP_ENVIRONMENT", "test")
            return main(["approvals", *arguments, "--reason", "on leave"])

    def state(self, key: ReleaseKey) -> RequestState:
        """Return where a request stands."""
        in_force = read_in_force(self.log)
        assert in_force is not None
        return ReleaseBook(self.log, key, ApprovalPolicy.of(in_force.policy)).state(datetime.now(UTC))


@contextmanager
def simple(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[AirflowStack, Logs]]:
    """Airflow as it is installed: its simple auth manager, SQLite, and the log in a file.

    Neither bank has a triggerer: a seat that waits needs none.
    """
    accounts = {**dict.fromkeys(PEOPLE, "user"), READER: "viewer"}
    env = warm.in_airflow(folder / "home", request.getfixturevalue("warm_server"))
    stack = AirflowStack(folder / "home", folder / "dags", env=env, accounts=accounts, has_triggerer=False)
    yield stack, sqlite_logs(folder)


@contextmanager
def fab(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[AirflowStack, Logs]]:
    """Airflow as it is operated: prod, FAB, PostgreSQL, and the log in PostgreSQL with a login for each right."""
    server = request.getfixturevalue("postgresql")
    with new_database(server) as database, postgresql_logs(server) as logs:
        accounts = {**dict.fromkeys(PEOPLE, "user"), READER: READER}
        env = warm.in_airflow(folder / "home", request.getfixturevalue("warm_server"))
        env |= {"AIRFLOW__AIRFLOW_MCP__ENVIRONMENT": "prod"}
        stack = AirflowStack(
            *(folder / "home", folder / "dags"),
            env=env,
            accounts=accounts,
            auth_manager="fab",
            database=database,
            has_triggerer=False,
        )
        yield stack, logs


@contextmanager
def opened(
    parts: AbstractContextManager[tuple[AirflowStack, Logs]], folder: Path, mlflow_server: MlflowServer
) -> Iterator[Bank]:
    """Start a bank, and put its policy in force."""
    (folder / "dags").mkdir()
    (folder / "dags" / "release.py").write_text(DAGS)
    private, public = new_key()
    with parts as (stack, logs):
        stack.env |= {
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
            "AIRFLOW_CONN_AUDIT_LOG_DEFAULT": json.dumps(connection_to(logs.as_login("mcp_worker"))),
            "AIRFLOW_CONN_SIGNING": json.dumps({"conn_type": "signing_key", "password": private.decode()}),
            "AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID": "audit_log_default",
            "AIRFLOW__AIRFLOW_MCP__AIRFLOW_API_CONN_ID": "airflow_api_default",
            "AIRFLOW__AIRFLOW_MCP__SIGNING_CONN_ID": "signing",
        }
        with stack, closing(Bank(stack, open_log(logs.as_login("mcp_policy")), logs, private)) as bank:
            put_in_force(bank.log, policy_of(stack.auth_manager, ids_of(bank), public))
            reader = {"login": READER, "password": stack.passwords[READER]}
            bank.client(ADMIN).add_connection("airflow_api_default", "airflow_api", host=stack.url, **reader)
            bank.client(ADMIN).wait_for_dag(DAG_ID)
            yield bank


def connection_to(log: AuditSettings) -> dict[str, Any]:
    """Return the Airflow connection to a log."""
    if log.sqlite_path:
        return {"conn_type": "audit_log", "extra": {"sqlite_path": log.sqlite_path}}
    return {"conn_type": "audit_log", "host": log.host, "port": log.port, "schema": log.database, "login": log.login}


def ids_of(bank: Bank) -> dict[str, str]:
    """Return the IDs that Airflow gives to compliance and its superior: with FAB a number, otherwise the name."""
    found = {}
    for account in ("cora", "carl", "omar"):
        with AirflowApi(bank.stack.url, token=bank.client(account).token) as api:
            name, found[account] = api.who_am_i()
            assert name == account
    return found


def policy_of(auth_manager: str, ids: Mapping[str, str], public_key: bytes) -> GovernancePolicy:
    """Return the policy of the bank: the chains of prod are those of test too, and dora operates models.

    :param auth_manager: ``simple`` or ``fab``.
    :param ids: IDs of accounts, by which Airflow itself refuses everybody else.
    :param public_key: whose passports count, PEM.
    """
    document = json.loads(bank_of_test().text)
    spec = document["spec"]
    for person, account_id in ids.items():
        spec["people"][person]["ids"] = {auth_manager: account_id}
    spec["people"]["lena"]["gitEmails"] = [AUTHOR]
    spec["people"]["dora"] = {}
    permissions = ["model:*/promote", "model:*/rollback", "environment:prod/deploy"]
    spec["roles"]["operator"] = {"permissions": permissions}
    spec["bindings"].append({"role": "operator", "people": ["dora"]})
    for rule in spec["approvals"]:
        if "when" in rule:
            rule["when"]["environment"] = ["test", "prod"]
    spec["keys"] = [{"id": "bank", "public": public_key.decode(), "use": ["passport", "clearance"]}]
    return read_policy(json.dumps(document).encode(), "policy.json", (chain_mistakes,))
