"""One estimate of quality without labels in a process of its own: ``python tests/benchmarks/estimates.py SIDE FOLDER``.

The side ``nannyml`` runs in an environment that has NannyML and not this package, so it imports nothing from here.
Prints, as JSON: the estimated metrics, seconds and CPU seconds from the first import on, and MiB at the peak.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc")
ROWS = {"reference": 50_000, "current": 200_000}


def make(folder: Path) -> dict[str, float]:
    """Write two datasets of a calibrated classifier, and return what the labels of the current one show.

    In the current data the mix of cases has changed; how cases and labels belong together has not.
    """
    import numpy as np
    import pandas as pd
    from sklearn import metrics

    for name, seed, shape in (("reference", 1, (2.0, 5.0)), ("current", 2, (2.0, 3.5))):
        draw = np.random.default_rng(seed)
        probability = draw.beta(*shape, ROWS[name])
        label = (draw.random(ROWS[name]) < probability).astype(int)
        answer = (probability >= 0.5).astype(int)
        pd.DataFrame({"probability": probability, "prediction": answer, "label": label}).to_parquet(
            folder / f"{name}.parquet"
        )
    measured = {
        "accuracy": metrics.accuracy_score(label, answer),
        "precision": metrics.precision_score(label, answer),
        "recall": metrics.recall_score(label, answer),
        "f1": metrics.f1_score(label, answer),
        "roc_auc": metrics.roc_auc_score(label, probability),
    }
    return {name: float(value) for name, value in measured.items()}


def ours(folder: Path) -> dict[str, float]:
    """Estimate as the quality check does; the labels are not read."""
    import pandas as pd

    from airflow_mcp.work.quality.performance_estimate import estimate_metrics

    read = pd.read_parquet(folder / "current.parquet", columns=["probability", "prediction"])
    return estimate_metrics(read["probability"].to_numpy(), read["prediction"].to_numpy() == 1)


def nannyml(folder: Path) -> dict[str, float]:
    """Estimate by NannyML's CBPE, fitted on the labelled reference; the current data are one chunk."""
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # NannyML reports its use to its makers
    import nannyml as nml
    import pandas as pd

    estimator = nml.CBPE(
        metrics=list(METRICS),
        y_pred="prediction",
        y_pred_proba="probability",
        y_true="label",
        problem_type="classification_binary",
        chunk_size=ROWS["current"],
    )
    estimator.fit(pd.read_parquet(folder / "reference.parquet"))
    current = pd.read_parquet(folder / "current.parquet", columns=["probability", "prediction"])
    found = estimator.estimate(current).filter(period="analysis").to_df()
    return {name: float(found[name, "value"].iloc[0]) for name in METRICS}


SIDES: dict[str, Callable[[Path], dict[str, float]]] = {"make": make, "ours": ours, "nannyml": nannyml}


def main(side: str, folder: str) -> None:
    """Run one side and print what it found."""
    found = SIDES[side](Path(folder))
    measured = {
        "estimated": found,
        "wall": time.perf_counter() - STARTED,
        "cpu": time.process_time(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
