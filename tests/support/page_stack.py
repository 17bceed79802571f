"""What the page stands on, all of it real: Airflow with accounts, MLflow with models, the audit log with a policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import activation_event, proposal_events, read_proposal
from airflow_mcp.core.access.policy import read_policy
from airflow_mcp.core.approvals.seats import chain_mistakes
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.evaluation.evidence import ModelUnderTest
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import ADMIN, AirflowStack
from tests.support.audit_log import sqlite_logs
from tests.support.logged_models import log_tree
from tests.support.mlflow_world import World, load_check_tags
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog
    from tests.support.services import MlflowServer

ACCOUNTS = {"olga": "op", "otto": "op", "ulf": "user", "cora": "user", "vera": "viewer"}
"""Account to role in Airflow's simple auth manager, besides the administrator."""
FRAUD, CHURN, CLICKS, PRICES = "fraud_detection", "churn_eu", "click_rate", "price_elasticity"
RELEASE = "churn_eu__release"
ACTION_DAGS = ("rollback_model", "promote_model", "steer_rollout", "set_model_stage", "publish_model")
POLICY = """
apiVersion: mcp.example.com/v1
kind: GovernancePolicy
metadata: {name: shop}
spec:
  people: {admin: {}, olga: {}, ulf: {}, cora: {}, carl: {}, dora: {}}
  roles:
    viewer: {permissions: ["model:*/read"]}
    operator:
      inherits: [viewer]
      permissions: ["model:*/*", "environment:*/deploy", audit/read]
    compliance: {inherits: [viewer]}
  bindings:
    - {role: operator, people: [admin, olga]}
    - {role: compliance, people: [cora, carl]}
    - {role: viewer, people: [ulf, dora], airflowRoles: [op, viewer]}
  approvals:
    - when: {models: [churn_eu]}
      chain: [{name: compliance, approvers: role:compliance, timers: [{after: 48h, do: alert}]}]
    - chain: []
"""
_DAGS = '''
"""The Dag that trains all models of the tests, and one that asks before a release."""
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator

with DAG("nightly_retrain", schedule=None):
    task(lambda: None, task_id="train")()

release = {"model_name": "churn_eu", "version": "2", "seats": 1, "environment": "test"}
with DAG("churn_eu__release", schedule=None):
    request = RequestReleaseOperator(task_id="request", risk="low", **release)
    request >> ApprovalSeatOperator(
        task_id="seat_1", seat=1, retries=5, retry_delay=timedelta(seconds=2), **release
    )
'''


class PageStack:
    """Airflow, MLflow and the audit log, with models in different states.

    :param airflow: the started Airflow.
    :param mlflow: the MLflow server.
    :param log: the audit log.
    """

    def __init__(self, airflow: AirflowStack, mlflow: MlflowServer, log: AuditLog) -> None:
        self.airflow, self.mlflow, self.log = airflow, mlflow, log
        self.release = ""
        """The run of the Dag :data:`RELEASE` that asks for a release."""
        self._tokens: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Address of Airflow."""
        return self.airflow.url

    def token(self, account: str) -> str:
        """Return a token of an account, as the login page hands it out."""
        if account not in self._tokens:
            body = {"username": account, "password": self.airflow.passwords[account]}
            answer = httpx.post(f"{self.url}/auth/token", json=body, timeout=60, trust_env=False)
            self._tokens[account] = str(answer.raise_for_status().json()["access_token"])
        return self._tokens[account]

    def client(self, account: str) -> httpx.Client:
        """Return a client of the page that is logged in; with an empty name it is not."""
        headers = {"Authorization": f"Bearer {self.token(account)}"} if account else {}
        return httpx.Client(base_url=f"{self.url}/mcp", headers=headers, timeout=60, trust_env=False)

    def api(self, account: str = ADMIN) -> AirflowClient:
        """Return a client of Airflow's REST API that is logged in; the caller closes it."""
        return self.airflow.api(account)


@contextmanager
def page_stack(folder: Path, mlflow: MlflowServer, seed: Callable[[], None] = lambda: None) -> Iterator[PageStack]:
    """Start Airflow beside an MLflow server, with accounts, a policy in force and the Dags of the page.

    :param folder: takes all that is written.
    :param mlflow: the MLflow server.
    :param seed: makes models while Airflow starts.
    """
    dags = folder / "dags"
    dags.mkdir()
    for name in ACTION_DAGS:
        shutil.copy(ROOT / "dags" / f"{name}.py", dags)
    (dags / "release.py").write_text(_DAGS)
    log = open_log(sqlite_logs(folder).owner)
    activate(log)
    audit = {"conn_type": "audit_log", "extra": {"sqlite_path": str(folder / "audit" / "log.db")}}
    env = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow.url}),
        "AIRFLOW_CONN_AUDIT_LOG_DEFAULT": json.dumps(audit),
        "AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID": "audit_log_default",
        "AIRFLOW__AIRFLOW_MCP__AIRFLOW_API_CONN_ID": "airflow_api_default",
        "AIRFLOW__AIRFLOW_MCP__ENVIRONMENT": "test",
    }
    airflow = AirflowStack(folder / "home", dags, env=env, accounts=ACCOUNTS)
    try:
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(airflow.start)
            seed()
            starting.result()
        stack = PageStack(airflow, mlflow, log)
        with closing(stack.api()) as client:
            client.add_connection(
                "airflow_api_default", "airflow_api", host=airflow.url, login=ADMIN, password=airflow.password
            )
            for dag_id in (*ACTION_DAGS, "churn_eu__release", "nightly_retrain"):
                client.wait_for_dag(dag_id)
        yield stack
    finally:
        airflow.stop()


def activate(log: AuditLog, text: str = POLICY) -> None:
    """Put a policy in force: one person proposes it, another activates it."""
    policy = read_policy(text.encode(), "policy.yaml", (chain_mistakes,))
    for event in proposal_events(policy, AuditActor("user", "olga", authenticated=True), "test", ""):
        log.append(event)
    omar = AuditActor("user", "omar", authenticated=True)
    log.append(activation_event(read_proposal(log, policy.digest), None, omar, "test", ""))


# --- models -----------------------------------------------------------------------------------------------------


def seed_models(
    world: World, server: MlflowServer, ago: Callable[[int], AbstractContextManager[Any]] = lambda _: nullcontext()
) -> None:
    """Register models in different states: one to roll back, one that waits, one that is rolled out, one not judged.

    :param world: the world; its model's name changes.
    :param server: the MLflow server, where a model that really loads is logged.
    :param ago: takes the clock back by so many days; by default all happens now.
    """
    logged = log_tree(server)
    world.dag_id = "nightly_retrain"
    for name in (FRAUD, CHURN, CLICKS, PRICES):
        world.model_name, world.experiment = name, name
        world.hook.create_registered_model(name)
        for tag, value in {contract.TAG_DAG_ID: "nightly_retrain", **_ABOUT[name]}.items():
            world.hook.set_registered_model_tag(name, tag, value)
        for _ in range(2):
            logged.register(world, **_VERSION, **load_check_tags("passed"))
    _judge(world, FRAUD, "2")
    with ago(20):
        for name in (FRAUD, CLICKS, CHURN):
            _promote(world, name, "1", "none", "first model")
    with ago(3):
        _promote(world, FRAUD, "2", "1", "the data drifted")
    begin_rollout(world, CLICKS)
    world.hook.set_model_version_tag(CHURN, "2", contract.TAG_PASSPORT, f"sha256:{uuid4().hex}{uuid4().hex}")


_ABOUT: Mapping[str, Mapping[str, str]] = {
    FRAUD: {"airflow_mcp.owner": "risk", "airflow_mcp.risk": "high"},
    CHURN: {"airflow_mcp.owner": "crm"},
    CLICKS: {"airflow_mcp.owner": "ads"},
    PRICES: {},
}
_VERSION = {
    contract.TAG_GATE_VERDICT: "passed",
    contract.TAG_DATA_VERSION: "night-5",
    contract.TAG_DATA_HASH: "sha256:" + "77801729" * 8,
    contract.TAG_CODE_COMMIT: "528a57a3" * 5,
}


def _promote(world: World, name: str, version: str, expected: str, reason: str) -> None:
    outcome = world.run(
        PromoteModelOperator,
        task_id="promote",
        model_name=name,
        version=version,
        expected_champion=expected,
        reason=reason,
        dag_run_id=f"{name}-{version}",
    )
    assert outcome.state == "success", outcome.error


def begin_rollout(world: World, name: str, weight: float = 10.0) -> None:
    """Begin a rollout of version 2 as its operator does, and write what it would write after its first step."""
    outcome = world.run(
        RolloutModelOperator,
        model_name=name,
        version="2",
        expected_champion="1",
        experiment_name=name,
        steps=[{"setWeight": 10}, {"analysis": "10m"}, {"setWeight": 50}, {"analysis": "1h"}],
        deferrable=True,
        dag_run_id="rollout",
    )
    assert outcome.state == "deferred", outcome.error
    found = RolloutDocument.model_validate_json(world.hook.get_model_version(name, "1").tags[TAG_ROLLOUT])
    begun = found.model_copy(update={"phase": "PROGRESSING", "weight": weight, "step": 1, "generation": 2})
    world.hook.set_model_version_tag(name, "1", TAG_ROLLOUT, begun.model_dump_json(by_alias=True))


def _judge(world: World, name: str, version: str) -> None:
    """Let the gate judge a version's run, so that it has a report."""
    run = world.hook.get_run(world.hook.get_model_version(name, version).run_id)
    champion = ModelUnderTest(model_uri="models:/m-0", run_id="champion", version="1")
    metrics = {"accuracy": 0.986, "roc_auc": 0.998, "latency_ms": 41.0}
    world.store_evidence(run, metrics, champion, {"accuracy": 0.975, "roc_auc": 0.941, "latency_ms": 44.0})
    rules: Any = ["accuracy >= 0.92", "roc_auc >= 0.95", "accuracy > champion"]
    outcome = world.run(
        EvaluationGateOperator,
        model_name=name,
        run_id=run.run_id,
        thresholds=rules,
        dag_run_id="gate",
    )
    assert outcome.state == "success", outcome.error
