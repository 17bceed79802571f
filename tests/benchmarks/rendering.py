"""Render many pipelines in this process in one of several ways, and print the cost as JSON.

Run as ``python -m tests.benchmarks.rendering WAY FOLDER COUNT``; every way builds Dags of the same eight tasks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIPELINE = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata:
  name: pipeline-{number}
  owner: team
spec:
  sourceCode: https://github.com/team/ml-fraud-v3
  trainingScript: train.py
  config: {{lr: 0.1, depth: 6}}
  data:
    root: /data/fraud
    train: train.csv
    evaluation: evaluation.csv
    target: label
  triggers:
    - cron: "0 2 * * *"
  stages:
    - name: build
      image: tensorflow:2.12
    - name: evaluate
      metricsThreshold:
        accuracy: 0.92
        latencyMs: 150
"""
TASKS = 8


def pull(task_id: str, key: str) -> str:
    return f"{{{{ ti.xcom_pull(task_ids='{task_id}', key='{key}') }}}}"


def arguments() -> dict[str, tuple[str, dict[str, Any], list[str]]]:
    """Return operator, arguments and upstream tasks of each task as plain values, for the peers."""
    name, code = "fraud", {"repo_url": "https://github.com/team/ml-fraud-v3", "revision": pull("begin", "commit")}
    step = {"experiment_name": name, "code": code, "image": "tensorflow:2.12"}
    model = {"run_id": pull("train", "run_id"), "model_name": name}
    return {
        "begin": (
            "pipeline.BeginPipelineOperator",
            {
                "spec_hash": "0",
                "code": {"repo_url": code["repo_url"]},
                "model_name": name,
                "experiment_name": name,
                "stages": ["build", "train", "evaluate", "gate", "register", "promote"],
                "start_at": "{{ params.start_at }}",
                "data_version": "{{ params.data_version }}",
            },
            [],
        ),
        "build": ("step.RunStepOperator", {**step, "command": ["python", "-m", "py_compile", "train.py"]}, ["begin"]),
        "pin_data": (
            "dataset.PinDatasetOperator",
            {
                "root": "/data/fraud",
                "files": {"train": "train.csv", "evaluation": "evaluation.csv"},
                "version": pull("begin", "data_version"),
            },
            ["begin"],
        ),
        "train": (
            "training.TrainModelOperator",
            {
                **step,
                "model_name": name,
                "script": "train.py",
                "config": {"lr": 0.1, "depth": 6},
                "reason": pull("begin", "reason"),
            },
            ["build", "pin_data"],
        ),
        "evaluate": (
            "evaluation.EvaluateModelOperator",
            {
                **model,
                "model_uri": pull("train", "model_uri"),
                "dataset": {"uri": pull("pin_data", "evaluation")},
                "target": "label",
                "model_type": "classifier",
            },
            ["train"],
        ),
        "gate": (
            "gate.EvaluationGateOperator",
            {**model, "thresholds": ["accuracy >= 0.92", "latency_ms <= 150"]},
            ["evaluate"],
        ),
        "register": (
            "registry.RegisterModelOperator",
            {"model_name": name, "model_uri": pull("train", "model_uri"), "dry_run": "{{ params.dry_run }}"},
            ["gate"],
        ),
        "promote": (
            "registry.PromoteModelOperator",
            {
                "model_name": name,
                "version": pull("register", "version"),
                "expected_champion": pull("gate", "champion_version"),
                "dry_run": "{{ params.dry_run }}",
            },
            ["register"],
        ),
    }


PARAMS = {"data_version": "latest", "start_at": "build", "dry_run": False}


def prepare(way: str, folder: Path, count: int) -> None:
    """Write the files that a way reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        text = PIPELINE.format(number=number) if way == "ours" else _factory_yaml(number)
        (folder / f"p{number}.yaml").write_text(text)


def _factory_yaml(number: int) -> str:
    import yaml

    tasks = [
        {"task_id": task_id, "operator": f"airflow_mcp.operators.{operator}", **given, "dependencies": needs}
        for task_id, (operator, given, needs) in arguments().items()
    ]
    dag = {
        "schedule": "0 2 * * *",
        "catchup": False,
        "max_active_runs": 1,
        "params": PARAMS,
        "default_args": {"owner": "team", "start_date": "2026-01-01", "retries": 2, "retry_delay_sec": 30},
        "tasks": tasks,
    }
    return str(yaml.safe_dump({f"pipeline-{number}": dag}))


def ours(folder: Path, count: int) -> list[Any]:
    """Read, check, plan and render."""
    from airflow_mcp.dag_rendering.loader import LoadedPipeline, load_pipeline_folder
    from airflow_mcp.dag_rendering.plans import plan_pipeline
    from airflow_mcp.dag_rendering.render import render

    found = load_pipeline_folder(folder)
    return [render(plan_pipeline(each)) for each in found if isinstance(each, LoadedPipeline)]


def ours_cached(folder: Path, count: int) -> list[Any]:
    """Read and check files again that were read before, without rendering."""
    from airflow_mcp.dag_rendering.loader import load_pipeline_folder

    return list(load_pipeline_folder(folder))


def factory(folder: Path, count: int) -> list[Any]:
    """Build with dag-factory, one call per file, so that a broken file does not affect others."""
    from dagfactory import load_yaml_dags

    found: dict[str, Any] = {}
    for number in range(count):
        load_yaml_dags(globals_dict=found, config_filepath=str(folder / f"p{number}.yaml"))
    return list(found.values())


def by_hand(folder: Path, count: int) -> list[Any]:
    """Build with plain Python, without reading files or checking anything."""
    from datetime import datetime, timedelta
    from importlib import import_module

    from airflow.sdk import DAG

    found = []
    for number in range(count):
        with DAG(
            f"pipeline-{number}",
            schedule="0 2 * * *",
            start_date=datetime(2026, 1, 1),  # noqa: DTZ001
            catchup=False,
            max_active_runs=1,
            params=dict(PARAMS),
            default_args={"owner": "team", "retries": 2, "retry_delay": timedelta(seconds=30)},
        ) as dag:
            tasks: dict[str, Any] = {}
            for task_id, (operator, given, needs) in arguments().items():
                module, _, name = operator.partition(".")
                cls = getattr(import_module(f"airflow_mcp.operators.{module}"), name)
                tasks[task_id] = cls(task_id=task_id, **given)
                tasks[task_id].set_upstream([tasks[need] for need in needs])
        found.append(dag)
    return found


WAYS: dict[str, Callable[[Path, int], list[Any]]] = {"ours": ours, "dag-factory": factory, "by hand": by_hand}


def resident() -> float:
    """Return the memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measured(way: Callable[[Path, int], list[Any]], folder: Path, count: int) -> dict[str, float]:
    """Run one way and return its cost."""
    memory, wall, cpu = resident(), time.perf_counter(), time.process_time()
    dags = way(folder, count)
    cost = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": resident() - memory}
    assert len(dags) == count
    return cost


def main(way: str, folder: Path, count: int) -> dict[str, Any]:
    """Warm up with one Dag, then measure all; for ours also the second reading."""
    warm = folder.parent / f"{folder.name}-warm"
    for where, how_many in ((warm, 1), (folder, count)):
        prepare(way, where, how_many)
    dags = WAYS[way](warm, 1)
    assert [len(dag.tasks) for dag in dags] == [TASKS]
    cost: dict[str, Any] = measured(WAYS[way], folder, count)
    if way == "ours":
        cost["again"] = measured(ours_cached, folder, count)
        heavy = ("mlflow", "evidently", "dvc", "pandas", "kubernetes")
        cost["heavy"] = [name for name in heavy if name in sys.modules]
    return cost


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(result))
