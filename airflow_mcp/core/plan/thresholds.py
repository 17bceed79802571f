"""The gate's rules from what the file says about metrics."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from airflow_mcp.core.thresholds import MetricThreshold, parse_threshold
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
    "latencyMs": ("latency_ms", "minimize"),
    "rmse": ("rmse", "minimize"),
    "mae": ("mae", "minimize"),
}
"""Name in the file to the metric's name in MLflow and its better direction."""
_SHARES = ("accuracy", "precision", "recall", "f1", "roc_auc")
"""Metrics that lie between 0 and 1."""


def metric_name(name: str) -> str:
    """Give the name in MLflow of a metric as the file writes it.

    :param name: known metrics may be written in camelCase; any other name is taken as it is.
    """
    return KNOWN_METRICS[name][0] if name in KNOWN_METRICS else name


def metric_direction(name: str) -> Direction:
    """Say whether more or less of a metric is better.

    :param name: the metric as the file or MLflow writes it.
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


def why_unreachable(rule: MetricThreshold) -> str:
    """Say why no model can ever keep a rule; an empty text when one could.

    :param rule: a rule of the gate.
    """
    if rule.metric not in _SHARES or rule.against_champion:
        return ""
    lowest, highest = (rule.threshold, 1) if rule.comparison in (">=", ">") else (0, rule.threshold)
    is_strict = rule.comparison in (">", "<")
    if lowest < highest or (lowest == highest and not is_strict):
        return ""
    percent = f"; for {rule.threshold:g} % write {rule.threshold / 100:g}" if 1 < rule.threshold <= 100 else ""
    return f"no model reaches {rule}, because {rule.metric} lies between 0 and 1{percent}"


def threshold_rule(name: str, bound: float | str) -> str:
    """Write the gate's rule for one entry of ``metricsThreshold``.

    :param name: the metric.
    :param bound: a number, which known metrics must reach or not exceed; or a direction and a number: ``>= 0.92``.
    :return: a rule as :func:`~airflow_mcp.core.thresholds.parse_threshold` writes it.
    :raises InvalidArgumentError: for a number without a direction where the metric is not known, and for a bound
        that cannot be read.
    """
    if isinstance(bound, str):
        return str(parse_threshold(f"{metric_name(name)} {bound}"))
    try:
        comparison = ">=" if metric_direction(name) == "maximize" else "<="
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f'{error}. Write ">= {bound:g}" or "<= {bound:g}"') from None
    return str(parse_threshold(f"{metric_name(name)} {comparison} {float(bound)!r}"))
