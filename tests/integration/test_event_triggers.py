"""Event triggers against a real MLflow server, and in a real Airflow that loses its triggerer."""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.triggers.drift import DriftVerdictTrigger
from airflow_mcp.triggers.watch import STATE_KEY
from tests.support import processes
from tests.support.airflow_stack import AirflowStack
from tests.support.git_server import Repository
from tests.support.mlflow_world import NOW, World
from tests.support.paths import ROOT
from tests.support.services import MlflowServer
from tests.support.watching import StateOfAssets, watching

pytestmark = pytest.mark.integration

wait_until = functools.partial(processes.wait_until, seconds=180)
CONNECTION = "mlflow_tests"


async def test_a_finished_drift_check_of_this_model_that_found_drift_gives_one_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(verdict: str, end: int, *, model_name: str = world.model_name, status: Any = "FINISHED") -> str:
        tags = {
            contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
            contract.TAG_MODEL_NAME: model_name,
            contract.TAG_DRIFT_VERDICT: verdict,
            contract.TAG_DATA_URI: "/data/v2/current.csv",
            contract.TAG_DATA_VERSION: "v2",
        }
        run = world.hook.create_run(world.experiment_id, "a check", tags, NOW)
        world.hook.update_run(run.run_id, status, NOW + end)
        return run.run_id

    trigger = DriftVerdictTrigger(
        model_name=world.model_name, experiment_name=world.experiment, mlflow_conn_id=CONNECTION
    )
    async with watching(trigger, StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        check("not_drifted", 1)
        check("inconclusive", 2)
        check("drifted", 3, model_name="another")
        check("drifted", 4, status="FAILED")
        await seen.more_looks()
        assert seen.events == []
        drifted = check("drifted", 5)
        assert await seen.event(1) == {
            "kind": "drift",
            "model_name": world.model_name,
            "experiment_name": world.experiment,
            "run_id": drifted,
            "data_uri": "/data/v2/current.csv",
            "data_version": "v2",
        }
        check("not_drifted", 6)
        await seen.more_looks()
    assert len(seen.events) == 1


# --- in a real Airflow -------------------------------------------------------------------------------------------

DAGS = """
from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_mcp.triggers.git import GitCommitTrigger
from airflow_mcp.triggers.registry import RegistryEventTrigger

TRIGGERS = {
    "on_commit": GitCommitTrigger(repo_url=URL, poll_seconds=1),
    "on_alias": RegistryEventTrigger(models=MODEL, events=["alias_moved"], aliases=["champion"], poll_seconds=1),
}
for dag_id, trigger in TRIGGERS.items():
    with DAG(dag_id, schedule=Asset(dag_id, watchers=[AssetWatcher(name="watcher", trigger=trigger)])):

        @task
        def tell(*, triggering_asset_events):
            return [event.extra["payload"] for events in triggering_asset_events.values() for event in events]

        tell()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.fixture
def stack(tmp_path: Path, repository: Repository, world: World, mlflow_server: MlflowServer) -> Iterator[AirflowStack]:
    repository.commit("first")
    world.hook.set_alias(world.model_name, "champion", world.versions(3)[0].version)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "events.py").write_text(f"URL, MODEL = {repository.url!r}, {world.model_name!r}\n{DAGS}")
    environment = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
    }
    with AirflowStack(tmp_path / "airflow", dags, env=environment) as running:
        yield running


def rows(stack: AirflowStack, query: str) -> list[Any]:
    """Read Airflow's database, which answers also when the machine is busy."""
    with closing(sqlite3.connect(f"file:{stack.home / 'airflow.db'}?mode=ro", uri=True, timeout=60)) as database:
        return database.execute(query).fetchall()


def marks(stack: AirflowStack) -> dict[str, str]:
    """Give what each asset's watermark says: the commit, and where the alias was."""
    query = "SELECT asset.name, key, value FROM asset_state_store JOIN asset ON asset.id = asset_id"
    found = {name: json.loads(value) for name, key, value in rows(stack, query) if key == STATE_KEY}
    return {
        name: kept["mark"] if "mark" in kept else next(iter(kept["models"].values()))["aliases"]["champion"]
        for name, kept in found.items()
    }


def told(stack: AirflowStack, dag_id: str) -> list[Any]:
    """Give what each run of a Dag was told by its events, the oldest first; None while it is at work."""
    query = (
        "SELECT dag_run.dag_id, dag_run.state, xcom.value FROM dag_run LEFT JOIN xcom ON xcom.dag_run_id = dag_run.id"
    )
    runs = [found for found in rows(stack, f"{query} ORDER BY dag_run.id") if found[0] == dag_id]
    logs = (stack.home / "logs").rglob(f"dag_id={dag_id}/**/*.log")
    assert not [run for run in runs if run[1] == "failed"], [path.read_text() for path in logs]
    return [json.loads(value) if value and state == "success" else None for _, state, value in runs]


def values(stack: AirflowStack) -> tuple[list[Any], list[Any]]:
    """Give the commits and the moves of the alias that the runs were told; a run may be told several."""
    commits = [event["commit"] for events in told(stack, "on_commit") for event in events or ()]
    moves = [change for events in told(stack, "on_alias") for event in events or () for change in event["changes"]]
    return commits, [(move["from"], move["to"], move["by"].rpartition(" ")[2]) for move in moves]


def test_a_push_and_every_move_of_an_alias_start_runs_also_when_the_triggerer_was_killed_in_between(
    stack: AirflowStack, repository: Repository, world: World
) -> None:
    one, two, three = ("1", "2", "3")
    by_hand = (one, two, "outside")
    first = repository.git("rev-parse", "HEAD")
    assert wait_until(lambda: marks(stack) == {"on_commit": first, "on_alias": one}), marks(stack)
    assert values(stack) == ([], [])

    second = repository.commit("second")
    world.hook.set_alias(world.model_name, "champion", two)
    assert wait_until(lambda: values(stack) == ([second], [by_hand])), values(stack)
    assert wait_until(lambda: marks(stack) == {"on_commit": second, "on_alias": two}), marks(stack)

    triggerer = stack.component("triggerer")
    for pid in triggerer.processes():
        os.kill(pid, signal.SIGKILL)
    triggerer.stop()
    third = repository.commit("third, while nobody looks")
    for night, before, after in (("night-1", two, three), ("night-2", three, one)):
        versions = {"version": after, "expected_champion": before}
        done = world.run(PromoteModelOperator, model_name=world.model_name, dag_run_id=night, **versions)
        assert done.state == "success"
    triggerer.start()
    assert wait_until(lambda: marks(stack) == {"on_commit": third, "on_alias": one}), marks(stack)
    moves = [by_hand, (two, three, "night-1"), (three, one, "night-2")]
    assert wait_until(lambda: values(stack) == ([second, third], moves)), values(stack)
