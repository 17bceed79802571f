"""An evaluation of many rows, read in batches and whole: time, memory and the same metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fresh import print_table, run_fresh

pytestmark = pytest.mark.benchmark

ROWS = int(os.environ.get("EVALUATION_ROWS", "1000000"))
COLUMNS = int(os.environ.get("EVALUATION_COLUMNS", "20"))


def test_batches_next_to_the_whole(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def step(*arguments: object) -> dict[str, Any]:
        found: dict[str, Any] = run_fresh(
            cache, "-m", "tests.benchmarks.evaluation", *map(str, arguments), timeout=7200
        )
        return found

    size = step("make", tmp_path, ROWS, COLUMNS)["megabytes"]
    measured = {how: step("run", tmp_path, how) for how in ("batches", "whole")}
    rows = [[how, f"{each['wall']:.0f}", f"{each['cpu']:.0f}", f"{each['peak']:.0f}"] for how, each in measured.items()]
    print_table(
        f"{ROWS:,} rows of {COLUMNS} columns ({size:.0f} MB of Parquet), candidate and champion, four slices",
        ["evaluation", "wall s", "CPU s", "peak MiB"],
        rows,
    )
    batches, whole = measured["batches"], measured["whole"]
    memory, cpu = batches["peak"] / whole["peak"], batches["cpu"] / whole["cpu"]
    print(f"\nbatches: {memory:.2f} of the memory, {cpu:.2f} of the CPU")
    assert batches["rows"] == whole["rows"] == ROWS
    assert batches["metrics"] == pytest.approx(whole["metrics"])
    assert len(batches["comparisons"]) == len(whole["comparisons"]) == 2
    for ours, theirs in zip(batches["comparisons"], whole["comparisons"], strict=True):
        assert ours == pytest.approx(theirs)
