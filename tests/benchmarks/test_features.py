"""A million rows of features from a real Feast store with its local provider, read and compared, and Feast alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.features import SKEWED, STALE
from tests.benchmarks.fresh import print_table, run_fresh
from tests.support.feast_repository import is_installed

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not is_installed(), reason="Feast is missing: pip install 'airflow-mcp[feast]'"),
]
ROWS = 1_000_000
SAMPLES = (10_000, 100_000, ROWS)
"""Keys that a skew check draws; the first number is the default of its policy."""


def test_a_million_rows_are_read_and_compared(tmp_path: Path) -> None:
    def run(*arguments: object) -> dict[str, Any]:
        program = ("-m", "tests.benchmarks.features", *map(str, arguments))
        found: dict[str, Any] = run_fresh(tmp_path / "cache", *program, timeout=3600)
        return found

    run("make", tmp_path, ROWS)
    run("compare", tmp_path, 10)  # compiles byte code
    measured = {f"features of {ROWS:,} entity rows": run("get", tmp_path)}
    measured |= {f"skew check of {keys:,} keys of {ROWS:,}": run("compare", tmp_path, keys) for keys in SAMPLES}
    measured["Feast alone: both reads of every key, compared with nothing"] = alone = run("feast", tmp_path)
    rows = [
        [name, f"{found['wall']:.0f}", f"{found['cpu']:.0f}", f"{found['peak']:.0f}"]
        for name, found in measured.items()
    ]
    print_table("Feast's local provider, two features", ["", "wall s", "CPU s", "peak MiB"], rows)
    read, *compared, _ = measured.values()
    assert (read["rows"], read["missing"]) == (ROWS, 0)
    assert (alone["keys"], alone["rows"]) == (ROWS, ROWS)
    for keys, found in zip(SAMPLES, compared, strict=True):
        assert (found["keys"], found["missing"]) == (keys, 0)
        assert found["equal"] + found["stale"] + found["skewed"] == keys
        assert found["stale"] / keys == pytest.approx(STALE / ROWS, rel=0.2)
        assert found["skewed"] / keys == pytest.approx(SKEWED / ROWS, rel=0.9)
