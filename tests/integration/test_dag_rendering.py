"""Pipeline files under a real Dag processor: stubs and the three-line file, broken files, edits, versions."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import write_stubs
from tests.support.airflow_api import AirflowClient, AirflowClientError
from tests.support.airflow_stack import AirflowStack

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 240
STALE_SECONDS = 12
SETTINGS = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": str(STALE_SECONDS),
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
}
PIPELINE = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata:
  name: {name}
spec:
  sourceCode: code
  trainingScript: train.py
  stages:
    - name: gate
      thresholds: [accuracy >= 0.9]
"""
THREE_LINES = """\
from airflow_mcp.dag_rendering import load_model_pipelines

load_model_pipelines("{folder}")
"""


class Deployment:
    """A folder of Dags: ``listed_*`` come from one three-line file, ``stubbed_*`` from a stub each."""

    names = ("listed_a", "listed_b", "stubbed_a", "stubbed_b")

    def __init__(self, dags: Path) -> None:
        self.dags = dags
        for name in self.names:
            code = self.file(name).parent / "code"
            code.mkdir(parents=True, exist_ok=True)
            (code / "train.py").write_text("")
            self.mend(name)
        (dags / "listed.py").write_text(THREE_LINES.format(folder="listed"))
        write_stubs(load_pipeline_folder(dags / "stubbed"), dags / "stubbed", dags)

    def file(self, name: str) -> Path:
        """Give the YAML file of a pipeline."""
        return self.dags / name.partition("_")[0] / f"{name}.yaml"

    def mend(self, name: str, more: str = "") -> None:
        """Write a good file."""
        self.file(name).write_text(PIPELINE.format(name=name) + more)

    def spoil(self, name: str) -> None:
        """Write a file with a mistake in line 7."""
        self.file(name).write_text(PIPELINE.format(name=name).replace("trainingScript", "trainingScrpt"))

    def python(self) -> dict[str, int]:
        """Give the time of change of each Python file."""
        return {path.name: path.stat().st_mtime_ns for path in self.dags.glob("*.py")}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("rendering") / "dags"
    yield Deployment(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def api(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowClient]:
    home = tmp_path_factory.mktemp("stack")
    with AirflowStack(home, deployment.dags, env=SETTINGS) as stack, stack.api() as client:
        yield client


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds, asking the API once a second; an answer that comes too late is no answer."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TimeoutException):
            if condition():
                return True
        time.sleep(1)
    return False


def versions(api: AirflowClient, names: tuple[str, ...] = Deployment.names) -> dict[str, int]:
    return {name: api.dag_versions(name) for name in names}


def is_there(api: AirflowClient, name: str) -> bool:
    try:
        return not api.dag(name)["is_stale"]
    except AirflowClientError as error:
        if error.status == 404:
            return False
        raise


def wait_for_parses(api: AirflowClient, name: str, seconds: float) -> None:
    """Wait until a Dag has been parsed again, so many seconds of Airflow's own time later."""
    before = api.dag(name)["last_parsed_time"]
    first = _seconds(before)
    assert wait_until(lambda: _seconds(api.dag(name)["last_parsed_time"]) > first + seconds)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_every_good_pipeline_becomes_a_dag_by_either_way(api: AirflowClient, deployment: Deployment) -> None:
    assert wait_until(lambda: all(is_there(api, name) for name in deployment.names))
    assert api.import_errors() == {}
    assert versions(api) == dict.fromkeys(deployment.names, 1)
    assert PIPELINE.format(name="listed_a") in api.dag("listed_a")["doc_md"]


def test_broken_files_are_import_errors_with_their_place_and_the_others_stay_as_they_are(
    api: AirflowClient, deployment: Deployment
) -> None:
    for name in ("listed_b", "stubbed_b"):
        deployment.spoil(name)
    broken = {"listed/listed_b.yaml": "listed_b", "mcp_stubbed_b.py": "stubbed_b"}
    assert wait_until(lambda: broken.keys() <= api.import_errors().keys())
    errors = api.import_errors()
    assert errors.keys() == broken.keys()
    for file, name in broken.items():
        assert (
            f"{name}.yaml:7:3: spec.trainingScrpt: is not a known name. Did you mean 'trainingScript'?" in errors[file]
        )
    wait_for_parses(api, "listed_a", 2 * STALE_SECONDS)
    for name in ("listed_a", "stubbed_a"):
        assert is_there(api, name)
        assert api.dag(name)["has_import_errors"] is False
    assert versions(api) == dict.fromkeys(deployment.names, 1)
    assert wait_until(lambda: not is_there(api, "listed_b") and not is_there(api, "stubbed_b"))


def test_a_run_goes_on_while_another_file_is_broken(api: AirflowClient) -> None:
    for name in ("listed_a", "stubbed_a"):
        run_id = api.trigger(name)
        assert wait_until(lambda name=name, run_id=run_id: api.task_states(name, run_id).get("begin") == "success")
        assert api.xcom(name, run_id, "begin")["start_at"] == "train"


def test_mended_files_come_back_and_only_what_was_edited_changes(api: AirflowClient, deployment: Deployment) -> None:
    python = deployment.python()
    edit = "  env: {A: b}\n"
    for name in ("listed_b", "stubbed_b"):
        deployment.mend(name, edit)
    assert wait_until(lambda: all(is_there(api, name) for name in deployment.names))
    for name in deployment.names:
        assert wait_until(lambda name=name: (edit in api.dag(name)["doc_md"]) is name.endswith("_b")), name
    assert wait_until(lambda: api.import_errors() == {})
    wait_for_parses(api, "listed_a", 2 * STALE_SECONDS)
    # Both have run: any change would have made a second version.
    assert versions(api, ("listed_a", "stubbed_a")) == {"listed_a": 1, "stubbed_a": 1}
    assert deployment.python() == python
