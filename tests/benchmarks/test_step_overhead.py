"""The cost of a light step beyond an empty task, next to the same step written with MLflow's own client."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.evaluation.evidence import ModelUnderTest
from tests.benchmarks.fresh import median, print_table, run_fresh
from tests.benchmarks.steps import EXPERIMENT_STEPS, THRESHOLDS, EmptyOperator, make_operator
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.task_harness import run_task

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("default"),  # of MLflow's client, which the peers import into this process
]

REPEATS, FRESH_REPEATS = 12, 5


@pytest.fixture
def world(mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}))
    world = World(mlflow_server.url, tmp_path)
    yield world
    world.hook.close()


class Inputs:
    """New inputs for each repetition, so that each does all of its work."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.champion = world.versions(1)[0]
        world.hook.set_alias(world.model_name, ALIAS_CHAMPION, self.champion.version)

    def arguments(self, step: str) -> dict[str, Any]:
        return dict(getattr(self, f"_{step}")())

    def _gate(self) -> dict[str, Any]:
        run, metrics = self.world.new_run(), {"accuracy": 0.95, "latency_ms": 20.0, "f1": 0.9}
        champion = ModelUnderTest(model_uri=self.champion.uri, run_id=self.champion.run_id, version="1")
        self.world.store_evidence(run, metrics, champion, metrics)
        return {"run_id": run.run_id, "model_name": self.world.model_name, "thresholds": THRESHOLDS}

    def _register(self) -> dict[str, Any]:
        _, model_id = self.world.judged_model()
        return {"model_name": self.world.model_name, "source": f"models:/{model_id}"}

    def _promote(self) -> dict[str, Any]:
        name = self.world.model_name
        run, model_id = self.world.judged_model()
        tags = {"airflow_mcp.gate_verdict": "passed"}
        version = self.world.hook.create_model_version(
            name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id, tags=tags
        )
        return {
            "model_name": name,
            "version": version.version,
            "expected_champion": self.world.aliases[ALIAS_CHAMPION],
        }


def timed(operator: Any, url: str) -> float:
    started = time.perf_counter()
    outcome = run_task(operator, mlflow_url=url)
    taken = (time.perf_counter() - started) * 1000
    assert outcome.state == "success", outcome.error
    return taken


def test_own_time_of_light_steps_in_a_warm_process(world: World) -> None:
    inputs = Inputs(world)
    times: dict[tuple[str, str], list[float]] = {}
    for repeat in range(REPEATS + 1):
        for side, step in itertools.product(("ours", "peer"), EXPERIMENT_STEPS):
            arguments = inputs.arguments(step)
            empty = timed(EmptyOperator(task_id="empty"), world.url)
            own = timed(make_operator(side, step, world.url, arguments), world.url) - empty
            if repeat:  # the first round warms up
                times.setdefault((side, step), []).append(own)
    show(f"Own time over an empty task, warm process, median of {REPEATS}", times)
    assert {len(values) for values in times.values()} == {REPEATS}


def test_own_time_of_light_steps_in_fresh_processes(world: World, tmp_path: Path) -> None:
    inputs = Inputs(world)
    times: dict[tuple[str, str], list[float]] = {}
    for repeat in range(FRESH_REPEATS + 1):
        for side, step in itertools.product(("ours", "peer"), EXPERIMENT_STEPS):
            if repeat == 0 and step != "gate":  # one run of each side compiles its byte code
                continue
            arguments = json.dumps(inputs.arguments(step))
            found = run_fresh(tmp_path / "cache", "-m", "tests.benchmarks.steps", side, step, world.url, arguments)
            if repeat:
                times.setdefault((side, step), []).append(found["own"])
    show(f"Own time with imports, fresh process per task, median of {FRESH_REPEATS}", times)
    assert {len(values) for values in times.values()} == {FRESH_REPEATS}


def show(title: str, times: dict[tuple[str, str], list[float]]) -> None:
    rows = []
    for step in EXPERIMENT_STEPS:
        ours, peer = median(times["ours", step]), median(times["peer", step])
        best = min(times["ours", step]), min(times["peer", step])
        rows.append([step, f"{ours:.0f}", f"{peer:.0f}", f"{ours / peer:.2f}", f"{best[0]:.0f}", f"{best[1]:.0f}"])
    print_table(title, ["step", "ours ms", "peer ms", "ours / peer", "ours, best", "peer, best"], rows)
