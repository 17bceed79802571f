"""Profiles next to DuckDB and Polars, and drift on Spark and Dask next to one process and Evidently on pandas."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fresh import print_table, run_fresh
from tests.benchmarks.test_drift import HEAD, made, row, run
from tests.support.engines import java

pytestmark = pytest.mark.benchmark

ROWS, COLUMNS = "AIRFLOW_MCP_TEST_ENGINE_ROWS", "AIRFLOW_MCP_TEST_ENGINE_COLUMNS"
"""Size of the data for drift on engines; the full size, 10 million rows of 100 columns, takes 14 GB of disk."""
DATA = "AIRFLOW_MCP_TEST_ENGINE_DATA"
"""Folder that keeps these data for the next run; they take minutes to make."""
EVIDENTLY_SECONDS = 1200


def test_a_profile_next_to_duckdb_and_polars(tmp_path: Path) -> None:
    reference, _ = made(tmp_path, int(os.environ.get("AIRFLOW_MCP_TEST_PROFILE_ROWS", "1000000")), 20, 5)
    cache = tmp_path / "cache"
    sides = {
        "ours, profile": ("profile", reference, f"{tmp_path}/profile.json"),
        "DuckDB, SUMMARIZE": ("duckdb", reference),
        "Polars, describe": ("polars", reference),
    }
    for side in sides.values():
        run(cache, *side)  # compiles byte code, and the file is in the page cache
    measured = {name: min((run(cache, *side) for _ in range(3)), key=_cpu) for name, side in sides.items()}
    print_table("a profile of 20 numeric and 5 categorical columns", HEAD, [row(*item) for item in measured.items()])
    ours = measured["ours, profile"]["cpu"]
    for name in ("DuckDB, SUMMARIZE", "Polars, describe"):
        print(f"\nCPU of ours / CPU of {name}: {ours / measured[name]['cpu']:.2f}")
        assert measured[name]["columns"] == 25


def test_drift_on_two_workers_next_to_one_process_and_evidently(tmp_path: Path) -> None:
    rows, columns = int(os.environ.get(ROWS, "10000000")), int(os.environ.get(COLUMNS, "100"))
    categorical = columns // 5
    folder = Path(os.environ.get(DATA, tmp_path))
    files = (f"{folder}/reference.parquet", f"{folder}/current.parquet")
    if not all(Path(file).exists() for file in files):
        made(folder, rows, columns - categorical, categorical)
    cache, small = tmp_path / "cache", tmp_path / "small"
    small.mkdir()
    run(cache, "ours", "profile", *made(small, 1_000, columns - categorical, categorical))  # compiles byte code
    measured = {"ours, one process": run(cache, "ours", "profile", *files)}
    measured["ours, Dask, two workers"] = run(cache, "on_engine", "dask", *files)
    if java():
        measured["ours, Spark, two workers"] = run(cache, "on_engine", "spark", *files)
    verdicts = [found["drifted"] for found in measured.values()]
    table = [row(*item) for item in measured.items()]
    table.append(_evidently(cache, files))
    print_table(f"{rows:,} rows of {columns} columns on both sides", HEAD, table)
    for name in list(measured)[1:]:
        print(f"\n{name}: {measured[name]['inside']:.1f} s without the start of the cluster")
    assert all(found == verdicts[0] for found in verdicts)
    assert any(verdicts[0].values())


def _cpu(found: dict[str, Any]) -> float:
    return float(found["cpu"])


def _evidently(cache: Path, files: tuple[str, str]) -> list[str]:
    try:
        found = run_fresh(cache, "-m", "tests.benchmarks.drift", "evidently", *files, timeout=EVIDENTLY_SECONDS)
    except subprocess.TimeoutExpired:
        return ["Evidently on pandas", f"stopped after {EVIDENTLY_SECONDS}", "", ""]
    except subprocess.CalledProcessError as error:
        return ["Evidently on pandas", f"ended with {error.returncode}: out of memory", "", ""]
    return row("Evidently on pandas", found)
