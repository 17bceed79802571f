"""The known metrics: their names, and whether higher or lower is better."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from airflow_mcp.core.argument import nearest
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

_NEAR = 0.85
"""Similarity from which a name of nearly the same length is a typo: ``acuracy`` and ``accuarcy``, not ``latency``."""
_SHORTEST_TYPO = 6
"""Letters of the shortest name that can be a typo: ``mse`` and ``mape`` are metrics of their own."""


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
    raise InvalidArgumentError(
        f"it is not known whether higher or lower values of {name!r} are better. {nearest(name, KNOWN_METRICS)}"
    )


def check_spelling(name: str) -> str:
    """Check that a metric is not a misspelled known one, and return its name in MLflow.

    A metric of your own may have any other name. Short names such as ``mse`` and names that differ in digits, such as
    ``latency_ms_p75``, are too likely to be meant as written, so only their case and underscores are checked.

    :param name: name as it is written.
    :raises InvalidArgumentError: when the name is nearly that of a known metric.
    """
    metric = metric_name(name)
    known = {_bare(measured): written for written, (measured, _) in KNOWN_METRICS.items()}
    if any(metric == measured for measured, _ in KNOWN_METRICS.values()):
        return metric
    wanted = _bare(name)
    near = [wanted] if wanted in known else [close for close in known if _is_typo(wanted, close)]
    if not near:
        return metric
    raise InvalidArgumentError(
        f"metric must be spelled as a known one or be clearly different; got {name!r}. Did you mean {known[near[0]]!r}?"
    )


def _is_typo(wanted: str, known: str) -> bool:
    is_similar = difflib.SequenceMatcher(None, wanted, known).ratio() >= _NEAR and abs(len(wanted) - len(known)) <= 1
    return is_similar and len(wanted) >= _SHORTEST_TYPO and _digits(wanted) == _digits(known)


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))
