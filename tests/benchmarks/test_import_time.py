"""What importing every operator costs a Dag file, next to ``import mlflow`` in the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fresh import ROOT, median, print_table, run_fresh

pytestmark = pytest.mark.benchmark

REPEATS = 7
MEASURED = """
import json, os, sys, time
import airflow.sdk
airflow.sdk.DAG, airflow.sdk.BaseOperator  # airflow.sdk is lazy; every Dag file loads these
def resident(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
memory, wall, cpu, modules = resident(), time.perf_counter(), time.process_time(), len(sys.modules)
{statement}
print(json.dumps(dict(
    wall=(time.perf_counter() - wall) * 1000, cpu=(time.process_time() - cpu) * 1000,
    memory=resident() - memory, modules=len(sys.modules) - modules,
)))
"""


def measure(statement: str, cache: Path) -> dict[str, float]:
    code = MEASURED.format(statement=statement)
    run_fresh(cache, "-c", code)
    runs: list[Any] = [run_fresh(cache, "-c", code) for _ in range(REPEATS)]
    return {name: median([run[name] for run in runs]) for name in runs[0]}


def test_importing_every_operator_costs_less_than_importing_mlflow(tmp_path: Path) -> None:
    subjects = sorted(path.stem for path in (ROOT / "airflow_mcp" / "operators").glob("[a-z]*.py"))
    ours = measure("import " + ", ".join(f"airflow_mcp.operators.{subject}" for subject in subjects), tmp_path)
    peer = measure("import mlflow; mlflow.MlflowClient", tmp_path)
    rows = [
        [
            name,
            f"{figures['wall']:.0f}",
            f"{figures['cpu']:.0f}",
            f"{figures['memory']:.1f}",
            f"{figures['modules']:.0f}",
        ]
        for name, figures in (("every `airflow_mcp.operators.*`", ours), ("`import mlflow`", peer))
    ]
    ratios = [f"{ours[name] / peer[name]:.3f}" for name in ("wall", "cpu", "memory", "modules")]
    head = ["imported after `airflow.sdk`", "wall ms", "CPU ms", "memory MiB", "modules"]
    print_table(f"Import, median of {REPEATS} fresh processes", head, [*rows, ["ours / peer", *ratios]])
    assert ours["modules"] >= len(subjects)
    assert ours["modules"] < peer["modules"]
