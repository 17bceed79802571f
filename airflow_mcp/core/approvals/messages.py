"""What people read: the question of a seat, and the messages about a release. None of it is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.policy import Node, Occasion
from airflow_mcp.core.approvals.state import RequestState

_HEADLINES: Mapping[str, str] = {
    "requested": "Release requested",
    "asked": "Waiting for an approval",
    "answered": "Answered",
    "reminded": "Reminder: nobody has answered",
    "escalated": "Escalated: nobody has answered",
    "alerted": "ALERT: nobody has answered",
    "granted": "Release approved",
    "rejected": "Release rejected",
    "expired": "Release rejected: nobody has answered in time",
    "moved": "Released",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~])")
_LONGEST = 200
"""Characters of a text that somebody else wrote, in a message."""


def question_body(state: RequestState, node: Node, may_vote: Iterable[str], links: Mapping[str, str]) -> str:
    """Return the text under a question, as Markdown; every viewer of Airflow can read it.

    It changes only with what is asked, because Airflow shows the first text of a task for ever.

    :param state: where the request stands.
    :param node: node that is asked.
    :param may_vote: people who may answer.
    :param links: name to address of the evidence.
    """
    request = state.request
    who = request.requester if request else None
    asked_by = (who.account or who.pipeline) if who else ""
    lines = [
        f"**Passport** `{state.key.passport}`",
        f"Version {escaped(request.version if request else '')} of **{escaped(state.key.model_name)}** for "
        f"**{escaped(state.key.environment)}**, risk **{state.risk}**, asked for by {escaped(asked_by) or 'nobody'}.",
        f"May answer at **{escaped(node.name)}**: {', '.join(map(escaped, may_vote)) or 'nobody'}"
        f"{f'; {node.quorum} must approve' if node.quorum > 1 else ''}. Airflow shows the buttons to everybody; "
        "an answer of anybody else is recorded and does not count.",
        "One Reject ends the request. Write a reason for it.",
        *(f"[{escaped(name)}]({address})" for name, address in links.items()),
    ]
    return "\n\n".join(lines)


def message_text(occasion: Occasion, key: ReleaseKey, details: Mapping[str, Any]) -> str:
    """Return the text of a message about a release.

    :param occasion: what has happened.
    :param key: the release.
    :param details: ``version``, ``node``, ``people``, ``reason`` and ``url``, as far as they are known.
    """
    lines = [
        f"{_HEADLINES[occasion]}: {key.model_name} version {details.get('version', '')} to {key.environment}",
        f"step {details['node']}" if details.get("node") else "",
        f"for {', '.join(details['people'])}" if details.get("people") else "",
        str(details.get("reason") or "")[:_LONGEST],
        f"passport {key.passport}",
        str(details.get("url") or ""),
    ]
    return "\n".join(line for line in lines if line)


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))[: 2 * _LONGEST]
