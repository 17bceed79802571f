"""A real Airflow: started, asked over REST, stopped with everything it runs, started again."""

from __future__ import annotations

import functools
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.airflow_api import AirflowClient, AirflowClientError
from tests.support.airflow_stack import AirflowStack
from tests.support.processes import is_running
from tests.support.shared import shared
from tests.support.warm import WarmPopen
from tests.support.warm_airflow import PRELOADED

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 90
wait_until = functools.partial(processes.wait_until, seconds=DEADLINE_SECONDS)
DAGS = """
import sys
from pathlib import Path

from airflow.sdk import DAG, BaseOperator, get_current_context, task

from airflow_mcp.core.workload.definition import Workload
from airflow_mcp.workloads.local import LocalBackend


class RunWorkload(BaseOperator):
    def __init__(self, *, code, **kwargs):
        super().__init__(**kwargs)
        self.code = code
        self.backend = LocalBackend(log_limit_bytes=10_000, kill_grace_seconds=0.5)

    def execute(self, context):
        self.backend.run(Workload(name="long", command=("/bin/sh", "-c", self.code)), log=self.log)

    def on_kill(self):
        self.backend.cancel()


with DAG("one_task", schedule=None):

    @task
    def add():
        print("hello from the task")
        conf = get_current_context()["dag_run"].conf
        return {"sum": conf["a"] + conf["b"], "missing": None}

    add()

with DAG("workload", schedule=None):
    RunWorkload(task_id="run", code="echo from the workload; env | grep -c AIRFLOW")

with DAG("long_workload", schedule=None):
    RunWorkload(task_id="run", code="trap '' TERM; touch PIDS/$$; touch PIDS/$PPID; while :; do sleep 0.2; done")
"""


CONSTANTS = """
import importlib, json, sys

PLAIN = str, int, float, bool, type(None)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
found = {}
for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "airflow"]:
    classes = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    for place in (module, *classes):
        for name, value in getattr(place, "__dict__", {}).items():
            if isinstance(value, PLAIN) and not name.startswith("__"):
                found[f"{module.__name__} {getattr(place, '__qualname__', '')} {name}"] = repr(value)
print(json.dumps(found))
"""
"""Prints the plain constants of all modules and classes of Airflow, after the modules of its argument are imported."""
OF_EACH_PROCESS = (
    r"OVERRIDE_\w+_ID_KEY|SECRET_KEY|TEST_\w+_FOLDER|API_BASE_URL|_initialization_stack_trace|description|__\w+"
)
"""Constants that differ: random ones, traces, folders of Airflow's own tests, and what only the built routes have.

Of the base URL only the path is used, which has a constant of its own.
"""


@pytest.fixture(scope="module")
def pids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, pids: Path) -> Iterator[AirflowStack]:
    folder = tmp_path_factory.mktemp("stack")
    (folder / "dags").mkdir()
    (folder / "dags" / "dags.py").write_text(DAGS.replace("PIDS", str(pids)))
    with AirflowStack(folder / "home", folder / "dags", is_cold=True) as running:
        yield running


@pytest.fixture(scope="module")
def api(stack: AirflowStack) -> Iterator[AirflowClient]:
    with stack.api() as client:
        yield client


def start_long_workload(api: AirflowClient, pids: Path) -> tuple[str, list[int]]:
    for path in pids.iterdir():
        path.unlink()
    run_id = api.trigger("long_workload")
    assert wait_until(lambda: len(list(pids.iterdir())) == 2)  # the workload and its guard
    started = [int(path.name) for path in pids.iterdir()]
    assert all(is_running(pid) for pid in started)
    return run_id, started


def test_a_triggered_dag_runs_and_its_result_and_log_can_be_read(api: AirflowClient) -> None:
    api.wait_for_dag("one_task")
    seen: list[tuple[str, str]] = []
    run_id = api.trigger("one_task", {"a": 1, "b": 2}, dag_run_id="first~run:+1.a", note="by a test")
    assert run_id == "first~run:+1.a"
    assert api.wait_for_run("one_task", run_id, DEADLINE_SECONDS, lambda *pair: seen.append(pair)) == "success"
    assert seen[-1] == ("add", "success")
    assert api.task_states("one_task", run_id) == {"add": "success"}
    assert api.xcom("one_task", run_id, "add") == {"sum": 3, "missing": None}
    assert "INFO hello from the task" in api.task_log("one_task", run_id, "add")
    assert [(run["dag_run_id"], run["note"]) for run in api.list_runs("one_task")] == [(run_id, "by a test")]


def test_a_failing_task_fails_the_run_and_its_log_names_the_error(api: AirflowClient) -> None:
    run_id = api.trigger("one_task", {"a": 1})
    assert api.wait_for_run("one_task", run_id, DEADLINE_SECONDS) == "failed"
    assert "KeyError" in api.task_log("one_task", run_id, "add")


def test_a_workload_runs_in_a_task_and_sees_nothing_of_airflow(api: AirflowClient) -> None:
    api.wait_for_dag("workload")
    run_id = api.trigger("workload")
    assert api.wait_for_run("workload", run_id, DEADLINE_SECONDS) == "failed"  # grep -c found 0 lines: exit code 1
    log = api.task_log("workload", run_id, "run")
    assert "INFO from the workload" in log
    assert "ended with exit code 1" in log


def test_marking_a_task_as_failed_stops_its_workload(api: AirflowClient, pids: Path) -> None:
    run_id, started = start_long_workload(api, pids)
    api.set_task_state("long_workload", run_id, "run", "failed")
    assert wait_until(lambda: not any(is_running(pid) for pid in started))
    assert api.wait_for_run("long_workload", run_id, DEADLINE_SECONDS) == "failed"


def test_an_import_error_is_raised_with_its_text(stack: AirflowStack, api: AirflowClient) -> None:
    broken = stack.dags_folder / "broken.py"
    broken.write_text("from airflow.sdk import DAG\nraise RuntimeError('this Dag is broken on purpose')\n")
    try:
        with pytest.raises(RuntimeError, match="this Dag is broken on purpose"):
            api.wait_for_dag("broken", DEADLINE_SECONDS)
    finally:
        broken.unlink()


def test_what_the_server_refuses_is_raised_with_its_answer(stack: AirflowStack, api: AirflowClient) -> None:
    with pytest.raises(AirflowClientError, match="no_such_dag") as caught:
        api.trigger("no_such_dag")
    assert caught.value.status == 404
    with pytest.raises(AirflowClientError) as caught:
        AirflowClient(stack.url, "admin", "wrong")
    assert caught.value.status == 401


def test_secrets_are_in_private_files_only(stack: AirflowStack) -> None:
    for name in ("airflow.cfg", "simple_auth_manager_passwords.json"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    logs = [path for path in (stack.home / "logs").rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if stack.password in path.read_text(errors="replace")]


def test_every_service_listens_on_loopback_only(stack: AirflowStack) -> None:
    inodes = {
        link.readlink().name.removeprefix("socket:[").rstrip("]")
        for pid in stack.processes()
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink() and str(link.readlink()).startswith("socket:[")
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                listening.append(local)
    assert listening == [f"0100007F:{stack.port:04X}"]


@pytest.mark.parametrize(
    ("parallelism", "modules"), [("4", PRELOADED), ("7", ("airflow.executors.base_executor",))], ids=["forked", "cold"]
)
def test_an_airflow_of_the_fork_server_has_the_constants_of_one_that_started_cold(
    tmp_path: Path, parallelism: str, modules: tuple[str, ...]
) -> None:
    """With 4 it is forked; 7 differs from what a module read at its import, so it starts cold."""
    stack = AirflowStack(tmp_path / "home", tmp_path / "dags", env={"AIRFLOW__CORE__PARALLELISM": parallelism})
    stack.prepare()
    command = [sys.executable, "-P", "-c", CONSTANTS, json.dumps(modules)]
    forked = functools.partial(WarmPopen, address=str(shared("warm-airflow")["address"]))
    texts = []
    for popen in (subprocess.Popen, forked):
        with popen(command, env=stack.environment(), cwd=tmp_path, stdout=subprocess.PIPE) as process:
            texts.append(process.stdout.read().splitlines()[-1])
        assert process.returncode == 0
    cold, warm = (json.loads(text) for text in texts)
    assert cold["airflow.executors.base_executor  PARALLELISM"] == parallelism
    assert {
        name for name in cold if cold[name] != warm[name] and not re.fullmatch(OF_EACH_PROCESS, name.split()[-1])
    } == set()


def test_after_stop_nothing_runs_and_the_same_home_starts_again(
    stack: AirflowStack, api: AirflowClient, pids: Path
) -> None:
    """The last test of this module: it stops the stack."""
    _, workload = start_long_workload(api, pids)
    services = stack.processes()
    assert len(services) >= 4
    stack.stop()
    assert stack.processes() == []
    assert not any(is_running(pid) for pid in services)
    assert wait_until(lambda: not any(is_running(pid) for pid in workload))
    with AirflowStack(stack.home, stack.dags_folder) as again, again.api() as client:
        assert again.password == stack.password
        assert {run["dag_run_id"] for run in client.list_runs("one_task")} >= {"first~run:+1.a"}
        run_id = client.trigger("one_task", {"a": 2, "b": 2})
        assert client.wait_for_run("one_task", run_id, DEADLINE_SECONDS) == "success"
    assert again.processes() == []
