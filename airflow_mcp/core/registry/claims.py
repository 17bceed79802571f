"""Claims on one subject of a registered model, kept as tags of the model: at most one task works on it at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from airflow_mcp.core.contract import TAG_CLAIM_PREFIX

_ANY_SUBJECT = "*"


@dataclass(frozen=True)
class Claim:
    """A task's claim on one subject of a registered model, held as a tag of the model while the task works on it."""

    token: str
    expires_at: datetime
    """When it ends, by the clock of its holder: for people who read the tag. Nothing is decided by it."""
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


def other_claims(tags: Mapping[str, str], own: Claim) -> tuple[Claim, ...]:
    """Return the claims of other tasks on the same subject, whether their tasks live or not.

    A task writes its own claim first and reads all claims second. Of two tasks at least one reads after both have
    written, sees the other claim and withdraws, so two tasks can never both hold a claim.

    :param tags: tags of the registered model, read after the own claim was written.
    :param own: the caller's claim.
    """
    return tuple(
        claim
        for claim in _read_claims(tags)
        if claim.token != own.token and claim.subject in (own.subject, _ANY_SUBJECT)
    )


class Sightings:
    """When this process saw each claim of other tasks first, by its own monotonic clock.

    A claim ends when it was seen unchanged for a whole lifetime. Its holder stops that long after it *began* to write
    the claim, so it has always stopped by then, whatever the clocks of the two machines show.

    :param lifetime: seconds that a claim lasts.
    """

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._first: dict[Claim, float] = {}

    def look(self, claims: Iterable[Claim], now: float) -> tuple[Claim, ...]:
        """Remember the claims that were read now; return those that have not ended.

        :param claims: the claims of other tasks.
        :param now: monotonic time, in seconds.
        """
        self._first = {claim: self._first.get(claim, now) for claim in claims}
        return tuple(claim for claim in self._first if self.seconds_left(claim, now) > 0)

    @property
    def seen(self) -> tuple[Claim, ...]:
        """The claims of the last look."""
        return tuple(self._first)

    def seconds_left(self, claim: Claim, now: float) -> float:
        """Return how many seconds a claim of the last look lasts at most; infinite when nobody can read it."""
        return inf if claim.subject == _ANY_SUBJECT else self._first[claim] + self.lifetime - now


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
