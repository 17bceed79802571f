"""Thresholds of a pipeline file as rules of the gate."""

from __future__ import annotations

from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, parse_threshold
from airflow_mcp.core.metrics import metric_direction, metric_name
from airflow_mcp.exceptions import InvalidArgumentError

_SHARES = ("accuracy", "precision", "recall", "f1", "roc_auc")
"""Metrics that lie between 0 and 1."""


def why_unreachable(rule: MetricThreshold) -> str:
    """Return why no model can ever meet a rule; an empty text when one can.

    :param rule: a rule of the gate.
    """
    if rule.metric not in _SHARES or rule.against_champion:
        return ""
    lowest, highest = (rule.threshold, 1) if rule.comparison in (">=", ">") else (0, rule.threshold)
    is_strict = rule.comparison in (">", "<")
    if lowest < highest or (lowest == highest and not is_strict):
        return ""
    percent = f". For {rule.threshold:g} % write {rule.threshold / 100:g}" if 1 < rule.threshold <= 100 else ""
    return f"no model can reach {rule}, because {rule.metric} is between 0 and 1{percent}"


def threshold_rule(name: str, bound: float | str) -> MetricThreshold:
    """Return the gate's rule for one entry of ``metricsThreshold``.

    :param name: the metric.
    :param bound: a number, which is a lower or an upper bound by the metric's better direction; or a comparison with a
        number: ``>= 0.92``.
    :raises InvalidArgumentError: when an unknown metric has a bare number, or the bound cannot be read.
    """
    if isinstance(bound, str):
        return parse_threshold(f"{metric_name(name)} {bound}")
    try:
        comparison = ">=" if metric_direction(name) == "maximize" else "<="
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f'{error}. Write ">= {bound:g}" or "<= {bound:g}"') from None
    return parse_threshold(f"{metric_name(name)} {comparison} {float(bound)!r}")
