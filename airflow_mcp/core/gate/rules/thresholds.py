"""Metric thresholds, written as text: ``accuracy >= 0.92``, ``rmse <= champion * 1.05``.

Grammar::

    threshold := [mode ":"] metric operator bound
    mode      := "enforce" | "warn" | "dry_run"
    operator  := ">=" | ">" | "<=" | "<"
    bound     := number | "champion" [ "*" number ] [ ("+" | "-") number ]
               | "champion" ("+" | "-") number "%"

``champion * 1.05`` is plain arithmetic: of a negative champion it is a lower number. ``champion + 5%`` is a relative
change: 5 % of the champion's absolute value above it, whatever its sign. When the champion's value is 0, a percentage
of it has no meaning and the rule has no bound.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from airflow_mcp.core.gate.rules.verdicts import RuleMode
from airflow_mcp.core.metrics import check_spelling
from airflow_mcp.exceptions import InvalidArgumentError

ComparisonOperator = Literal[">=", ">", "<=", "<"]

_COMPARE: Mapping[ComparisonOperator, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_THRESHOLD = re.compile(
    rf"""\s*(?:(?P<mode>enforce|warn|dry_run)\s*:)?\s*(?P<metric>[A-Za-z_][\w./@]*)\s*(?P<comparison>>=|<=|>|<)\s*
    (?: (?P<number>[+-]?{_NUMBER})
      | (?P<champion>champion)\s*(?:\*\s*(?P<factor>{_NUMBER})\s*)?(?:(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?
      | (?P<relative>champion)\s*(?P<way>[+-])\s*(?P<percent>{_NUMBER})\s*% )\s*""",
    re.VERBOSE,
)
_GRAMMAR = (
    "Write '<metric> <operator> <number>', '<metric> <operator> champion [* number] [+|- number]' or "
    "'<metric> <operator> champion +|- <number>%' with operator >=, >, <= or <, for example 'accuracy >= 0.92', "
    "'rmse <= champion * 1.05', 'f1 >= champion - 0.01', 'r2 >= champion + 2%'; "
    "'warn:' or 'dry_run:' may precede it"
)


@dataclass(frozen=True)
class MetricThreshold:
    """One rule on one metric. Bounds are inclusive with ``>=`` and ``<=``: 0.92 passes ``accuracy >= 0.92``."""

    metric: str
    comparison: ComparisonOperator
    threshold: float
    """The bound; with ``against_champion`` it is added to the champion's value times ``factor``."""
    against_champion: bool = False
    factor: float = 1.0
    percent: float = 0.0
    """With ``against_champion``: this share of the champion's absolute value is added, in percent."""
    mode: RuleMode = "enforce"

    def bound(self, champion_value: float | None) -> float | None:
        """Compute the number to compare with.

        :param champion_value: the champion's value of the same metric; None when there is none.
        :return: the bound, or None when it needs a champion's value that is missing, is too great for a number, or
            is a percentage of 0.
        """
        if not self.against_champion:
            return self.threshold
        if champion_value is None or (self.percent and champion_value == 0):
            return None
        bound = champion_value * self.factor + self.threshold + abs(champion_value) * self.percent / 100
        return bound if math.isfinite(bound) else None

    def holds(self, value: float, bound: float) -> bool:
        """Compare a measured value with the bound; NaN never holds."""
        return _COMPARE[self.comparison](value, bound)

    def __str__(self) -> str:
        """Return the rule in the form that :func:`parse_threshold` reads."""
        return in_mode(self.mode, self._comparison())

    def _comparison(self) -> str:
        if not self.against_champion:
            return f"{self.metric} {self.comparison} {_exact(self.threshold)}"
        if self.percent:
            way = "+" if self.percent > 0 else "-"
            return f"{self.metric} {self.comparison} champion {way} {_exact(abs(self.percent))}%"
        scaled = "champion" if self.factor == 1 else f"champion * {_exact(self.factor)}"
        shifted = f" {'+' if self.threshold > 0 else '-'} {_exact(abs(self.threshold))}" if self.threshold else ""
        return f"{self.metric} {self.comparison} {scaled}{shifted}"


def parse_threshold(text: str) -> MetricThreshold:
    """Read one rule.

    :param text: for example ``"accuracy >= 0.92"``; a known metric may have its name in pipeline files or in MLflow.
    :return: the rule, with the name of the metric in MLflow.
    :raises InvalidArgumentError: when the text is not a rule (the message has the grammar and examples), or the metric
        is a misspelled known one.
    """
    match = _THRESHOLD.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidArgumentError(f"threshold must be a rule such as 'accuracy >= 0.92'; got {text!r}. {_GRAMMAR}")
    sign = -1 if "-" in (match["sign"], match["way"]) else 1
    against_champion = bool(match["champion"] or match["relative"])
    parsed = MetricThreshold(
        metric=check_spelling(match["metric"]),
        comparison=cast("ComparisonOperator", match["comparison"]),
        threshold=sign * float(match["offset"] or 0) if against_champion else float(match["number"]),
        against_champion=against_champion,
        factor=float(match["factor"] or 1),
        percent=sign * float(match["percent"] or 0),
        mode=cast("RuleMode", match["mode"] or "enforce"),
    )
    if not all(map(math.isfinite, (parsed.threshold, parsed.factor, parsed.percent))):
        raise InvalidArgumentError(f"threshold must have finite numbers; got {text!r}")
    return parsed


def in_mode(mode: RuleMode, rule: str) -> str:
    """Return a rule with its mode in front, unless the mode is ``enforce``.

    :param mode: its mode.
    :param rule: the rule.
    """
    return rule if mode == "enforce" else f"{mode}: {rule}"


def write_compared(value: float, other: float) -> str:
    """Return a number with six significant digits, or with all of them where six would hide a difference.

    :param value: the number to write.
    :param other: the number it is compared with.
    """
    return _exact(value) if value != other and f"{value:.6g}" == f"{other:.6g}" else f"{value:.6g}"


def _exact(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
