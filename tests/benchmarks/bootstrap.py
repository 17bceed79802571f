"""One bootstrap in a process of its own: ``python -m tests.benchmarks.bootstrap SIDE METRIC ROWS RESAMPLES``.

Prints seconds, CPU seconds, MiB that the process grew by at its peak, and the interval, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import scipy.stats
from sklearn.metrics import roc_auc_score

from airflow_mcp.core.evaluation.evidence import ComparisonRequest
from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.significance import paired_bootstrap

BATCH = 20
"""Resamples that scipy holds in memory at a time; all of them at once would need 7 GiB."""


def two_models(rows: int) -> tuple[ScoredModel, ScoredModel]:
    """Make two classifiers with similar scores, as two versions of a model have."""
    random = np.random.default_rng(0)
    true = random.integers(0, 2, rows)
    base = random.normal(size=rows) + 1.4 * true - 0.7
    nothing: Any = None
    made = []
    for noise in (0.5, 0.55):
        scores = 1 / (1 + np.exp(-base - noise * random.normal(size=rows)))
        probabilities = np.stack([1 - scores, scores], axis=1)
        made.append(
            ScoredModel(nothing, None, true, (scores > 0.5).astype(np.int64), Classes((0, 1), 1), probabilities)
        )
    return made[0], made[1]


def ours(metric: str, models: tuple[ScoredModel, ScoredModel], resamples: int) -> tuple[float | None, float | None]:
    found = paired_bootstrap(models, ComparisonRequest(metric=metric, method="bootstrap", resamples=resamples))
    return found.low, found.high


def scipys(metric: str, models: tuple[ScoredModel, ScoredModel], resamples: int) -> tuple[float, float]:
    settings: dict[str, Any] = {"n_resamples": resamples, "method": "percentile", "rng": 0}
    candidate, champion = models
    true = candidate.true
    if metric == "accuracy":
        gained = (candidate.predicted == true).astype(float) - (champion.predicted == true)
        found = scipy.stats.bootstrap((gained,), np.mean, batch=BATCH, **settings)
    else:
        first, second = (model.probabilities[:, 1] for model in models)  # type: ignore[index]

        def difference(*drawn: Any) -> float:
            return float(roc_auc_score(drawn[0], drawn[1]) - roc_auc_score(drawn[0], drawn[2]))

        columns = (true, first, second)
        found = scipy.stats.bootstrap(columns, difference, paired=True, vectorized=False, **settings)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(side: str, metric: str, rows: int, resamples: int) -> None:
    models = two_models(rows)
    compute = {"ours": ours, "scipy": scipys}[side]
    before = peak()
    compute(metric, models, 100)  # warm up: imports on first use
    wall, cpu = time.perf_counter(), time.process_time()
    interval = compute(metric, models, resamples)
    figures = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "grown": peak() - before,
        "peak": peak(),
        "interval": interval,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
