"""Rendering pipeline files next to dag-factory and to Dags written by hand; and a stub in the Dag processor."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fresh import median, print_table, run_fresh
from tests.benchmarks.rendering import PIPELINE

pytestmark = pytest.mark.benchmark

REPEATS, COUNT = 3, 1000
HEAD = ["way", "wall s", "CPU s", "CPU ms per Dag", "memory MiB"]
STUB = """
import gc, json, os, sys, time
import airflow.dag_processing.dagbag, airflow.dag_processing.processor
{imports}
gc.freeze()  # as Airflow's Dag processor does before it forks
times = []
for _ in range(7):
    read, write = os.pipe()
    if os.fork() == 0:
        wall, cpu = time.perf_counter(), time.process_time()
        exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), {{"__file__": sys.argv[1]}})
        spent = dict(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        os.write(write, json.dumps(spent).encode())
        os._exit(0)
    os.wait()
    times.append(json.loads(os.read(read, 1000)))
print(json.dumps(times))
"""


def measure(way: str, count: int, tmp_path: Path, repeats: int = REPEATS) -> dict[str, Any]:
    """Return the medians of one way, measured in fresh processes."""
    runs: list[Any] = []
    for number in range(repeats):
        folder = tmp_path / f"{way.replace(' ', '-')}-{count}-{number}"
        runs.append(run_fresh(tmp_path / "cache", "-m", "tests.benchmarks.rendering", way, str(folder), str(count)))
    figures = {name: median([run[name] for run in runs]) for name in ("wall", "cpu", "memory")}
    again = [run["again"]["wall"] for run in runs if "again" in run]
    return {**figures, "again": median(again) if again else None, "heavy": runs[0].get("heavy")}


def row(name: str, figures: dict[str, Any], count: int) -> list[str]:
    per_dag = figures["cpu"] / count * 1000
    return [name, f"{figures['wall']:.2f}", f"{figures['cpu']:.2f}", f"{per_dag:.2f}", f"{figures['memory']:.0f}"]


def test_a_thousand_pipeline_files_next_to_the_peers(tmp_path: Path) -> None:
    measure("ours", 1, tmp_path, 1)  # compiles the byte code
    ours, floor = measure("ours", COUNT, tmp_path), measure("by hand", COUNT, tmp_path)
    rows = [row("ours: read, check, plan, render", ours, COUNT), row("by hand, no file, no check", floor, COUNT)]
    rows.append(["ours / by hand", f"{ours['wall'] / floor['wall']:.2f}", f"{ours['cpu'] / floor['cpu']:.2f}", "", ""])
    if find_spec("dagfactory") is not None:
        peer = measure("dag-factory", COUNT, tmp_path)
        rows.append(row("dag-factory", peer, COUNT))
        rows.append(
            ["dag-factory / ours", f"{peer['wall'] / ours['wall']:.2f}", f"{peer['cpu'] / ours['cpu']:.2f}", "", ""]
        )
    else:
        print("\ndag-factory is not installed; `pip install airflow-mcp[benchmark]` adds it to the table")
    print_table(f"{COUNT} pipelines of 8 tasks, median of {REPEATS} fresh processes", HEAD, rows)
    print(f"\nunchanged files read and checked again: {ours['again']:.2f} s")
    assert ours["heavy"] == []


def test_growth_from_ten_to_a_thousand(tmp_path: Path) -> None:
    measure("ours", 1, tmp_path, 1)
    rows = [row(str(count), measure("ours", count, tmp_path), count) for count in (10, 100, COUNT)]
    print_table("Growth", ["pipelines", *HEAD[1:]], rows)
    assert len(rows) == 3


@pytest.mark.parametrize("with_lines", [True, False], ids=["imports-in-the-stub", "without"])
def test_what_a_stub_costs_a_child_of_the_dag_processor(tmp_path: Path, with_lines: bool) -> None:
    from airflow_mcp.dag_rendering.loader import load_pipeline_folder
    from airflow_mcp.dag_rendering.stubs import PRE_IMPORTS, write_stubs

    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/fraud.yaml").write_text(PIPELINE.format(number=1))
    (stub,) = write_stubs(load_pipeline_folder(tmp_path / "pipelines"), tmp_path / "pipelines", tmp_path).written
    code = STUB.format(imports="\n".join(f"import {name}" for name in PRE_IMPORTS if with_lines))
    run_fresh(tmp_path / "cache", "-c", code, str(stub.path))
    times: list[Any] = run_fresh(tmp_path / "cache", "-c", code, str(stub.path))
    figures = [f"{median([each[name] for each in times]) * 1000:.0f}" for name in ("wall", "cpu")]
    print_table(
        "One stub in a forked child, median of 7", ["lines", "wall ms", "CPU ms"], [[str(with_lines), *figures]]
    )
    assert len(times) == 7
