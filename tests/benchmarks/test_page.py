"""The page and the commands with 1,000 models of 5 and of 100 versions in PostgreSQL, beside MLflow's own search.

CPU times are held to their limits; with 100 versions the page of a model shows more, and may take more. Wall times are
printed: they depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import Request

from airflow_mcp.cli import main
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.registry_api import names_filters
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from airflow_mcp.plugins import queries
from airflow_mcp.plugins.access import Access
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.app import create_app
from airflow_mcp.plugins.queries import ModelReader
from airflow_mcp.plugins.registry_index import RegistryIndex
from airflow_mcp.plugins.services import Services
from tests.benchmarks.fresh import print_table, run_fresh
from tests.benchmarks.hundred_versions import add_versions
from tests.benchmarks.thousand_models import MODEL, MODELS, VERSIONS, Registry, thousand_models
from tests.support.airflow_stack import AirflowStack
from tests.support.fakes.airflow_rest import FakeAirflow
from tests.support.services import MlflowServer

pytestmark = pytest.mark.benchmark
ROUNDS = 15
MANY_VERSIONS = 100
"""Versions of each model in the second registry."""
LIST_CPU, SWEEP_CPU, IMPORT_CPU, GAP = 10.0, 500.0, 5.0, 20.0
"""Limits in milliseconds."""
MODEL_CPU = {VERSIONS: 60.0, MANY_VERSIONS: 90.0}
"""The page shows up to 50 versions."""
HEAD = ("", "wall ms", "CPU ms", "limit of CPU")
IMPORT = (
    "import json, time; import airflow.sdk.plugins_manager; begun = time.process_time(); "
    "import airflow_mcp.plugins.model_panel; print(json.dumps((time.process_time() - begun) * 1000))"
)


class Thousand(NamedTuple):
    """A started MLflow server with all models."""

    registry: Registry
    versions: int
    """Versions of each model."""

    @property
    def server(self) -> MlflowServer:
        return self.registry.server

    def __str__(self) -> str:
        return f"{MODELS} models of {self.versions} versions in PostgreSQL"

    def mlflow_cpu(self) -> float:
        """Return the CPU time of MLflow in milliseconds; what its database spends is not in it."""
        ticks = 0
        for pid in self.server.processes():  # of whole processes: its threads come and go
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        return 1000 * ticks / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module", params=[VERSIONS, MANY_VERSIONS])
def thousand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thousand]:
    with thousand_models(tmp_path_factory.mktemp("thousand")) as registry:
        if request.param > VERSIONS:
            add_versions(registry.server, request.param)
        yield Thousand(registry, request.param)


async def measured(
    ask: Callable[[int], Awaitable[Any]], cpu_ms: Callable[[], float], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Return the median wall time and CPU time of several requests, in milliseconds.

    :param ask: makes the request with a number.
    :param cpu_ms: CPU time of the process that answers.
    :param rounds: number of requests.
    """
    walls, cpus = [], []
    for number in range(rounds):
        wall, cpu = time.perf_counter(), cpu_ms()
        await ask(number)
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append(cpu_ms() - cpu)
    return median(walls), median(cpus)


def own_cpu() -> float:
    """Return the CPU time of this process in milliseconds."""
    return time.process_time() * 1000


class Gaps:
    """Measures for how long the event loop did not get its turn."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Look every millisecond until cancelled."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


async def longest_gap(index: RegistryIndex) -> float:
    """Return the milliseconds of the longest gap of the event loop in a sweep."""
    gaps = Gaps()
    watching = asyncio.create_task(gaps.watch())
    await index.sweep()
    watching.cancel()
    return gaps.longest * 1000


async def test_pages_and_sweep_in_one_process(
    thousand: Thousand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_WAIT_SECONDS", 60.0)  # also on a busy machine every part of the page is measured
    url = thousand.server.url
    mlflow = DirectMlflow(MlflowSettings(conn_id="mlflow_default", base_url=url, ui_url=url, retries=0, timeout=60))
    airflow, index, reader = FakeAirflow(), RegistryIndex(lambda: mlflow), ModelReader(lambda: mlflow)

    async def authenticate(request: Request) -> Any:
        return SimpleNamespace(get_name=lambda: "olga")

    services = Services(
        index=index,
        reader=reader,
        access=Access(SimpleNamespace(may=lambda *_: True)),
        airflow=lambda _, caller: AirflowRest(httpx.ASGITransport(airflow.app), caller.token),
        server="mlflow_default",
    )
    transport = httpx.ASGITransport(create_app(services, authenticate))
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test", timeout=120) as client:

        async def get(path: str, said: str) -> None:
            answer = await client.get(path)
            assert (answer.status_code, said in answer.text) == (200, True), answer.text[:2000]

        begun, cpu = time.perf_counter(), own_cpu()
        await get("/ui/", MODEL)
        first = (time.perf_counter() - begun) * 1000
        await index.finished()
        first_sweep = own_cpu() - cpu
        sweep = await measured(lambda _: index.sweep(), own_cpu, 3)
        gap = median([await longest_gap(index) for _ in range(3)])
        listed = await measured(lambda _: get("/ui/", f"of {MODELS}"), own_cpu)
        shown = await measured(lambda number: get(f"/ui/models/{MODEL}-{number + 2}", "is in production"), own_cpu)
        kept = await measured(lambda _: get(f"/ui/models/{MODEL}", "is in production"), own_cpu)
    search, size = await asyncio.to_thread(searched, url)
    reader.close()
    mlflow.close()
    run_fresh(tmp_path, "-c", IMPORT)
    imported = min(run_fresh(tmp_path, "-c", IMPORT) for _ in range(3))
    print_table(
        str(thousand),
        HEAD,
        [
            ["list", f"{listed[0]:.0f}", f"{listed[1]:.1f}", f"{LIST_CPU:.0f}"],
            ["model", f"{shown[0]:.0f}", f"{shown[1]:.1f}", f"{MODEL_CPU[thousand.versions]:.0f}"],
            ["model, read within 5 s", f"{kept[0]:.0f}", f"{kept[1]:.1f}", ""],
            ["list, nothing read yet; the CPU is that of the first sweep", f"{first:.0f}", f"{first_sweep:.0f}", ""],
            ["sweep, once a minute", f"{sweep[0]:.0f}", f"{sweep[1]:.0f}", f"{SWEEP_CPU:.0f}"],
            ["longest gap of the event loop in it", f"{gap:.0f}", "", f"{GAP:.0f} of wall time"],
            [f"MLflow's registered-models/search, {size / 1e6:.1f} MB", f"{search:.0f}", "", ""],
            ["import of the plugin in a task", "", f"{imported:.1f}", f"{IMPORT_CPU:.0f}"],
        ],
    )
    assert listed[1] <= LIST_CPU
    assert shown[1] <= MODEL_CPU[thousand.versions]
    assert sweep[1] <= SWEEP_CPU
    assert imported <= IMPORT_CPU


def searched(url: str) -> tuple[float, int]:
    """Return the milliseconds and the bytes of MLflow's own answer with all models."""
    begun = time.perf_counter()
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as peer:
        answer = peer.get("/api/2.0/mlflow/registered-models/search", params={"max_results": MODELS})
    assert len(answer.json()["registered_models"]) == MODELS
    return (time.perf_counter() - begun) * 1000, len(answer.content)


def test_commands_and_the_look_of_a_thousand_watchers(
    thousand: Thousand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, requests, send = thousand.server.url, list[Any](), SyncDriver._attempt
    monkeypatch.setattr(SyncDriver, "_attempt", lambda driver, sent: (requests.append(sent), send(driver, sent))[1])
    names = [MODEL, *(f"{MODEL}-{number}" for number in range(2, MODELS + 1))]
    settings = MlflowSettings(conn_id="mlflow_default", base_url=url, ui_url=url, retries=0, timeout=120)

    def command(*arguments: str) -> None:
        assert main([*arguments, "--tracking-uri", url]) in (0, 1)

    def look() -> None:
        found = [model for where in names_filters(names, ()) for model in mlflow.search_registered_models(where)]
        assert len(found) == MODELS

    rows = []
    with closing(DirectMlflow(settings)) as mlflow:
        asked: list[tuple[str, Callable[[], None]]] = [
            ("airflow-mcp status", lambda: command("status")),
            ("airflow-mcp status of one model", lambda: command("status", f"{MODEL}-2")),
            ("airflow-mcp doctor, without a cluster", lambda: command("doctor", "--no-cluster")),
            (f"one look of sensors and event triggers at {MODELS} models", look),
        ]
        for what, ask in asked:
            ask()
            requests.clear()
            own, theirs = own_cpu(), thousand.mlflow_cpu()
            ask()
            spent = own_cpu() - own, thousand.mlflow_cpu() - theirs
            rows.append([what, str(len(requests)), *(f"{each:.0f}" for each in spent)])
    with capsys.disabled():
        print_table(str(thousand), ["", "requests", "CPU ms", "CPU ms of MLflow"], rows)
    assert len(rows) == len(asked)


async def test_pages_in_airflows_api_server(thousand: Thousand, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    connection = json.dumps({"conn_type": "mlflow", "host": thousand.server.url})
    airflow = AirflowStack(tmp_path / "home", tmp_path / "dags", env={"AIRFLOW_CONN_MLFLOW_DEFAULT": connection})
    airflow.start()
    try:
        listed, shown = await _measure(airflow, thousand)
    finally:
        airflow.stop()
    assert shown <= MODEL_CPU[thousand.versions]
    assert listed <= LIST_CPU


async def _measure(airflow: AirflowStack, thousand: Thousand) -> tuple[float, float]:
    """Print what the pages cost; return the CPU milliseconds of the list, and of a model."""
    with closing(airflow.api()) as api:
        headers = {"Authorization": f"Bearer {api.token}"}
    server = airflow.component("api-server")
    async with httpx.AsyncClient(
        base_url=f"{airflow.url}/mcp", headers=headers, timeout=120, trust_env=False
    ) as client:

        async def get(path: str, said: str) -> None:
            answer = await client.get(path)
            assert (answer.status_code, said in answer.text) == (200, True), answer.text[:2000]

        def cpu() -> float:
            return _cpu_of(server.processes())

        async def cost(path: str) -> tuple[float, float]:
            return await measured(lambda _: client.get(f"{airflow.url}{path}"), cpu)

        begun = time.perf_counter()
        await get("/ui/", MODEL)
        first = (time.perf_counter() - begun) * 1000
        for _ in range(240):  # half a second each
            if "Reading the registry" not in (await client.get("/ui/")).text:
                break
            await asyncio.sleep(0.5)
        await get(f"/ui/models/{MODEL}", "is in production")
        idle = await measured(lambda _: asyncio.sleep(0.1), cpu)
        others = [
            [what, *(f"{value:.1f}" for value in await cost(path)), ""]
            for what, path in (
                ("a route of the page that only asks for the login", "/mcp/ui"),
                ("Airflow's own /api/v2/version, without a login", "/api/v2/version"),
                ("Airflow's own /api/v2/dags, of no Dags", "/api/v2/dags"),
            )
        ]
        listed = await measured(lambda _: get("/ui/", f"of {MODELS}"), cpu)
        shown = await measured(lambda number: get(f"/ui/models/{MODEL}-{number + 2}", "is in production"), cpu)
    print_table(
        "The same in Airflow's API server",
        HEAD,
        [
            ["list", f"{listed[0]:.0f}", f"{listed[1]:.1f}", f"{LIST_CPU:.0f}"],
            ["model", f"{shown[0]:.0f}", f"{shown[1]:.1f}", f"{MODEL_CPU[thousand.versions]:.0f}"],
            ["list, first request after the start", f"{first:.0f}", "", ""],
            *others,
            ["nothing, in 100 ms", "", f"{idle[1]:.1f}", ""],
        ],
    )
    return listed[1], shown[1]


def _cpu_of(processes: list[int]) -> float:
    """Return the CPU time of the threads of some processes in milliseconds."""
    nanoseconds = 0
    for thread in (each for pid in processes for each in Path(f"/proc/{pid}/task").iterdir()):
        with suppress(OSError):
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e6
