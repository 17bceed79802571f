"""Who may move a model, said by a real Airflow: each action is refused once on each way in, and permitted once.

One Airflow with its simple auth manager, environment prod, both databases in PostgreSQL. The tasks are the same for
every way; what differs is who or what began the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from tests.support.airflow_stack import ADMIN, AirflowStack
from tests.support.audit_log import postgresql_logs
from tests.support.governed import Governed
from tests.support.mlflow_world import World
from tests.support.postgresql import new_database
from tests.support.processes import wait_until
from tests.support.services import LOOPBACK, MlflowServer

pytestmark = pytest.mark.integration

ACTS = ("promote", "stage", "copy", "rollout", "retrain")
PEOPLE = ("ada", "dora")
SECONDS = 180
DAGS = '''
"""Every action of the door to the registry, side by side; begun by people, by time, and by an asset."""
from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset

from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.operators.retrain import RetrainTriggerOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.operators.stages import TransitionModelStageOperator

version = {"model_name": "MODEL", "version": "2"}
for dag_id, schedule in (("by_people", None), ("by_time", "@once"), ("by_asset", [Asset("trained")])):
    # A refusal is final. The retries are for what a busy machine does to the first tasks of a new Airflow.
    patience = {"retries": 3, "retry_delay": timedelta(seconds=2)}
    with DAG(dag_id, schedule=schedule, start_date=datetime(2026, 1, 1), catchup=False, default_args=patience):
        PromoteModelOperator(task_id="promote", expected_champion="1", **version)
        TransitionModelStageOperator(task_id="stage", stage="Staging", **version)
        CopyModelVersionOperator(
            task_id="copy", target_model_name="MODEL-copy", experiment_name="copies", runtime="local", **version
        )
        RolloutModelOperator(task_id="rollout", expected_champion="1", experiment_name="rollouts", **version)
        RetrainTriggerOperator(
            task_id="retrain",
            model_name="MODEL",
            trigger_dag_id="by_asset",
            experiment_name="trainings",
            dataset={"uri": "/data/train.csv", "version": "v1", "hash": "sha256:1"},
        )
'''


class Way:
    """The governed registry and its Airflow.

    :param governed: the registry, the log and the policy.
    :param stack: Airflow.
    """

    def __init__(self, governed: Governed, stack: AirflowStack) -> None:
        self.governed, self.stack = governed, stack

    def ended(self, dag_id: str, run_id: str) -> None:
        """Wait until every task of a run was refused or done."""
        with closing(self.stack.api()) as client:
            client.wait_for_run(dag_id, run_id, SECONDS)

    def run_of(self, dag_id: str) -> str:
        """Wait for the run that nobody triggered."""
        with closing(self.stack.api()) as client:
            assert wait_until(lambda: bool(client.list_runs(dag_id)), seconds=SECONDS)
            return str(client.list_runs(dag_id)[0]["dag_run_id"])

    def refused(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the reasons by act, of one run."""
        found = {}
        for record in self.governed.records():
            task = record.event["task"]
            if record.event["action"].endswith(".refused") and task and task["dag_run_id"] == run_id:
                assert task["dag_id"] == dag_id
                found[record.event["new"]["act"]] = " ".join(record.event["new"]["reasons"])
        return found

    def command(self, account: str, *arguments: str) -> int:
        """Run ``airflow-mcp`` as somebody whom Airflow knows by a token; nobody for an empty account."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW_MCP_AUDIT_LOG", self.governed.logs.url("mcp_release"))
            patch.setenv("AIRFLOW_MCP_ENVIRONMENT", "prod")
            patch.setenv("MLFLOW_TRACKING_URI", self.governed.world.url)
            if account:
                with closing(self.stack.api(account)) as client:
                    patch.setenv("AIRFLOW_MCP_AIRFLOW_URL", self.stack.url)
                    patch.setenv("AIRFLOW_MCP_AIRFLOW_TOKEN", client.token)
                    return main(list(arguments))
            return main(list(arguments))


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer, postgresql: str) -> Iterator[Way]:
    folder = tmp_path_factory.mktemp("access")
    (folder / "dags").mkdir()
    with (
        postgresql_logs(postgresql) as logs,
        new_database(postgresql) as database,
        pytest.MonkeyPatch.context() as patch,
    ):
        connection = {"conn_type": "mlflow", "host": mlflow_server.url}
        patch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps(connection))
        world = World(mlflow_server.url, folder)
        governed = Governed(world, logs, "prod")
        governed.activate()
        governed.version(has_passport=False)
        world.hook.set_alias(world.model_name, contract.ALIAS_CHAMPION, "1")
        governed.version()
        (folder / "dags" / "moves.py").write_text(DAGS.replace("MODEL", world.model_name))
        release = logs.as_login("mcp_release")
        log = {"host": release.host, "port": release.port, "schema": release.database, "login": release.login}
        env = {
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_MODEL_SERVER_DEFAULT": json.dumps({"conn_type": "model_server", "host": LOOPBACK}),
            "AIRFLOW_CONN_AUDIT_LOG_DEFAULT": json.dumps({"conn_type": "audit_log", **log}),
            "AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID": "audit_log_default",
            "AIRFLOW__AIRFLOW_MCP__AIRFLOW_API_CONN_ID": "airflow_api_default",
            "AIRFLOW__AIRFLOW_MCP__ENVIRONMENT": "prod",
        }
        accounts = dict.fromkeys(PEOPLE, "user")
        stack = AirflowStack(folder / "home", folder / "dags", accounts=accounts, env=env, database=database)
        with stack, closing(stack.api()) as client:
            account = {"login": ADMIN, "password": stack.password}
            client.add_connection("airflow_api_default", "airflow_api", host=stack.url, **account)
            client.wait_for_dag("by_asset")
            yield Way(governed, stack)
        world.hook.close()


def test_every_action_is_refused_on_every_way_in(way: Way) -> None:
    before = way.governed.registry()
    runs: dict[str, tuple[str, str, str]] = {}
    with closing(way.stack.api("dora")) as dora, closing(way.stack.api()) as admin:
        runs["API"] = ("by_people", dora.trigger("by_people"), "'dora' has no role that grants model:")
        runs["UI"] = ("by_people", dora.trigger("by_people", referer=way.stack.url), "'dora' has no role that grants")
        admin.create_asset_event("trained")
        runs["schedule"] = ("by_time", way.run_of("by_time"), "'by_time' has no role that grants model:")
        runs["asset"] = ("by_asset", way.run_of("by_asset"), "'by_asset' has no role that grants model:")
    runs["command line"] = ("by_people", airflow_command(way.stack, "ada"), "command line, which takes any name")
    for dag_id, run_id, _ in runs.values():
        way.ended(dag_id, run_id)
    for name, (dag_id, run_id, reason) in runs.items():
        found = way.refused(dag_id, run_id)
        assert sorted(found) == sorted(ACTS), name
        assert all(reason in said for said in found.values()), (name, found)
    with closing(way.stack.api()) as admin:
        ways = {run["dag_run_id"]: run["triggered_by"] for dag in DAG_IDS for run in admin.list_runs(dag)}
    assert [ways[runs[name][1]] for name in ("API", "UI", "schedule", "asset", "command line")] == [
        *("rest_api", "ui", "timetable", "asset", "cli")
    ]
    after = way.governed.registry()
    assert after == before


DAG_IDS = ("by_people", "by_time", "by_asset")


def airflow_command(stack: AirflowStack, name: str) -> str:
    """Trigger a run with ``airflow dags trigger`` under any name, and return its id."""
    run_id = f"as-{name}"
    command = [sys.executable, "-m", "airflow", "dags", "trigger", "by_people", "--run-id", run_id]
    env = {**stack.environment(), "LOGNAME": name}
    done = subprocess.run(
        command, env=env, cwd=stack.home, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return run_id


def test_a_run_that_the_policy_permits_is_refused_for_whoever_clears_its_tasks(way: Way) -> None:
    """Begun by time, each action for itself; dora made them run again, and she is permitted none of them."""
    run_id, before = way.run_of("by_time"), way.governed.registry()
    bound = [
        {"role": "operator", "people": ["ada"], "pipelines": ["by_time"]},
        {"role": "deployer", "people": ["dora"]},
    ]
    way.governed.activate(bindings=bound)
    with closing(way.stack.api("dora")) as dora:
        for task_id in ACTS:
            dora.clear_task("by_time", run_id, task_id)
    way.ended("by_time", run_id)
    way.governed.activate()
    found = way.refused("by_time", run_id)
    name = way.governed.world.model_name
    for act in ACTS:
        model = f"{name}-copy" if act == "copy" else name
        assert f"'dora' has no role that grants model:{model}/{act}" in found[act]
        assert "'by_time'" not in found[act]
    assert way.governed.registry() == before


def test_whoever_clears_a_task_needs_the_permission_too(way: Way) -> None:
    with closing(way.stack.api("ada")) as ada, closing(way.stack.api("dora")) as dora:
        run_id = ada.trigger("by_people")
        way.ended("by_people", run_id)
        states = ada.task_states("by_people", run_id)
        assert (states["stage"], states["rollout"]) == ("success", "failed")  # nothing signs a clearance here
        assert "'ada'" not in way.refused("by_people", run_id)["rollout"]
        dora.clear_task("by_people", run_id, "rollout")
        way.ended("by_people", run_id)
    reasons = [record.event["new"]["reasons"] for record in way.governed.records("promotion.refused")]
    assert any(
        "'dora' has no role that grants" in " ".join(each) and "signs clearances" in " ".join(each) for each in reasons
    )


def test_the_commands_ask_airflow_who_calls(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    name = way.governed.world.model_name
    archive = ("registry", "set-stage", name, "2", "Archived", "--reason", "tests")
    assert way.command("", *archive) != 0
    assert "anybody can be" in capsys.readouterr().err
    assert way.command("dora", *archive) != 0
    assert f"'dora' has no role that grants model:{name}/stage" in capsys.readouterr().err
    assert way.command("ada", *archive) == 0
    (moved,) = [
        one for one in way.governed.records("registry.stage_moved") if one.event["new"]["stages"].get("Archived")
    ]
    assert (moved.event["actor"]["name"], moved.event["actor"]["authenticated"]) == ("ada", True)
    promote = ("registry", "set-stage", name, "2", "Production", "--expected-champion", "1", "--archive-existing")
    assert way.command("ada", *promote) != 0
    assert "signs clearances" in capsys.readouterr().err
    assert way.command("dora", "rollback", name, "--reason", "x", "--yes", "--to-version", "2", "--no-load-check") != 0
    assert f"'dora' has no role that grants model:{name}/rollback" in capsys.readouterr().err
    assert way.governed.world.aliases["champion"] == "1"
