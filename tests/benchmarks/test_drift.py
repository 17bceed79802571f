"""The drift check next to Evidently's ``DataDriftPreset``: time, memory and verdicts, each in a fresh process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.drift_plot import draw
from tests.benchmarks.fresh import print_table, run_fresh

pytestmark = pytest.mark.benchmark

HEAD = ["", "wall s", "CPU s", "peak MiB"]
LONG = "AIRFLOW_MCP_TEST_LONG"
"""Set to 1 for measurements that take many minutes: 10 million rows, and 3 million rows of 1,000 columns."""


def run(cache: Path, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = run_fresh(cache, "-m", "tests.benchmarks.drift", *map(str, arguments), timeout=3600)
    return found


def row(name: str, found: dict[str, Any]) -> list[str]:
    return [name, f"{found['wall']:.1f}", f"{found['cpu']:.1f}", f"{found['peak']:.0f}"]


def made(tmp_path: Path, rows: int, numeric: int, categorical: int) -> tuple[str, str]:
    run(tmp_path / "cache", "make", tmp_path, rows, numeric, categorical)
    return f"{tmp_path}/reference.parquet", f"{tmp_path}/current.parquet"


def test_a_million_rows_next_to_evidently(tmp_path: Path) -> None:
    reference, current = made(tmp_path, 1_000_000, 20, 5)
    cache, stored = tmp_path / "cache", f"{tmp_path}/reference.json"
    run(cache, "ours", "profile", reference, reference)  # compiles byte code
    measured = {
        "Evidently, DataDriftPreset": run(cache, "evidently", reference, current),
        "ours, profile": run(cache, "ours", "profile", reference, current),
        "ours, exact": run(cache, "ours", "exact", reference, current),
        "ours, profile of one dataset": run(cache, "profile", reference, stored),
        "ours, data against a stored profile": run(cache, "ours", "profile", stored, current),
    }
    print_table("1,000,000 rows, 20 numeric and 5 categorical columns", HEAD, [row(*item) for item in measured.items()])
    theirs = measured["Evidently, DataDriftPreset"]
    ours = measured["ours, profile"]
    faster, memory = theirs["wall"] / ours["wall"], ours["peak"] / theirs["peak"]
    print(f"\nprofile: {faster:.0f} times as fast, {memory:.2f} of the memory")
    for name in ("ours, profile", "ours, exact", "ours, data against a stored profile"):
        assert measured[name]["drifted"] == theirs["drifted"], name
    assert any(theirs["drifted"].values())


def test_cost_against_rows(tmp_path: Path) -> None:
    sizes = [10_000, 100_000, 1_000_000, *([10_000_000] if os.environ.get(LONG) else [])]
    measured: dict[str, list[tuple[int, dict[str, Any]]]] = {"ours, profile": [], "Evidently": []}
    for rows in sizes:
        folder = tmp_path / str(rows)
        folder.mkdir()
        files = made(folder, rows, 8, 2)
        measured["ours, profile"].append((rows, run(tmp_path / "cache", "ours", "profile", *files)))
        if rows <= 1_000_000:
            measured["Evidently"].append((rows, run(tmp_path / "cache", "evidently", *files)))
        for file in files:
            Path(file).unlink()
    rows_of_table = [row(f"{name}, {rows:,} rows", found) for name in measured for rows, found in measured[name]]
    print_table("8 numeric and 2 categorical columns", HEAD, rows_of_table)
    picture = Path(os.environ.get("AIRFLOW_MCP_TEST_PLOTS", tmp_path)) / "drift-cost.svg"
    picture.write_text(draw(series(measured)), encoding="utf-8")
    print(f"\ndrawn: {picture}")
    assert all(len(found) >= 3 for found in measured.values())


def series(
    measured: dict[str, list[tuple[int, dict[str, Any]]]],
) -> dict[str, dict[str, Sequence[tuple[float, float]]]]:
    return {
        title: {name: [(rows, found[key]) for rows, found in found_of] for name, found_of in measured.items()}
        for title, key in (("CPU seconds", "cpu"), ("MiB of memory", "peak"))
    }


def test_a_thousand_columns(tmp_path: Path) -> None:
    files = made(tmp_path, 100_000, 1000, 0)
    rows = [
        row(f"ours, {precision}", run(tmp_path / "cache", "ours", precision, *files))
        for precision in ("profile", "exact")
    ]
    (tmp_path / "narrow").mkdir()
    narrow = made(tmp_path / "narrow", 100_000, 100, 0)
    rows.append(row("ours, profile, 100 columns", run(tmp_path / "cache", "ours", "profile", *narrow)))
    rows.append(row("Evidently, 100 columns", run(tmp_path / "cache", "evidently", *narrow)))
    print_table("100,000 rows, 1,000 numeric columns", HEAD, rows)
    assert len(rows) == 4


@pytest.mark.skipif(not os.environ.get(LONG), reason=f"takes minutes; set {LONG}=1")
def test_three_million_rows_of_a_thousand_columns(tmp_path: Path) -> None:
    stored = tmp_path / "reference.json"
    run(tmp_path / "cache", "generated", 200_000, 1000, stored)
    found = run(tmp_path / "cache", "generated", 3_000_000, 1000, stored)
    print_table(
        "3,000,000 rows of 1,000 columns against a stored profile", HEAD, [row("ours, generating included", found)]
    )
    print(f"\nthe profile takes {stored.stat().st_size / 1024:.0f} KiB")
    assert found["rows"] == 3_000_000
    assert [name for name, drifted in found["drifted"].items() if drifted] == [f"n{n}" for n in range(0, 1000, 3)]
