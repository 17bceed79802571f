"""The known metrics: their names, and whether higher or lower is better."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from airflow_mcp.exceptions import InvalidArgumentError

Direction = Literal["maximize", "minimize"]

KNOWN_METRICS: Mapping[str, tuple[str, Direction]] = {
    "accuracy": ("accuracy", "maximize"),
    "precision": ("precision", "maximize"),
    "recall": ("recall", "maximize"),
    "f1": ("f1", "maximize"),
    "rocAuc": ("roc_auc", "maximize"),
    "r2": ("r2", "maximize"),
    "logLoss": ("log_loss", "minimize"),
    "brier": ("brier", "minimize"),
    "ece": ("ece", "minimize"),
    "latencyMs": ("latency_ms", "minimize"),
    "latencyMsP50": ("latency_ms_p50", "minimize"),
    "latencyMsP90": ("latency_ms_p90", "minimize"),
    "latencyMsP95": ("latency_ms_p95", "minimize"),
    "latencyMsP99": ("latency_ms_p99", "minimize"),
    "latencyMsMean": ("latency_ms_mean", "minimize"),
    "latencyMsMax": ("latency_ms_max", "minimize"),
    "rmse": ("rmse", "minimize"),
    "mae": ("mae", "minimize"),
}
"""The name in MLflow and the better direction of each metric, by its name in a pipeline file."""


def metric_name(name: str) -> str:
    """Return the name of a metric in MLflow.

    :param name: name in a pipeline file: camelCase for known metrics; any other name is used as it is.
    """
    return KNOWN_METRICS[name][0] if name in KNOWN_METRICS else name


def metric_direction(name: str) -> Direction:
    """Return whether higher or lower is better.

    :param name: name of the metric in the pipeline file or in MLflow.
    :raises InvalidArgumentError: when the metric is not known.
    """
    for written, (metric, direction) in KNOWN_METRICS.items():
        if name in (written, metric):
            return direction
    close = difflib.get_close_matches(name, KNOWN_METRICS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InvalidArgumentError(
        f"whether more or less of {name!r} is better is not known; {hint}known metrics: {', '.join(KNOWN_METRICS)}"
    )
