"""What people read: the question of a seat, and the messages about a release. None of it is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.policy import ApprovedAct, Node, Occasion
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
_ROLLBACK_HEADLINES: Mapping[str, str] = {
    "requested": "Rollback requested",
    "granted": "Rollback approved",
    "rejected": "Rollback rejected",
    "expired": "Rollback rejected: nobody has answered in time",
}
_BEGINS: Mapping[ApprovedAct, str] = {"release": "Version", "rollback": "**Rollback** to version"}
_WAYS: Mapping[ApprovedAct, str] = {"release": "for", "rollback": "in"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~])")
_IN_ADDRESS = ":/?#[]@!$&'*+,;=%~"
"""Characters of an address that stay as they are; Markdown ends it at the others, such as a parenthesis."""
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
    asked_by = escaped((who.account or who.pipeline) if who else "") or "nobody"
    key, risk = state.key, f"risk **{state.risk}**"
    what = f"{_BEGINS[key.act]} {escaped(request.version if request else '')} of **{escaped(key.model_name)}**"
    lines = [
        f"**Passport** `{key.passport}`",
        f"{what} {_WAYS[key.act]} **{escaped(key.environment)}**, {risk}, asked for by {asked_by}.",
        f"May answer at **{escaped(node.name)}**: {', '.join(map(escaped, may_vote)) or 'nobody'}"
        f"{f'; {node.quorum} must approve' if node.quorum > 1 else ''}. Airflow shows the buttons to everybody; "
        "an answer of anybody else is recorded and does not count.",
        "One Reject ends the request. Write a reason for it.",
        *(_link(name, address) for name, address in links.items()),
    ]
    return "\n\n".join(lines)


def message_text(occasion: Occasion, key: ReleaseKey, details: Mapping[str, Any]) -> str:
    """Return the text of a message about a release.

    :param occasion: what has happened.
    :param key: the release.
    :param details: ``version``, ``node``, ``people``, ``reason`` and ``url``, as far as they are known.
    """
    is_rollback = key.act == "rollback"
    headline = (is_rollback and _ROLLBACK_HEADLINES.get(occasion)) or _HEADLINES[occasion]
    way = "back in" if is_rollback else "to"
    lines = [
        f"{headline}: {key.model_name} version {details.get('version', '')} {way} {key.environment}",
        f"step {details['node']}" if details.get("node") else "",
        f"for {', '.join(details['people'])}" if details.get("people") else "",
        str(details.get("reason") or "")[:_LONGEST],
        f"passport {key.passport}",
        str(details.get("url") or ""),
    ]
    return "\n".join(line for line in lines if line)


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    # Cut before: half an escape would take the meaning of what follows.
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())[: 2 * _LONGEST])


def _link(name: str, address: str) -> str:
    """Return a link to a page; an address of another kind, such as ``javascript:``, is only shown."""
    if not address.startswith(("http://", "https://")):
        return f"{escaped(name)}: {escaped(address)}"
    return f"[{escaped(name)}]({quote(address, safe=_IN_ADDRESS)})"
