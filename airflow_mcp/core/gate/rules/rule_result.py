"""The result of one gate rule of any kind."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict

RuleKind = Literal[
    "threshold",
    "significance",
    "slice_floor",
    "slice_gap",
    "benchmark",
    "coverage",
    "findings",
    "replay",
    "replay_segment",
]
Fact = str | int | float | bool | None


class RuleResult(Document):
    """One rule with what was measured and the verdict."""

    model_config = ConfigDict(allow_inf_nan=True)  # a metric may be NaN, which becomes null in JSON

    rule: str
    metric: str
    kind: RuleKind = "threshold"
    mode: RuleMode = "enforce"
    """What happens when the rule is not met; the mode of the whole gate may be weaker."""
    slice: str = ""
    """The slice judged, ``column=value``; for a gap the column; empty for a rule about all rows."""
    verdict: Verdict | None
    """None when the rule does not apply: it compares with a champion and there is none yet."""
    value: float | None
    """The metric's value; for a significance rule the improvement over the champion, for a gap the largest gap."""
    bound: float | None
    champion_value: float | None = None
    low: float | None = None
    """Lower end of the interval of ``value``, where there is one."""
    high: float | None = None
    rows_needed: int | None = None
    """Estimate of the rows that would decide an inconclusive rule; None when more rows would not help."""
    reason: str
    facts: dict[str, Fact] = Field(default_factory=dict)
    """Further observations, for example an HTTP status or a number of lines; never a credential."""
