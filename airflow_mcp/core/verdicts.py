"""The four answers of a gate, and how answers combine."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


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


_WORST_FIRST = (Verdict.ERROR, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the worst of several verdicts; nothing at all is inconclusive, never a pass.

    :param verdicts: verdicts of the rules that apply.
    """
    given = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in given), Verdict.INCONCLUSIVE)
