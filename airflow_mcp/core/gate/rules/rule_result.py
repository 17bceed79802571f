"""What became of one rule of a gate, whatever its kind."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from airflow_mcp.core.gate.rules.verdicts import GateMode, Verdict

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


class RuleResult(BaseModel):
    """One rule, measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    metric: str
    kind: RuleKind = "threshold"
    mode: GateMode = "enforce"
    """What it means when the rule does not hold; the mode of the whole gate may be weaker still."""
    slice: str = ""
    """Slice that is judged, ``column=value``, or the column, for a gap; empty for a rule about all rows."""
    verdict: Verdict | None
    """None when the rule does not apply: it compares with a champion and there is none yet."""
    value: float | None
    """The metric; of a significance rule the improvement over the champion, of a gap the largest gap."""
    bound: float | None
    champion_value: float | None = None
    low: float | None = None
    """Interval of ``value``, where there is one."""
    high: float | None = None
    rows_needed: int | None = None
    """About how many rows would decide an inconclusive rule; None when more rows would not, or are not the problem."""
    reason: str
    facts: dict[str, Fact] = {}
    """What else was seen, for example the status of an answer or the number of lines; never a credential."""
