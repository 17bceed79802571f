"""Claims on one subject of a registered model, kept as tags of the model: at most one task works on it at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_mcp.core.contract import TAG_CLAIM_PREFIX

_ANY_SUBJECT = "*"


@dataclass(frozen=True)
class Claim:
    """A task's claim on one subject of a registered model, held as a tag of the model while the task works on it."""

    token: str
    expires_at: datetime
    holder: str
    subject: str = ""
    """What is claimed: empty for the aliases, or the logged model that is being registered."""

    @property
    def tag(self) -> str:
        """Name of its tag: every claim has a tag of its own, so no claim overwrites another."""
        return TAG_CLAIM_PREFIX + self.token

    def to_value(self) -> str:
        """Return the value of its tag."""
        return json.dumps(
            {"expires_at": self.expires_at.isoformat(), "holder": self.holder}
            | ({"subject": self.subject} if self.subject else {})
        )


def valid_claims(tags: Mapping[str, str], now: datetime, subject: str = "") -> tuple[Claim, ...]:
    """Return the claims on one subject that have not expired.

    :param tags: tags of the registered model.
    :param now: present time, with a time zone.
    :param subject: what is claimed; empty for the aliases.
    """
    return tuple(
        claim for claim in _read_claims(tags) if claim.expires_at > now and claim.subject in (subject, _ANY_SUBJECT)
    )


def other_claims(tags: Mapping[str, str], own: Claim, now: datetime) -> tuple[Claim, ...]:
    """Return the valid claims of other tasks on the same subject.

    A task writes its own claim first and reads all claims second. Of two tasks at least one reads after both have
    written, sees the other claim and withdraws, so two tasks can never both hold a claim.

    :param tags: tags of the registered model, read after the own claim was written.
    :param own: the caller's claim.
    :param now: present time, with a time zone.
    """
    return tuple(claim for claim in valid_claims(tags, now, own.subject) if claim.token != own.token)


def expired_claims(tags: Mapping[str, str], now: datetime) -> tuple[Claim, ...]:
    """Return the claims on any subject that have expired and may be removed."""
    return tuple(claim for claim in _read_claims(tags) if claim.expires_at <= now)


def _read_claims(tags: Mapping[str, str]) -> Iterator[Claim]:
    return (_read_claim(name, value) for name, value in tags.items() if name.startswith(TAG_CLAIM_PREFIX))


def _read_claim(name: str, value: str) -> Claim:
    token = name.removeprefix(TAG_CLAIM_PREFIX)
    try:
        fields = json.loads(value)
        expires_at = datetime.fromisoformat(fields["expires_at"])
        if expires_at.tzinfo is None:
            raise ValueError("a time without a time zone")
        return Claim(token, expires_at, str(fields.get("holder", "unknown")), str(fields.get("subject", "")))
    except (ValueError, TypeError, KeyError):
        # An unreadable claim may be on anything and never expires: a person has to remove the tag.
        return Claim(token, datetime.max.replace(tzinfo=UTC), f"unreadable tag {name!r}", _ANY_SUBJECT)
