"""What 1,000 releases that wait for people cost a real Airflow with PostgreSQL: slots, triggers, CPU, scheduler loop.

One release really waits; its rows are copied, because 1,000 of them would take an hour to get there.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from airflow_mcp.cli.options import mlflow_settings
from airflow_mcp.mlflow_client.operations import DirectMlflow
from tests.benchmarks.fresh import print_table
from tests.support.airflow_stack import AirflowStack
from tests.support.audit_log import Logs
from tests.support.bank import DAG_ID, Bank, fab, opened
from tests.support.services import MlflowServer
from tests.support.statsd import Wire, open_wire

pytestmark = [pytest.mark.benchmark, pytest.mark.integration]

SEATS, SECONDS = int(os.environ.get("WAITING_SEATS", "1000")), int(os.environ.get("WAITING_SECONDS", "60"))
"""A quick try needs fewer."""
SERVICES = ("scheduler", "triggerer")
_LOOP = re.compile(r"scheduler\.scheduler_loop_duration[^:]*:([\d.]+)\|ms")
_TICKS = os.sysconf("SC_CLK_TCK")


def test_slots_triggers_and_cpu_while_1000_seats_wait(
    request: pytest.FixtureRequest, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    with open_wire() as wire, opened(metered(request, tmp_path, wire), tmp_path, mlflow_server) as bank:
        database = bank.stack.database.replace("+psycopg2", "")
        rows = [measured(bank, database, wire)]
        with closing(DirectMlflow(mlflow_settings(mlflow_server.url))) as mlflow:
            run = bank.ask(bank.version(mlflow))
        bank.wait_for(run, "seat_1")
        rows.append(measured(bank, database, wire))
        multiply(database, run, SEATS - 1)
        rows.append(measured(bank, database, wire))
    head = [
        "waiting seats",
        "slots in use",
        "triggers",
        "processes",
        *(f"CPU s per minute, {name}" for name in SERVICES),
        *("loops", "loop ms, median", "loop ms, longest"),
    ]
    print_table(f"Seats that wait for an answer, {SECONDS} s each", head, rows)
    assert [row[:3] for row in rows] == [["0", "0", "0"], ["1", "0", "0"], [str(SEATS), "0", "0"]]


@contextmanager
def metered(request: pytest.FixtureRequest, folder: Path, wire: Wire) -> Iterator[tuple[AirflowStack, Logs]]:
    """Let Airflow tell how long each loop of its scheduler takes."""
    with fab(request, folder) as (stack, logs):
        stack.env |= wire.variables()
        stack.has_triggerer = True
        yield stack, logs


def measured(bank: Bank, database: str, wire: Wire) -> list[str]:
    time.sleep(5)  # what has just changed is settled
    wire.lines()
    before, begin = [service_cpu(bank.stack, name) for name in SERVICES], time.monotonic()
    loops: list[float] = []
    while time.monotonic() < begin + SECONDS:
        loops += [float(found[1]) for line in wire.lines() for found in _LOOP.finditer(line)]
    minutes = (time.monotonic() - begin) / 60
    used = [
        f"{(service_cpu(bank.stack, name) - old) / minutes:.1f}" for name, old in zip(SERVICES, before, strict=True)
    ]
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        counts = []
        for query in (
            "SELECT count(*) FROM task_instance WHERE state = 'awaiting_input'",
            "SELECT coalesce(sum(pool_slots), 0) FROM task_instance WHERE state IN ('running', 'queued')",
            "SELECT count(*) FROM trigger",
        ):
            cursor.execute(query)
            counts.append(str(cursor.fetchone()[0]))
    length = [str(len(loops)), f"{statistics.median(loops):.0f}", f"{max(loops):.0f}"]
    return [*counts, str(len(bank.stack.processes())), *used, *length]


def service_cpu(stack: AirflowStack, service: str) -> float:
    """Return the CPU seconds of a service and its children so far."""
    total = 0
    for pid in stack.component(service).processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))  # its own, and those of children that have ended
    return total / _TICKS


def multiply(database: str, run_id: str, times: int) -> None:
    """Copy a Dag run with its task instances and its question."""
    with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        given = {"dag": DAG_ID, "run": run_id, "times": times}
        of_run = "dag_id = %(dag)s AND run_id = %(run)s"
        cursor.execute(
            "CREATE TEMP TABLE copies AS SELECT id AS old, gen_random_uuid() AS new, number FROM task_instance, "
            f"generate_series(1, %(times)s) AS number WHERE {of_run}",
            given,
        )
        cursor.execute(
            insert(
                cursor, "dag_run", {"id": "(SELECT max(id) FROM dag_run) + number", "run_id": "run_id || '-' || number"}
            )
            + f" FROM dag_run, generate_series(1, %(times)s) AS number WHERE {of_run}",
            given,
        )
        cursor.execute(
            insert(cursor, "task_instance", {"id": "copies.new", "run_id": "run_id || '-' || number"})
            + " FROM task_instance JOIN copies ON copies.old = task_instance.id"
        )
        cursor.execute(
            insert(cursor, "hitl_detail", {"ti_id": "copies.new"})
            + " FROM hitl_detail JOIN copies ON copies.old = hitl_detail.ti_id"
        )
        assert cursor.rowcount == times


def insert(cursor: psycopg2.extensions.cursor, table: str, changed: dict[str, str]) -> str:
    """Return the beginning of a statement that copies rows of a table, with some columns changed."""
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_generated = 'NEVER'", (table,)
    )
    names: Sequence[str] = [name for (name,) in cursor.fetchall()]
    values = [changed.get(name, f'{table}."{name}"') for name in names]
    return (
        f"INSERT INTO {table} ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in names)}) SELECT {', '.join(values)}"
    )
