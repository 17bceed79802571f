"""A part of the benchmark of evaluations, run in a process of its own so that its peak memory is its own.

``make FOLDER ROWS COLUMNS`` writes data and logs two models; ``run FOLDER batches|whole`` evaluates them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mcp.work.measures import significance
from airflow_mcp.work.reading import dataset_rows
from airflow_mcp.work.steps.evaluate import evaluate

PART_ROWS = 1_000_000
"""Rows of a row group, and rows that are made at a time."""


def make(folder: Path, rows: int, columns: int) -> dict[str, Any]:
    """Write the data and log candidate and champion, two logistic regressions."""
    from sklearn.linear_model import LogisticRegression

    names = [f"x{number}" for number in range(columns - 2)]
    random = np.random.default_rng(0)
    weights = random.normal(size=len(names)) / np.sqrt(len(names))
    writer = None
    for start in range(0, rows, PART_ROWS):
        size = min(PART_ROWS, rows - start)
        features = random.normal(size=(size, len(names)))
        label = (random.random(size) < 1 / (1 + np.exp(-3 * features @ weights))).astype(np.int64)
        region = np.array(["north", "south", "east", "west"])[random.integers(0, 4, size)]
        part = pa.table({**dict(zip(names, features.T, strict=True)), "region": region, "label": label})
        writer = writer or pq.ParquetWriter(folder / "data.parquet", part.schema)
        writer.write_table(part)
        if start == 0:
            first = part.slice(0, 20_000).to_pandas()
    writer.close()
    logged = []
    for used in (names, names[: len(names) // 2]):
        model = LogisticRegression().fit(first[used], first["label"])
        with mlflow.start_run() as run:
            signature = mlflow.models.infer_signature(first[used], model.predict(first[used]))
            info = mlflow.sklearn.log_model(
                model, name="model", signature=signature, serialization_format="cloudpickle", pip_requirements=[]
            )
        logged.append({"model_uri": f"models:/{info.model_id}", "run_id": run.info.run_id})
    request = {
        "identity": "benchmark",
        "run_id": logged[0]["run_id"],
        "candidate": logged[0],
        "champion": logged[1],
        "dataset": {"uri": str(folder / "data.parquet")},
        "target": "label",
        "model_type": "classifier",
        "slices": ["region"],
        "comparisons": [{"metric": "accuracy"}, {"metric": "roc_auc"}],
    }
    (folder / "request.json").write_text(json.dumps(request))
    return {"megabytes": (folder / "data.parquet").stat().st_size / 1e6}


def run(folder: Path, how: str) -> dict[str, Any]:
    """Evaluate; ``whole`` reads and predicts all rows as one batch.

    Bootstrapped intervals are left out unless ``EVALUATION_RESAMPLES`` says how many resamples they take: they cost the
    same either way, and most of the time of an evaluation.
    """
    significance.SLICE_RESAMPLES = int(os.environ.get("EVALUATION_RESAMPLES", "0"))
    if not significance.SLICE_RESAMPLES:
        significance._bootstrapped = lambda model, metric: None
    if how == "whole":
        dataset_rows.batch_rows = lambda columns: sys.maxsize
    before = time.process_time()
    started = time.perf_counter()
    evidence = evaluate({**os.environ, "AIRFLOW_MCP_REQUEST_PATH": str(folder / "request.json")})
    metrics = {name: value for name, value in evidence.candidate.metrics.items() if not name.startswith("latency")}
    return {
        "wall": time.perf_counter() - started,
        "cpu": time.process_time() - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": evidence.rows,
        "metrics": metrics,
        "comparisons": [[each.difference, each.low, each.high] for each in evidence.comparisons],
    }


if __name__ == "__main__":
    place = Path(sys.argv[2])
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
    if sys.argv[1] == "make":
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment("models", artifact_location=f"file://{place}/files")
        )
        print(json.dumps(make(place, int(sys.argv[3]), int(sys.argv[4]))))
    else:
        print(json.dumps(run(place, sys.argv[3])))
