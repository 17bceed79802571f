"""Whether a gate's verdict allows registration, promotion or a copy."""

from __future__ import annotations

from airflow_mcp.core.gate.rules.verdicts import OPENING, Decision
from airflow_mcp.exceptions import GateRejectedError


def require_passed_gate(what: str, verdict: str | None) -> str:
    """Check that a gate passed something, by itself or because it only warns or a person approved.

    :param what: what was judged, for the message.
    :param verdict: the gate's verdict; None when no gate has judged it.
    :return: a warning; empty when the verdict is ``passed``.
    :raises GateRejectedError: when the verdict is anything but ``passed``, ``warned`` or ``approved``.
    """
    if verdict not in OPENING:
        raise GateRejectedError(
            f"{what} has gate verdict {verdict or 'none'}; {', '.join(OPENING[:-1])} or {OPENING[-1]} is needed. "
            "Nothing was changed; run EvaluationGateOperator on it first"
        )
    return "" if verdict == Decision.PASSED else f"{what} did not pass the gate by itself: it is {verdict}"
