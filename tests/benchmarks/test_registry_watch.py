"""The cost of watching 500 models of one real MLflow server, next to one polling trigger per model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.hooks.mlflow import MlflowHook
from tests.benchmarks.fresh import print_table, run_fresh
from tests.support.services import MlflowServer

pytestmark = pytest.mark.benchmark

MODELS, POLL_SECONDS, SECONDS = 500, 30, 60


def fill(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register models as this package does: with a version, an alias, and records of moves."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_BENCHMARK", json.dumps({"conn_type": "mlflow", "host": url}))
    with MlflowHook("mlflow_benchmark") as hook:
        run = hook.create_run(hook.get_or_create_experiment("watched"), "a run", {}, 1)
        tags = {f"{contract.TAG_PREFIX}note.{number}": "x" * 300 for number in range(5)}
        for number in range(MODELS):
            name = f"watched-{number}"
            hook.create_registered_model(name, tags)
            hook.create_model_version(name, f"{run.artifact_uri}/model", run_id=run.run_id)


def test_requests_and_cpu_of_watching_500_models(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mlflow_server.url, monkeypatch)
    found: dict[str, dict[str, float]] = {}
    for side in ("ours", "peer"):
        module = ("-m", "tests.benchmarks.registry_watchers", side, mlflow_server.url)
        for arguments in ((1, 1, 1), (MODELS, POLL_SECONDS, SECONDS)):
            with MlflowHook("mlflow_benchmark") as hook:
                for number in range(0, MODELS, 10):
                    hook.delete_alias(f"watched-{number}", "champion")
            figures: dict[str, Any] = run_fresh(tmp_path / "cache", *module, *map(str, arguments))
        assert figures["events"] == MODELS // 10
        found[side] = figures
    ours, peer = found["ours"], found["peer"]
    names = {"ours": f"ours: {MODELS} watchers share one search", "peer": "peer: one request per watcher"}
    rows = [[names[side], f"{found[side]['requests']:.0f}", f"{found[side]['cpu']:.2f}"] for side in found]
    ratios = [f"{peer[name] / ours[name]:.0f}" for name in ("requests", "cpu")]
    head = [f"{MODELS} watched models, every {POLL_SECONDS} s", "requests per minute", "CPU s per minute"]
    print_table(f"Watching the registry, one process, {SECONDS} s", head, [*rows, ["peer / ours", *ratios]])
    assert set(found) == {"ours", "peer"}
