"""The nightly example on CeleryExecutor, while a scheduler, a triggerer and a worker are killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.mlflow_client import registry_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from demo.data import write_version
from tests.executors.celery_stack import XCOM_BUCKET, CeleryStack, missing
from tests.support.airflow_api import AirflowClient, AirflowClientError
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

_DAG_SECONDS = 900
WAITING = """
from airflow.sdk import DAG

from airflow_mcp.sensors.registry import ModelAliasSensor

with DAG("waiting", schedule=None):
    for number in range(3):
        ModelAliasSensor(task_id=f"wait_{number}", model_name="breast_cancer", alias="champion", deferrable=True)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryStack]:
    folder = tmp_path_factory.mktemp("celery")
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags" / "nightly_retrain.py", dags)
    shutil.copytree(ROOT / "dags" / "breast_cancer", dags / "breast_cancer")
    (dags / "waiting.py").write_text(WAITING)
    write_version(folder / "data", "night-1")
    with CeleryStack(folder, dags, {"AIRFLOW_VAR_BREAST_CANCER_DATA": str(folder / "data")}) as running:
        yield running


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DAG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)


def _tries(api: AirflowClient, run_id: str, task_id: str) -> Iterator[str]:
    """Yield the logs of the tries of a task; a try whose worker was killed before it began has none."""
    for number in (1, 2, 3):
        with contextlib.suppress(AirflowClientError):
            yield api.task_log("nightly_retrain", run_id, task_id, number)


def test_a_night_runs_on_celery_while_one_of_each_is_killed(stack: CeleryStack) -> None:
    with stack.airflow.api() as api:
        for dag_id in ("nightly_retrain", "waiting"):
            api.wait_for_dag(dag_id, timeout=300)
        assert api.import_errors() == {}
        waiting = api.trigger("waiting")
        _wait_for(lambda: set(api.task_states("waiting", waiting).values()) == {"deferred"})
        night = api.trigger("nightly_retrain")
        _wait_for(lambda: api.task_states("nightly_retrain", night).get("train") == "running")
        stack.airflow.component("scheduler").kill()
        stack.airflow.component("triggerer").kill()
        stack.further["worker-1"].kill()
        state = api.wait_for_run("nightly_retrain", night, timeout=_DAG_SECONDS)
        assert state == "success", api.task_states("nightly_retrain", night)
        assert api.wait_for_run("waiting", waiting, timeout=_DAG_SECONDS) == "success"
        log = "".join(_tries(api, night, "promote"))
        place = api.xcom("nightly_retrain", night, "promote")
    driver = SyncDriver(MlflowSettings("tests", stack.mlflow.url, stack.mlflow.url))
    try:
        assert driver.perform(registry_api.get_registered_model("breast_cancer")).aliases[ALIAS_CHAMPION] == "1"
    finally:
        driver.close()
    assert "champion" in log
    root, found, key = place.partition("xcom/nightly_retrain/")
    assert root == f"s3://store@{XCOM_BUCKET}/"
    assert json.loads(stack.s3.read(XCOM_BUCKET, found + key))["moved"] is True
