"""The cost of watching 100 and 1,000 models of one real MLflow server, next to one polling trigger per model."""

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

COUNTS, POLL_SECONDS, SECONDS = (100, 1000), 30, 60


def fill(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register models as this package does: with a version, an alias, and records of moves."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_BENCHMARK", json.dumps({"conn_type": "mlflow", "host": url}))
    with MlflowHook("mlflow_benchmark") as hook:
        run = hook.create_run(hook.get_or_create_experiment("watched"), "a run", {}, 1)
        tags = {f"{contract.TAG_PREFIX}note.{number}": "x" * 300 for number in range(5)}
        for number in range(max(COUNTS)):
            name = f"watched-{number}"
            hook.create_registered_model(name, tags)
            hook.create_model_version(name, f"{run.artifact_uri}/model", run_id=run.run_id)


def test_requests_and_cpu_of_watching_a_thousand_models(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mlflow_server.url, monkeypatch)
    rows = []
    for side in ("ours", "peer"):
        module = ("-m", "tests.benchmarks.registry_watchers", side, mlflow_server.url)
        for arguments in ((1, 1, 1), *((count, POLL_SECONDS, SECONDS) for count in COUNTS)):
            with MlflowHook("mlflow_benchmark") as hook:
                for number in range(0, arguments[0], 10):
                    hook.delete_alias(f"watched-{number}", "champion")
            figures: dict[str, Any] = run_fresh(tmp_path / "cache", *module, *map(str, arguments))
            if arguments[0] > 1:
                assert figures["events"] == arguments[0] // 10
                rows.append([f"{side}, {arguments[0]} watchers", f"{figures['requests']:.0f}", f"{figures['cpu']:.2f}"])
    head = [f"watched models, every {POLL_SECONDS} s", "requests per minute", "CPU s per minute"]
    print_table(f"Watching the registry, one process, {SECONDS} s", head, rows)
    assert len(rows) == 2 * len(COUNTS)
