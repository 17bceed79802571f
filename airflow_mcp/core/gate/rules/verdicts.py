"""The answers of a gate, how they combine, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

GateMode = Literal["enforce", "warn", "dry_run"]
"""What an answer that is no pass does: keeps the candidate out, marks it, or nothing at all."""
GATE_MODES: tuple[GateMode, ...] = ("enforce", "warn", "dry_run")


class Verdict(StrEnum):
    """Answer of a gate or of one of its rules."""

    PASSED = "passed"
    """Every rule that applies was measured and holds."""
    FAILED = "failed"
    """At least one rule was measured and does not hold."""
    INCONCLUSIVE = "inconclusive"
    """Nothing failed, but something that was asked for could not be measured."""
    ERROR = "error"
    """The evidence itself cannot be used."""


class Decision(StrEnum):
    """What the registry may do about a candidate; value of the tag ``airflow_mcp.gate_verdict``."""

    PASSED = "passed"
    """It may be registered and promoted."""
    WARNED = "warned"
    """It may be, although something does not hold or is not certain: the gate, or the rule, only warns."""
    APPROVED = "approved"
    """It may be: the gate was inconclusive, and a person said yes."""
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    @property
    def opens(self) -> bool:
        """Whether registration and promotion are allowed."""
        return self in (Decision.PASSED, Decision.WARNED, Decision.APPROVED)


OPENING = tuple(decision.value for decision in Decision if decision.opens)
"""Decisions that let a candidate into the registry."""


def decide(verdict: Verdict, mode: GateMode, *, has_warnings: bool) -> Decision | None:
    """Say what follows from a verdict.

    :param verdict: of the rules that are enforced.
    :param mode: of the gate. ``warn`` lets failed and inconclusive candidates through, marked; never an error:
        nobody knows then what there is to warn of.
    :param has_warnings: whether a rule that only warns does not hold.
    :return: None for a dry run: nothing follows.
    """
    if mode == "dry_run":
        return None
    if verdict is Verdict.PASSED:
        return Decision.WARNED if has_warnings else Decision.PASSED
    if mode == "warn" and verdict is not Verdict.ERROR:
        return Decision.WARNED
    return Decision(verdict.value)


_WORST_FIRST = (Verdict.ERROR, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the worst of several verdicts; nothing at all is inconclusive, never a pass.

    :param verdicts: verdicts of the rules that apply.
    """
    given = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in given), Verdict.INCONCLUSIVE)
