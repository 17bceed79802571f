"""Messages about a release: to webhooks, and by e-mail through Airflow's SMTP provider."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_mcp.core.approvals.messages import message_text
from airflow_mcp.core.notification import message_body
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.notifications.delivery import WebhookDelivery

if TYPE_CHECKING:
    from airflow_mcp.core.approvals.events import ReleaseKey
    from airflow_mcp.core.approvals.policy import Channel, Occasion

_TIMEOUT_SECONDS = 10
"""A seat that notifies holds a worker slot."""


def notify(channels: Iterable[Channel], occasion: Occasion, key: ReleaseKey, details: Mapping[str, Any]) -> list[str]:
    """Send a message to every channel that is told about an occasion; one that fails does not stop the others.

    :param channels: channels of the policy in force.
    :param occasion: what has happened.
    :param key: the release.
    :param details: as :func:`~airflow_mcp.core.approvals.messages.message_text` takes them.
    :return: what was not delivered, and why; no secret is in it.
    """
    text = str(redact(message_text(occasion, key, details)))
    facts = {"event": occasion, **asdict(key), **details}
    problems: list[str] = []
    for channel in channels:
        if occasion not in channel.on:
            continue
        for send in (_post, _mail):
            try:
                send(channel, text, facts)
            except Exception as error:  # a message must never change the state of a release
                problems.append(str(redact(f"{channel.webhook or channel.smtp}: {error}")))
    return problems


def _post(channel: Channel, text: str, facts: Mapping[str, Any]) -> None:
    if channel.webhook:
        delivery = WebhookDelivery(channel.webhook, channel.format, timeout=_TIMEOUT_SECONDS, attempts=2)
        delivery.send(message_body(text, channel.format, facts))


def _mail(channel: Channel, text: str, _: Mapping[str, Any]) -> None:
    if not channel.email:
        return
    try:
        from airflow.providers.smtp.hooks.smtp import SmtpHook  # noqa: PLC0415  (a provider that few need)
    except ImportError:
        raise InvalidArgumentError("email needs the package apache-airflow-providers-smtp") from None
    with SmtpHook(channel.smtp) as hook:
        hook.send_email_smtp(
            to=list(channel.email), subject=text.splitlines()[0], html_content=f"<pre>{html.escape(text)}</pre>"
        )
