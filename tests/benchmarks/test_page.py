"""The page with 1,000 models of five versions in PostgreSQL, beside MLflow's own search of the same models."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from statistics import median
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg2
import pytest
from fastapi import Request

from airflow_mcp.core import contract
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.plugins.access import Access, Caller
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.app import create_app
from airflow_mcp.plugins.queries import ModelReader
from airflow_mcp.plugins.registry_index import RegistryIndex
from airflow_mcp.plugins.services import Services
from tests.benchmarks.fresh import print_table
from tests.support.fakes.airflow_rest import FakeAirflow
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.shared import shared

pytestmark = pytest.mark.benchmark
MODELS, VERSIONS, ROUNDS = 1000, 5, 15
TABLES = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)


@pytest.fixture(scope="module")
def thousand(
    mlflow_on_postgresql: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MlflowServer, str, float]:
    """Make one model as the operators do, and copy its rows; return the server, the model and the seconds."""
    with pytest.MonkeyPatch.context() as patch:
        connection = {"conn_type": "mlflow", "host": mlflow_on_postgresql.url}
        patch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps(connection))
        world = World(mlflow_on_postgresql.url, tmp_path_factory.mktemp("page"))
        world.versions(VERSIONS)
        for version in range(1, VERSIONS):
            outcome = world.run(
                PromoteModelOperator,
                model_name=world.model_name,
                version=str(version),
                expected_champion=str(version - 1) if version > 1 else "none",
                reason="it is better",
                dag_run_id=f"run-{version}",
            )
            assert outcome.state == "success", outcome.error
        world.hook.set_registered_model_tag(world.model_name, contract.TAG_DAG_ID, "nightly")
        begun = time.monotonic()
        with (
            closing(
                psycopg2.connect(str(shared("mlflow-on-postgresql")["database"]).replace("+psycopg2", ""))
            ) as database,
            database,
            database.cursor() as cursor,
        ):
            for table in TABLES:
                copy_rows(cursor, table, world.model_name)
        world.hook.close()
    return mlflow_on_postgresql, world.model_name, time.monotonic() - begun


def copy_rows(cursor: Any, table: str, model: str) -> None:
    """Copy the rows of a model for every further model."""
    cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,))
    columns = [row[0] for row in cursor.fetchall()]
    values = [f"%(name)s || '-' || number AS {each}" if each == "name" else each for each in columns]
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table}, "
        "generate_series(2, %(models)s) number WHERE name = %(name)s",
        {"name": model, "models": MODELS},
    )


async def measured(ask: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the median wall time and CPU time of this process, in milliseconds."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        await ask()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return median(walls), median(cpus)


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


async def test_list_model_and_sweep_of_1000_models(thousand: tuple[MlflowServer, str, float]) -> None:
    server, name, seeded = thousand
    settings = MlflowSettings(conn_id="mlflow_default", base_url=server.url, ui_url=server.url, retries=0, timeout=60)
    mlflow, airflow = DirectMlflow(settings), FakeAirflow()
    reader = ModelReader(lambda: mlflow)

    async def authenticate(request: Request) -> Any:
        return SimpleNamespace(get_name=lambda: "olga")

    def rest(_: Request, caller: Caller) -> AirflowRest:
        return AirflowRest(httpx.ASGITransport(airflow.app), caller.token)

    services = Services(
        index=RegistryIndex(lambda: mlflow),
        reader=reader,
        access=Access(SimpleNamespace(may=lambda *_: True)),
        airflow=rest,
        server="mlflow_default",
    )
    transport = httpx.ASGITransport(create_app(services, authenticate))
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test", timeout=120) as client:
        begun = time.perf_counter()
        assert (await client.get("/ui/")).status_code == 200
        first = (time.perf_counter() - begun) * 1000
        await services.index.finished()
        sweep, gap = await sweep_once(services.index)

        async def listed() -> None:
            assert f"of {MODELS}" in (await client.get("/ui/")).text

        async def shown() -> None:
            reader.forget(name)
            assert (await client.get(f"/ui/models/{name}")).status_code == 200

        async def kept() -> None:
            assert (await client.get(f"/ui/models/{name}")).status_code == 200

        found = {
            "list": await measured(listed),
            "model": await measured(shown),
            "model, kept 5 s": await measured(kept),
        }
    search, size = await asyncio.to_thread(searched, server.url)
    reader.close()
    mlflow.close()
    rows = [[what, f"{wall:.0f}", f"{cpu:.1f}"] for what, (wall, cpu) in found.items()]
    rows.append(["first look, nothing read", f"{first:.0f}", ""])
    rows.append(["sweep", f"{sweep[0]:.0f}", f"{sweep[1]:.0f}"])
    rows.append(["longest gap of the event loop in it", f"{gap:.0f}", ""])
    rows.append(["MLflow: registered-models/search", f"{search:.0f}", f"{size / 1e6:.1f} MB"])
    rows.append(["plugin import", "", f"{import_cost():.1f}"])
    title = f"The page, {MODELS} models of {VERSIONS} versions in PostgreSQL, seeded in {seeded:.0f} s"
    print_table(title, ["", "wall ms", "CPU ms here"], rows)


def searched(url: str) -> tuple[float, int]:
    """Return the milliseconds and the bytes of MLflow's own answer with all models."""
    begun = time.perf_counter()
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as peer:
        answer = peer.get("/api/2.0/mlflow/registered-models/search", params={"max_results": MODELS})
    assert len(answer.json()["registered_models"]) == MODELS
    return (time.perf_counter() - begun) * 1000, len(answer.content)


async def sweep_once(index: RegistryIndex) -> tuple[tuple[float, float], float]:
    """Return wall and CPU milliseconds of one sweep, and the longest gap of the event loop in it."""
    gaps = Gaps()
    watching = asyncio.create_task(gaps.watch())
    wall, cpu = time.perf_counter(), time.process_time()
    await index.sweep()
    spent = (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000
    watching.cancel()
    return spent, gaps.longest * 1000


def import_cost() -> float:
    """Return the CPU milliseconds that the plugin adds to a process that has imported Airflow's plugin manager."""
    program = (
        "import time; import airflow.sdk.plugins_manager; begun = time.process_time(); "
        "import airflow_mcp.plugins.model_panel; print((time.process_time() - begun) * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
