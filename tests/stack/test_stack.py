"""The stack of docker-compose.yaml as a person meets it: start, look, press a Dag, restart, remove.

The tests share one stack and run in the order of this file.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sklearn.datasets import load_breast_cancer

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.mlflow_client import registry_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from tests.stack.compose import ComposeStack
from tests.support.airflow_api import FINAL_STATES, AirflowClient, AirflowClientError

MODEL, RETRAIN = "breast_cancer", "nightly_retrain"
LONG_LIVED = {
    "postgres",
    "mlflow",
    "model-server",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
}
_DAG_SECONDS = 900


@pytest.fixture
def api(stack: ComposeStack) -> Iterator[AirflowClient]:
    with stack.api() as api:
        yield api


@pytest.fixture
def registry(stack: ComposeStack) -> Iterator[SyncDriver]:
    driver = SyncDriver(MlflowSettings("stack", stack.mlflow_url, stack.mlflow_url))
    yield driver
    driver.close()


def test_every_service_runs_and_those_that_run_once_have_ended_well(stack: ComposeStack) -> None:
    states = stack.states()
    assert {name for name, state in states.items() if state == "healthy"} == LONG_LIVED
    assert {name for name, state in states.items() if state == "exited 0"} == {
        "secrets",
        "example-data",
        "airflow-migrate",
        "mlflow-migrate",
    }


@pytest.mark.parametrize("service", sorted(LONG_LIVED))
def test_a_service_has_no_rights_beyond_its_own_files(stack: ComposeStack, service: str) -> None:
    status = dict(
        line.split(":\t", 1) for line in stack.execute(service, "cat", "/proc/1/status").splitlines() if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert stack.execute(service, "sh", "-c", "touch /written 2>&1 || true").count("Read-only file system") == 1


def test_ports_are_open_on_loopback_only(stack: ComposeStack) -> None:
    published = {
        (stack.service_of(container), binding["HostIp"])
        for container in stack.containers()
        for bindings in (container["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    }
    assert published == {(name, "127.0.0.1") for name in ("airflow-api-server", "mlflow", "model-server")}


def test_no_secret_is_in_a_command_line_an_environment_or_a_log(stack: ComposeStack) -> None:
    secrets = _tokens(stack)
    assert len(secrets) > 8
    everything = str(stack.containers()) + stack.compose("logs", "--no-color") + stack.compose("config")
    for service in LONG_LIVED:
        everything += stack.execute(service, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '")
    assert "airflow@postgres/airflow" in everything
    assert [name for name, token in secrets.items() if token in everything] == []


def test_a_service_reads_its_own_secrets_only(stack: ComposeStack) -> None:
    readable = {
        service: set(stack.execute(service, "sh", "-c", "ls -d /secrets/*/* 2>/dev/null | cut -d/ -f3").split())
        for service in LONG_LIVED
    }
    assert readable.pop("model-server") == set()
    assert readable.pop("postgres") == {"postgres"}
    assert readable.pop("mlflow") == {"mlflow"}
    assert {frozenset(folders) for folders in readable.values()} == {frozenset({"airflow"})}


def test_strangers_get_nothing(stack: ComposeStack) -> None:
    assert httpx.get(f"{stack.airflow_url}/api/v2/dags", trust_env=False).status_code == 401
    with pytest.raises(AirflowClientError) as refused:
        AirflowClient(stack.airflow_url, "admin", "admin")
    assert refused.value.status == 401
    address = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search"
    assert httpx.get(address, headers={"Host": "evil.example"}, trust_env=False).status_code == 403


def test_every_example_is_there(api: AirflowClient) -> None:
    for dag_id in (RETRAIN, "drift_watch", "breast_cancer_pipeline", "rollback_model"):
        api.wait_for_dag(dag_id)
    assert api.import_errors() == {}


def test_a_model_is_promoted_once_although_every_service_restarts_and_is_killed(
    stack: ComposeStack, api: AirflowClient, registry: SyncDriver
) -> None:
    api.trigger(RETRAIN, {"reason": "the stack's test"})
    api.unpause(RETRAIN)
    _wait_for_task(api, "train", "running")
    for service in sorted(LONG_LIVED):
        stack.compose("restart", service)
    stack.wait_until_healthy()
    _wait_for_task(api, "train", "success")
    stack.compose("kill", *sorted(LONG_LIVED))
    stack.up()
    runs = _wait_for_runs(api)

    assert {state for state, _ in runs} == {"success"}, runs
    assert _champion(registry) == "1"
    found = registry.perform(registry_api.search_model_versions(f"name = '{MODEL}'"))
    assert [version.version for version in found] == ["1"]
    assert _served_version(stack) == "1"


def test_a_backup_brings_everything_back_after_nothing_was_left(
    stack: ComposeStack, registry: SyncDriver, tmp_path: Path
) -> None:
    before = stack.secret_values(), stack.passwords()
    stack.backup("save", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077] == []
    assert stack.leftovers() != []
    stack.remove()
    assert stack.leftovers() == []

    stack.backup("restore", tmp_path)
    stack.wait_until_healthy()
    assert (stack.secret_values(), stack.passwords()) == before
    assert _champion(registry) == "1"
    assert stack.load_champion(MODEL) == "LogisticRegression"
    with stack.api() as api:
        (first, *_) = api.list_runs(RETRAIN)
        assert first["state"] == "success"
        assert "night-1" in api.task_log(RETRAIN, first["dag_run_id"], "pin_data")


def test_a_backup_is_not_restored_over_what_exists(stack: ComposeStack, tmp_path: Path) -> None:
    for name in ("airflow.dump", "mlflow.dump", "secrets.tar.gz", "airflow-login.tar.gz"):
        (tmp_path / name).write_text("not looked at")
    before = stack.secret_values()
    with pytest.raises(AssertionError, match="nothing was restored"):
        stack.backup("restore", tmp_path)
    assert stack.secret_values() == before


def _tokens(stack: ComposeStack) -> dict[str, str]:
    """Return every secret value by the name of its file: the longest word of each."""
    files = {name: base64.b64decode(text).decode() for name, text in stack.secret_values().items()}
    words = {name: text.replace(":", " ").replace('"', " ").split() for name, text in files.items()}
    return {name: max(found, key=len) for name, found in words.items()} | stack.passwords()


def _wait_for_task(api: AirflowClient, task_id: str, state: str) -> None:
    """Wait until a task of any run has a state: unpausing also starts the run of last night, before ours."""
    _wait_for(lambda: state in [tasks.get(task_id) for _, tasks in _runs(api)], f"{task_id} {state}")


def _wait_for_runs(api: AirflowClient) -> list[tuple[str, dict[str, str | None]]]:
    _wait_for(lambda: all(state in FINAL_STATES for state, _ in _runs(api)), "the end of every run")
    return _runs(api)


def _runs(api: AirflowClient) -> list[tuple[str, dict[str, str | None]]]:
    """Return the state of each run, with those of its tasks."""
    return [(run["state"], api.task_states(RETRAIN, run["dag_run_id"])) for run in api.list_runs(RETRAIN)]


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; an API server that is restarting or busy is asked again."""
    deadline = time.monotonic() + _DAG_SECONDS
    while True:
        with suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < deadline, f"{what} did not come in {_DAG_SECONDS} s"
        time.sleep(1)


def _champion(registry: SyncDriver) -> str:
    aliases = registry.perform(registry_api.get_registered_model(MODEL)).aliases
    return str(aliases.get(ALIAS_CHAMPION))


def _served_version(stack: ComposeStack) -> str:
    """Ask the model server for a prediction, and return the version that answers it; it may still be loading."""
    row = dict.fromkeys(load_breast_cancer().feature_names, 1.0)
    deadline = time.monotonic() + 120
    while True:
        answer = httpx.post(f"{stack.serving_url}/invocations", json={"dataframe_records": [row]}, trust_env=False)
        if answer.status_code == 200 or time.monotonic() > deadline:
            return str(answer.raise_for_status().json()["model"]["version"])
        time.sleep(1)
