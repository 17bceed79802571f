"""Verdicts of a gate, how they combine, and the decision that follows."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

GateMode = Literal["enforce", "warn"]
"""What a verdict other than ``passed`` does: stop the candidate, or mark it."""
RuleMode = Literal["enforce", "warn", "dry_run"]
"""What a rule that is not met does: decide, mark the candidate, or nothing."""


class Verdict(StrEnum):
    """Verdict of a gate or of one of its rules."""

    PASSED = "passed"
    """Every rule that applies was measured and is met."""
    FAILED = "failed"
    """At least one rule was measured and is not met."""
    INCONCLUSIVE = "inconclusive"
    """No rule failed, but at least one could not be measured."""
    ERROR = "error"
    """The evidence cannot be used."""


class Decision(StrEnum):
    """What the gate decided about a candidate; the value of the tag ``airflow_mcp.gate_verdict``."""

    PASSED = "passed"
    """The candidate may be registered and promoted."""
    WARNED = "warned"
    """It may be registered and promoted although a rule is not met or not certain: the gate or the rule only warns."""
    APPROVED = "approved"
    """It may be registered and promoted: the gate was inconclusive and a person approved."""
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    @property
    def opens(self) -> bool:
        """Whether registration and promotion are allowed."""
        return self in (Decision.PASSED, Decision.WARNED, Decision.APPROVED)


OPENING = tuple(decision.value for decision in Decision if decision.opens)
"""Decisions with which a candidate may be registered and promoted."""


def decide(verdict: Verdict, mode: GateMode, *, has_warnings: bool, dry_run: bool = False) -> Decision | None:
    """Return the decision that follows from a verdict.

    :param verdict: verdict of the enforced rules.
    :param mode: mode of the gate. ``warn`` accepts failed and inconclusive candidates and marks them; it never accepts
        an error, because then nothing is known about the candidate.
    :param has_warnings: whether a warning rule is not met.
    :param dry_run: whether the gate only reports.
    :return: None for a dry run, which decides nothing.
    """
    if dry_run:
        return None
    if verdict is Verdict.PASSED:
        return Decision.WARNED if has_warnings else Decision.PASSED
    if mode == "warn" and verdict is not Verdict.ERROR:
        return Decision.WARNED
    return Decision(verdict.value)


_WORST_FIRST = (Verdict.ERROR, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts. No verdict at all is inconclusive, never a pass.

    :param verdicts: verdicts of the rules that apply.
    """
    given = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in given), Verdict.INCONCLUSIVE)
