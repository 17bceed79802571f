"""1,000 ModelPipelines in one Airflow with PostgreSQL: what Dag processor, scheduler and API server need for them."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import write_stubs
from tests.benchmarks.fresh import print_table
from tests.benchmarks.rendering import PIPELINE
from tests.benchmarks.test_waiting_seats import service_cpu
from tests.support.airflow_stack import AirflowStack
from tests.support.postgresql import PostgresServer, new_database, programs
from tests.support.processes import wait_until
from tests.support.services import MlflowServer
from tests.support.statsd import Wire, open_wire

pytestmark = [pytest.mark.benchmark, pytest.mark.integration]

COUNTS = tuple(int(count) for count in os.environ.get("AIRFLOW_MCP_TEST_PIPELINES", "100,1000").split(","))
"""Numbers of pipelines; the variable takes others for a quick try."""
PER_GROUP = 50
FEW = 100
"""Most pipelines whose stubs each import this package: that takes a second of CPU for every file."""
RUNS = int(os.environ.get("AIRFLOW_MCP_TEST_RUNS", "30"))
"""Runs that the scheduler starts in the same minute."""
SECONDS = int(os.environ.get("AIRFLOW_MCP_TEST_SECONDS", "60"))
SERVICES = ("scheduler", "dag-processor", "triggerer", "api-server")
_LOOP = re.compile(r"scheduler\.scheduler_loop_duration[^:]*:([\d.]+)\|ms")
WAITING = """
from airflow.sdk import DAG

from airflow_mcp.sensors.registry import ModelVersionSensor

for number in range({runs}):
    with DAG(f"waiting-{{number}}", schedule="{minute} {hour} * * *", catchup=False):
        ModelVersionSensor(task_id="wait", model_name=f"model-{{number}}", deferrable=True)
"""


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    with PostgresServer(tmp_path_factory.mktemp("postgresql"), where) as server:
        yield server


@pytest.fixture
def database(postgresql: PostgresServer) -> Iterator[str]:
    with new_database(postgresql.uri) as uri:
        yield uri


def deploy(dags: Path, count: int, groups: int) -> None:
    """Write so many pipelines, each of which Airflow starts at two o'clock at night, and their stubs."""
    (dags / "pipelines").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (dags / f"pipelines/p{number}.yaml").write_text(PIPELINE.format(number=number))
    write_stubs(load_pipeline_folder(dags / "pipelines"), dags / "pipelines", dags, groups)


def answers(database: str, query: str) -> tuple[Any, ...]:
    """Return the first row of a query."""
    with closing(psycopg2.connect(database.replace("+psycopg2", ""))) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return tuple(cursor.fetchone() or ())


# --- the Dag processor -------------------------------------------------------------------------------------------


class PlainStack(AirflowStack):
    """Airflow as it is installed, whose Dag processor has nothing of ours loaded."""

    def _preload(self) -> None:
        pass


class Pass:
    """One pass of Airflow's Dag processor over all files."""

    def __init__(self, stack: AirflowStack, cache: Path) -> None:
        env = {**stack.environment(), "PYTHONPYCACHEPREFIX": str(cache)}
        del env["PYTHONDONTWRITEBYTECODE"]  # byte code is compiled, as in an installed package
        log_path = stack.home / "logs" / "pass.log"
        with log_path.open("wb") as log:
            command = [sys.executable, "-m", "airflow", "dag-processor", "--num-runs", "1"]
            process = subprocess.Popen(command, env=env, cwd=stack.home, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, log_path.read_text()[-3000:]
        self.cpu, self.mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@pytest.mark.parametrize("count", COUNTS)
def test_a_pass_of_the_dag_processor(postgresql: PostgresServer, tmp_path: Path, count: int) -> None:
    rows, groups = [], max(count // PER_GROUP, 1)
    ways = [
        ("no file", 0, AirflowStack),
        ("a stub each, imported once", 0, AirflowStack),
        (f"groups of {PER_GROUP}, imported once", groups, AirflowStack),
    ]
    if count <= FEW:
        ways += [("a stub each", 0, PlainStack), (f"groups of {PER_GROUP}", groups, PlainStack)]
    for name, number_of_files, kind in ways:
        with new_database(postgresql.uri) as uri:
            dags = tmp_path / name / "dags"
            deploy(dags, 0 if name == "no file" else count, number_of_files)
            stack = kind(tmp_path / name / "airflow", dags, database=uri)
            stack.migrate()
            Pass(stack, tmp_path / "cache") if not rows else None  # compiles the byte code
            passes = [Pass(stack, tmp_path / "cache") for _ in range(2)]
            found, size = answers(uri, "SELECT count(*), coalesce(avg(length(data::text)), 0) FROM serialized_dag")
            assert found == (0 if name == "no file" else count)
            cells = [f"{each.cpu:.1f}" for each in passes]
            rows.append([name, *cells, f"{max(each.mib for each in passes):.0f}", f"{size / 1024:.1f}"])
    head = ["", "CPU s of the first pass", "CPU s of the next", "MiB of the largest process", "KiB of a serialized Dag"]
    print_table(f"{count} pipelines in the Dag processor, a new process each time", head, rows)


# --- the scheduler -----------------------------------------------------------------------------------------------


def test_scheduler_with_idle_and_with_running_pipelines(
    database: str, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    dags, rows = tmp_path / "dags", []
    dags.mkdir()
    with open_wire() as wire:
        env = {
            **wire.variables(),
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        }
        with AirflowStack(tmp_path / "airflow", dags, env=env, database=database) as stack:
            for count in (0, *COUNTS):
                deploy(dags, count, max(count // PER_GROUP, 1))
                parsed = f"SELECT count(*) = {count} FROM serialized_dag"
                assert wait_until(lambda query=parsed: answers(database, query)[0], seconds=1800, every=2)
                rows.append([f"{count} idle", *measured(stack, wire, database)])
            at = datetime.now(UTC) + timedelta(minutes=2)
            (dags / "waiting.py").write_text(WAITING.format(runs=RUNS, minute=at.minute, hour=at.hour))
            deferred = "SELECT count(*) FROM task_instance WHERE state = 'deferred'"
            assert wait_until(lambda: answers(database, deferred)[0] == RUNS, seconds=900, every=2)
            rows.append([f"{COUNTS[-1]} idle, {RUNS} running", *measured(stack, wire, database)])
            late = "SELECT max(extract(epoch FROM start_date - run_after)) FROM dag_run WHERE dag_id LIKE 'waiting-%'"
            print(f"\nthe last of {RUNS} runs of one minute began {answers(database, late)[0]:.1f} s after its time")
    head = [
        "pipelines",
        "deferred tasks",
        *(f"CPU s per minute, {name}" for name in SERVICES),
        *(f"MiB, {name}" for name in SERVICES),
        *("loop ms, median", "loop ms, longest"),
    ]
    print_table(f"Pipelines in Airflow with PostgreSQL, {SECONDS} s each", head, rows)
    assert [row[1] for row in rows] == [*("0" for _ in (0, *COUNTS)), str(RUNS)]


def measured(stack: AirflowStack, wire: Wire, database: str) -> Sequence[str]:
    """Measure the components for a while."""
    time.sleep(10)  # what has just changed is settled
    wire.lines()
    before, begin, loops = [service_cpu(stack, name) for name in SERVICES], time.monotonic(), list[float]()
    while time.monotonic() < begin + SECONDS:
        loops += [float(found[1]) for line in wire.lines() for found in _LOOP.finditer(line)]
    minutes = (time.monotonic() - begin) / 60
    used = [f"{(service_cpu(stack, name) - old) / minutes:.1f}" for name, old in zip(SERVICES, before, strict=True)]
    (deferred,) = answers(database, "SELECT count(*) FROM task_instance WHERE state = 'deferred'")
    memory = [f"{memory_mib(stack, name):.0f}" for name in SERVICES]
    return str(deferred), *used, *memory, f"{statistics.median(loops):.0f}", f"{max(loops):.0f}"


def memory_mib(stack: AirflowStack, service: str) -> float:
    """Return the memory of a component and its children; pages that they share are counted once."""
    kib = 0
    for pid in stack.component(service).processes():
        found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        kib += int(found[1]) if found else 0
    return kib / 1024
