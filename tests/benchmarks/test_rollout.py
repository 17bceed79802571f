"""Rollouts on a real model server: worker slots, triggerer, the way back to the champion, and requests that failed."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from airflow_mcp.core.serving.traffic import TAG_ROLLOUT
from airflow_mcp.triggers.rollout import DEFAULT_POLL_SECONDS
from tests.benchmarks.fresh import print_table, run_fresh
from tests.benchmarks.serving.load import HOW_TO_GET_WRK, WRK, Load, closed_loop
from tests.benchmarks.test_pod_overhead import slot_seconds
from tests.integration.conftest import registry_server, world  # noqa: F401  (fixtures)
from tests.integration.test_operators_rollout import Rollouts, rollouts, served  # noqa: F401  (fixtures)
from tests.support.airflow_stack import AirflowStack
from tests.support.followed_server import BODY, SteadyClient
from tests.support.services import LOOPBACK

pytestmark = pytest.mark.benchmark

SECONDS = 60
WAITING = ((1, DEFAULT_POLL_SECONDS), (200, DEFAULT_POLL_SECONDS), (1000, 60))
"""Number of triggers in one process, and seconds between two looks of each."""
CONNECTIONS = 32
STEPS = [step for weight in (5, 10, 25, 50, 75) for step in ({"setWeight": weight}, {"analysis": "15s"})]
DURATION = 5
"""Seconds for which the breaker's metric must be above its threshold."""
ANY = ["latency_p99_ms <= 5000"]
"""A rule that nothing breaks, so that the breaker alone acts."""


class Answer(NamedTuple):
    """When an answer came, its status, and the version that gave it."""

    at: float
    status: int
    version: str


class TimedClient:
    """Asks on several connections all the time, and notes when each answer came.

    :param port: port of the model server.
    :param values: what the first column holds, in turn; version 3 fails for 0.5.
    """

    def __init__(self, port: int, values: Sequence[float]) -> None:
        self._port = port
        self._bodies = [
            json.dumps({"dataframe_split": {"columns": ["x1", "x2"], "data": [[value, 1.0]]}}).encode()
            for value in values
        ]
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=30)
        for body in itertools.cycle(self._bodies):
            if self._stopped.wait(0.01):
                break
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            found = Answer(time.perf_counter(), response.status, response.getheader("X-Model-Version", ""))
            self.answers.append(found)
        connection.close()

    def until_no_traffic(self) -> tuple[float, int]:
        """Return the seconds from the first error of version 3 to its last answer, and the number of its errors."""
        of_canary = [answer for answer in self.answers if answer.version == "3"]
        errors = [answer.at for answer in of_canary if answer.status != 200]
        return max(answer.at for answer in of_canary) - min(errors), len(errors)


# --- worker slots ------------------------------------------------------------------------------------------------
_DAGS = """
from airflow.sdk import DAG

from airflow_mcp.operators.rollout import RolloutModelOperator

for dag_id, version, champion in (("deferred", "2", "1"), ("sync", "1", "2")):
    with DAG(dag_id, schedule=None):
        RolloutModelOperator(
            task_id=dag_id,
            model_name=MODEL,
            version=version,
            expected_champion=champion,
            experiment_name="slots",
            steps=STEPS,
            rules=["http_5xx_rate <= 0.2"],
            poll_interval=5,
            deferrable=dag_id == "deferred",
        )
"""


def test_worker_slot_seconds_of_a_rollout_with_five_steps(rollouts: Rollouts, tmp_path: Path) -> None:  # noqa: F811
    dags = tmp_path / "dags"
    dags.mkdir()
    head = f"MODEL, STEPS = {rollouts.name!r}, {STEPS!r}\n"
    (dags / "rollouts.py").write_text(head + _DAGS)
    place = {"conn_type": "model_server", "host": LOOPBACK, "port": rollouts.server.port}
    env = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": rollouts.world.url}),
        "AIRFLOW_CONN_MODEL_SERVER_DEFAULT": json.dumps(place),
    }
    stack = AirflowStack(tmp_path / "airflow", dags, env=env).start()
    try:
        api = stack.api()
        rows = []
        with SteadyClient(rollouts.server, connections=4) as client:
            for dag_id in ("deferred", "sync"):
                api.wait_for_dag(dag_id)
                api.unpause(dag_id)
                held, taken = slot_seconds(api, dag_id)
                assert 0 < held <= taken
                rows.append([dag_id, f"{held:.1f}", f"{taken:.1f}"])
        api.close()
    finally:
        stack.stop()
    client.require_no_failure()
    head_row = ["a rollout of five steps, 15 s each", "worker slot held, s", "from start to end, s"]
    print_table("Worker slots, a real Airflow with LocalExecutor", head_row, rows)


# --- triggerer ---------------------------------------------------------------------------------------------------


def test_memory_and_cpu_of_the_triggerer_while_rollouts_wait(
    rollouts: Rollouts,  # noqa: F811
    tmp_path: Path,
) -> None:
    outcome = rollouts.run(steps=[{"setWeight": 30}, {"pause": {}}, {"analysis": "10m"}], follow=False)
    while rollouts.document.phase != "WAITING":
        outcome = rollouts.resume(outcome, rollouts.event(outcome))
    path, arguments = rollouts.trigger(outcome).serialize()
    assert path.endswith(".RolloutStepTrigger")
    given = json.dumps({name: value for name, value in arguments.items() if name != "poll_seconds"})
    rows = []
    for count, poll_seconds in WAITING:
        name = f"{count:,} in one process, a look every {poll_seconds:g} s"
        module = ("-m", "tests.benchmarks.rollout_watchers", given, str(count), str(int(poll_seconds)))
        if count == 1:
            run_fresh(tmp_path / "cache", *module, "1")
        figures: Mapping[str, float] = run_fresh(tmp_path / "cache", *module, str(SECONDS))
        each = f"{figures['kib']:.0f}" if count > 1 else ""
        rows.append([name, f"{figures['resident']:.0f}", each, f"{figures['cpu']:.0f}", f"{figures['late']:.0f}"])
    head = ["rollouts that wait", "MiB of the process", "KiB each", "CPU s per hour", "latest turn, ms"]
    print_table(f"Waiting rollouts, {SECONDS} s", head, rows)
    assert rollouts.document.phase == "WAITING"


# --- the way back ------------------------------------------------------------------------------------------------


def test_seconds_from_the_first_bad_answer_to_no_traffic(rollouts: Rollouts) -> None:  # noqa: F811
    steps = [{"setWeight": 30}, {"analysis": "60s"}]
    breaker = {"metric": "http_5xx_rate", "threshold": 0.05, "duration": f"{DURATION}s"}
    cases: list[tuple[str, list[float], dict[str, Any]]] = [
        ("breaker, every answer fails", [0.5], {"rules": ANY, "poll_interval": 15}),
        (
            f"breaker, a third fails, duration {DURATION} s",
            [0.5, 0.1, 0.2],
            {"rules": ANY, "breaker": breaker, "poll_interval": 15},
        ),
        (
            "operator, a third fails, a look every 15 s",
            [0.5, 0.1, 0.2],
            {"rules": ["http_5xx_rate <= 0.05"], "poll_interval": 15},
        ),
    ]
    rows = []
    for number, (name, values, given) in enumerate(cases):
        with TimedClient(rollouts.server.port, values) as client:
            outcome = rollouts.run("3", dag_run_id=f"case-{number}", deferrable=False, steps=steps, **given)
        assert outcome.state == "failed"
        assert outcome.result["cause"] == ("analysis" if name.startswith("operator") else "breaker")
        seconds, errors = client.until_no_traffic()
        rows.append([name, f"{seconds:.1f}", str(errors), f"{len(client.answers):,}"])
        rollouts.hook.set_model_version_tag(rollouts.name, "1", TAG_ROLLOUT, "")
    head = ["30 % of the requests", "s until 0 %", "errors that callers saw", "answers"]
    print_table("From the first bad answer to no traffic", head, rows)


# --- requests during a rollout -----------------------------------------------------------------------------------


@pytest.mark.skipif(WRK is None, reason=HOW_TO_GET_WRK)
def test_requests_that_failed_while_a_rollout_shifted_them(rollouts: Rollouts, tmp_path: Path) -> None:  # noqa: F811
    url = f"http://{LOOPBACK}:{rollouts.server.port}/invocations"
    pid = rollouts.server.pid
    quiet = closed_loop(url, BODY, CONNECTIONS, 5, pid, tmp_path)
    loads: list[Load] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            loads.append(closed_loop(url, BODY, CONNECTIONS, 5, pid, tmp_path))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        with SteadyClient(rollouts.server) as client:
            steps = [{**step, "analysis": "5s"} if "analysis" in step else step for step in STEPS]
            outcome = rollouts.run("2", deferrable=False, steps=steps)
            rollouts.server.wait_for_version("2")
    finally:
        stop.set()
        asker.join()
    assert outcome.state == "success", outcome.error
    client.require_no_failure()
    rows = [_row("quiet", [quiet]), _row("5, 10, 25, 50, 75 %, then promoted", loads)]
    head = ("", "requests", "failed", "CPU µs per request", "requests/s", "worst p99 ms of 5 s")
    print_table(f"{CONNECTIONS} connections while a rollout shifts the requests", head, rows)
    print(f"{len(client.answers)} further answers were looked into: versions {sorted(client.versions)}, none failed")
    assert client.versions == {"1", "2"}


def _row(name: str, loads: list[Load]) -> tuple[str, ...]:
    requests, seconds = sum(load.requests for load in loads), sum(load.seconds for load in loads)
    cpu = 1e6 * sum(load.cpu for load in loads) / requests
    failed = str(sum(load.errors for load in loads))
    worst = max(load.p99 for load in loads)
    return name, f"{requests:,}", failed, f"{cpu:.0f}", f"{requests / seconds:,.0f}", f"{worst:.0f}"
