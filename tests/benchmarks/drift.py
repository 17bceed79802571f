"""One comparison in a process of its own: ``python -m tests.benchmarks.drift SIDE ARGUMENT…``.

Prints, as JSON: seconds and CPU seconds from the first import on, MiB at the peak, and the verdict of each column.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Collection, Iterator  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

COLUMNS = {"numeric": 20, "categorical": 5}
CHUNK = 500_000
LETTERS = list("abcdefgh")


def make(folder: Path, rows: int, numeric: int, categorical: int) -> None:
    """Write two datasets; every third column of numbers and every second of categories drifts."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, seed, moved in (("reference", 1, 0.0), ("current", 2, 0.3)):
        random, writer = np.random.default_rng(seed), None
        for start in range(0, rows, CHUNK):
            size = min(CHUNK, rows - start)
            columns: dict[str, Any] = {}
            for number in range(numeric):
                shift = moved * (number % 3 == 0)
                draw = random.normal(shift, 1, size) if number % 4 else random.gamma(2, 1, size) * (1 + shift)
                columns[f"n{number}"] = draw
            for number in range(categorical):
                weights = np.arange(8, 0, -1) + 3 * moved * 10 * (number % 2) * (np.arange(8) == 7)
                codes = random.choice(8, size, p=weights / weights.sum())
                columns[f"c{number}"] = pa.DictionaryArray.from_arrays(codes.astype(np.int8), LETTERS).cast(pa.string())
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
            writer.write_table(table, row_group_size=CHUNK)
        if writer:
            writer.close()
    print("{}")


def ours(precision: str, reference: str, current: str) -> dict[str, Any]:
    """Compare as ``airflow-mcp drift compare`` does."""
    from airflow_mcp.core.drift.policy import ComparisonPolicy
    from airflow_mcp.work.drift.dataset_comparison import compare_datasets
    from airflow_mcp.work.drift.profiles import read_side

    policy = ComparisonPolicy.model_validate({"precision": precision})
    result = compare_datasets(read_side(reference), read_side(current), policy).result
    return {"drifted": {column.column: column.drifted for column in result.columns}, "rows": result.current_rows}


def profile(path: str, output: str) -> dict[str, Any]:
    """Profile as ``airflow-mcp drift profile`` does."""
    from airflow_mcp.core.data.pin import DatasetPin
    from airflow_mcp.core.drift.profile import write_profile
    from airflow_mcp.work.drift.profiles import profile_dataset

    text = write_profile(profile_dataset([DatasetPin(uri=path)]))
    Path(output).write_text(text, encoding="utf-8")
    return {"bytes": len(text.encode())}


def on_engine(engine: str, reference: str, current: str) -> dict[str, Any]:
    """Compare as the drift check with ``engine`` does, on a cluster of two workers that is started and stopped here."""
    from airflow_mcp.core.drift.policy import ComparisonPolicy
    from airflow_mcp.work.drift.dataset_comparison import compare_datasets
    from airflow_mcp.work.drift.partitions import sides_on_engine
    from airflow_mcp.work.drift.profiles import read_side

    policy = ComparisonPolicy()
    with ExitStack() as kept:
        address = "local[2]"
        if engine == "dask":
            from distributed import LocalCluster

            started = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            address = kept.enter_context(started).scheduler_address
        started_at = time.perf_counter()
        sides = sides_on_engine((read_side(reference), read_side(current)), policy, engine, address)  # type: ignore[arg-type]
        result = compare_datasets(*sides, policy).result
        inside = time.perf_counter() - started_at
    if engine == "spark":
        from pyspark import SparkContext

        process = SparkContext._gateway.proc  # type: ignore[union-attr]
        process.stdin.close()  # the JVM ends; only then is its CPU known
        process.wait(60)
    return {"drifted": {column.column: column.drifted for column in result.columns}, "inside": inside}


def duckdb(path: str) -> dict[str, Any]:
    """Summarize as DuckDB does."""
    import duckdb

    return {"columns": len(duckdb.sql(f"SUMMARIZE FROM read_parquet('{path}')").fetchall())}


def polars(path: str) -> dict[str, Any]:
    """Describe as Polars does."""
    import polars

    return {"columns": polars.read_parquet(path).describe().width - 1}


def evidently(reference: str, current: str) -> dict[str, Any]:
    """Compare with Evidently's preset and its defaults; the report is computed but not rendered."""
    import warnings

    warnings.simplefilter("ignore")
    import pandas as pd
    from evidently import Dataset, Report
    from evidently.legacy.tests.base_test import TestStatus
    from evidently.presets import DataDriftPreset

    data = [Dataset.from_pandas(pd.read_parquet(path)) for path in (current, reference)]
    snapshot = Report([DataDriftPreset()], include_tests=True).run(*data)
    found = {}
    for result in snapshot.metric_results.values():
        location = result.metric_value_location
        parameters = location.metric.params if location else {}
        if "column" in parameters:
            found[parameters["column"]] = result.tests[0].status == TestStatus.FAIL
    return {"drifted": found}


class Generated:
    """Data of any size that exists only batch by batch."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self.rows, self.columns, self.seed = rows, [f"n{number}" for number in range(columns)], seed
        self.pins = ()
        self.is_columnar = False

    def reading(self, **_: Collection[str]) -> Generated:
        return self

    def batches(self, columns: Collection[str] | None = None) -> Iterator[Any]:
        import numpy as np
        import pyarrow as pa

        from airflow_mcp.work.reading.batch_readers import batch_rows

        random, size = np.random.default_rng(self.seed), batch_rows(len(self.columns))
        shift = 0.3 * (np.arange(len(self.columns)) % 3 == 0) * (self.seed > 1)
        for start in range(0, self.rows, size):
            rows = min(size, self.rows - start)
            values = random.standard_normal((len(self.columns), rows)) + shift[:, None]
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in values], names=self.columns)


def generated(rows: str, columns: str, reference: str) -> dict[str, Any]:
    """Compare generated data with a stored profile of generated data; the first call makes the profile."""
    from airflow_mcp.core.drift.policy import ComparisonPolicy
    from airflow_mcp.core.drift.profile import read_profile, write_profile
    from airflow_mcp.work.drift import dataset_comparison
    from airflow_mcp.work.drift.column_reading import ProfileOptions, read_data
    from airflow_mcp.work.drift.profiles import small_profile

    stored = Path(reference)
    if not stored.exists():
        read = read_data(Generated(min(int(rows), 200_000), int(columns), 1), ProfileOptions())
        stored.write_text(write_profile(small_profile(read)), encoding="utf-8")
        return {}
    read = read_data(Generated(int(rows), int(columns), 2), ProfileOptions())
    current = small_profile(read)
    result = dataset_comparison.compare_datasets(
        read_profile(stored.read_bytes(), reference), current, ComparisonPolicy()
    ).result
    return {"drifted": {column.column: column.drifted for column in result.columns}, "rows": result.current_rows}


SIDES: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": ours,
    "profile": profile,
    "on_engine": on_engine,
    "duckdb": duckdb,
    "polars": polars,
    "evidently": evidently,
    "generated": generated,
}


def main(side: str, *arguments: str) -> None:
    if side == "make":
        make(Path(arguments[0]), *map(int, arguments[1:]))
        return
    found = SIDES[side](*arguments)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found |= {
        "wall": time.perf_counter() - STARTED,
        "cpu": time.process_time() + children.ru_utime + children.ru_stime,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
