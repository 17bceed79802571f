"""Which version answers a request: the split of a model's traffic, as a document in the registry and as a plan.

The document is the tag :data:`TAG_ROLLOUT` of the champion's version. It is void as soon as the alias ``champion``
moves, because the tag stays on the old version. Servers read it and never write it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator
from pydantic.types import Strict

from airflow_mcp.core.contract import ALIAS_CHALLENGER, ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.document import Document, parse_document
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import EvidenceError

ROLLOUT_SCHEMA: Literal["airflow_mcp/rollout/1"] = "airflow_mcp/rollout/1"
TAG_ROLLOUT = "airflow_mcp.rollout"
"""On the champion's version: the split and the state of the rollout."""
TAG_ROLLOUT_LEASE = "airflow_mcp.rollout_lease"
"""On the champion's version: until when the split counts if its document says ``on_lost: stable``; ISO 8601."""
Phase = Literal["INITIALIZING", "PROGRESSING", "WAITING", "PROMOTING", "BAKING", "SUCCEEDED", "FAILED"]
ACTIVE: tuple[Phase, ...] = ("INITIALIZING", "PROGRESSING", "WAITING", "PROMOTING")
"""Phases in which the split counts."""
Role: TypeAlias = Literal["champion", "canary", "standby", "forced"]
_ALL_HASHES = 2**64
_VersionNumber = Annotated[str, Field(pattern=r"^[1-9]\d*$")]
_Percent = Annotated[float, Field(ge=0, le=100)]


def checked_threshold(metric: str | None, threshold: float) -> float:
    """Check that a breaker with this threshold can open, and does not open at once; return the threshold.

    :param metric: the metric of the breaker; None when it is not valid itself, and then nothing is checked.
    :param threshold: value above which the breaker opens.
    :raises ValueError: when a share is never above the threshold, or every latency is.
    """
    if metric == "http_5xx_rate" and threshold >= 1:
        hint = f". Did you mean {threshold / 100:g}?" if threshold <= 100 else ""
        raise ValueError(
            f"must be less than 1 for {metric}, because no share of the answers is above 1; got {threshold:g}{hint}"
        )
    if metric == "latency_p99_ms" and threshold < 1:
        hint = f". Did you mean {threshold * 1000:g}?" if threshold else ""
        raise ValueError(f"must be at least 1 for {metric}, which is in milliseconds; got {threshold:g}{hint}")
    return threshold


class BreakerRule(Document):
    """When a server stops sending requests to a version by itself."""

    metric: Literal["http_5xx_rate", "latency_p99_ms"] = "http_5xx_rate"
    """``http_5xx_rate``: share of answers that are errors of the model. ``latency_p99_ms``: milliseconds."""
    threshold: Annotated[float, Strict(), Field(ge=0)]
    """The breaker opens above this value."""
    duration: Annotated[float, Strict(), Field(gt=0)]
    """Seconds for which the metric must be above the threshold at every look."""
    min_requests: Annotated[int, Field(ge=1)] = 20
    """Requests in the window, below which nothing is concluded."""

    @field_validator("threshold")
    @classmethod
    def _can_decide(cls, value: float, info: ValidationInfo) -> float:
        return checked_threshold(info.data.get("metric"), value)


class RolloutDocument(Document):
    """The split of one model's traffic and the state of its rollout."""

    schema_: Literal["airflow_mcp/rollout/1"] = Field(default=ROLLOUT_SCHEMA, alias="schema")
    identity: Annotated[str, Field(min_length=1)]
    """Name of the rollout, the same on every retry."""
    generation: Annotated[int, Field(ge=1)]
    """Grows by one with every write."""
    phase: Phase
    stable: _VersionNumber
    """The champion that the canary is compared with."""
    canary: _VersionNumber
    weight: _Percent = 0.0
    """Share of the requests that the canary answers, in percent."""
    shadow: _Percent = 0.0
    """Share of the champion's requests that the canary is asked too, without its answer being sent; in percent."""
    salt: str = ""
    """Decides, together with the key of a request, which side it is on; empty takes the identity."""
    sticky: str = ""
    """Header whose value keeps a caller on one side; empty takes the subject of the token, or else chance."""
    step: Annotated[int, Field(ge=0)] = 0
    step_since: AwareDatetime | None = None
    plan: str = ""
    """Hash of the plan of the rollout."""
    breaker: BreakerRule | None = None
    on_lost: Literal["hold", "stable"] = "hold"
    """What servers do when nobody renews the lease: keep the split, or answer with the champion alone."""
    run_id: str = ""
    by: str = ""
    reason: str = ""

    @property
    def is_active(self) -> bool:
        """Whether the split counts."""
        return self.phase in ACTIVE

    def has_moved_from(self, before: RolloutDocument | None) -> bool:
        """Return whether an act has changed the rollout.

        :param before: the document before it; None when there was none.
        """
        return before is None or (self.generation, self.phase) != (before.generation, before.phase)

    def counts_for(self, champion: str) -> bool:
        """Return whether the split counts while a version is champion.

        :param champion: number of that version.
        """
        return self.is_active and self.stable == champion


@dataclass(frozen=True)
class TrafficPlan:
    """Which versions of one model answer which share of its requests; replaced as a whole, never changed."""

    champion: ServedVersion | None = None
    canary: ServedVersion | None = None
    weight: float = 0.0
    """Percent of the requests for the canary."""
    salt: str = ""
    sticky: str = ""
    """Header whose value is the key of a request, in lower case; empty for none."""
    forced: bool = False
    """Whether a caller may choose a version by a header."""
    shadow: float = 0.0
    """Percent of the champion's requests that the canary is asked too."""
    generation: int = 0
    """Generation of the document behind the split; 0 without one."""
    identity: str = ""
    """Identity of the rollout; empty without one."""
    standby: ServedVersion | None = None
    """The version that answers when the breaker of the champion is open, or the champion cannot answer."""
    canary_breaker: BreakerRule | None = None
    champion_breaker: BreakerRule | None = None
    tripped: frozenset[ServedVersion] = frozenset()
    """Versions whose breaker is open."""
    error: str = ""
    """Why the document in the registry is not followed; empty if it is, or if there is none."""
    _limit: int = field(init=False, repr=False, compare=False)
    _hash_key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare what every request needs."""
        object.__setattr__(self, "_limit", round(self.weight / 100 * _ALL_HASHES))
        object.__setattr__(self, "_hash_key", hashlib.blake2b(self.salt.encode(), digest_size=32).digest())

    def is_on_canary_side(self, key: bytes) -> bool:
        """Return whether the requests with this key go to the canary.

        The same key is always on the same side while the weight stands. While it grows, no key leaves the canary.

        :param key: the key of a request.
        """
        digest = hashlib.blake2b(key, digest_size=8, key=self._hash_key).digest()
        return int.from_bytes(digest, "big") < self._limit

    @property
    def versions(self) -> tuple[ServedVersion, ...]:
        """Every version that the plan names, the champion first."""
        named = (self.champion, self.standby, self.canary)
        return tuple(dict.fromkeys(key for key in named if key is not None))


class RoutingKey(NamedTuple):
    """What decides where a request goes."""

    model: str
    value: bytes = b""
    """The key of the split: the same value is always on the same side."""
    version: str = ""
    """Number of the version that the caller asks for; empty for none."""
    alias: str = ""
    """Alias of the version that the caller asks for; empty for none."""

    @property
    def is_forced(self) -> bool:
        """Whether the caller asks for a version: if it cannot answer, no other version may."""
        return bool(self.version or self.alias)


class Choice(NamedTuple):
    """The version that answers a request, and in which role."""

    version: ServedVersion
    role: Role


NO_HEADERS: Mapping[str, str] = MappingProxyType({})
HEADER_VERSION, HEADER_ALIAS = "x-model-version", "x-model-alias"


def routing_key(
    model: str, plan: TrafficPlan, headers: Mapping[str, str] = NO_HEADERS, *, subject: str = "", chance: bytes = b""
) -> RoutingKey:
    """Return what decides where a request goes.

    :param model: the registered model that is asked.
    :param plan: its plan.
    :param headers: headers of the request, with names in lower case.
    :param subject: subject of the caller's token; empty without one.
    :param chance: random bytes, for a request that has no key of its own.
    """
    named = headers.get(plan.sticky, "") if plan.sticky else ""
    value = named.encode("utf-8", "surrogateescape") or subject.encode("utf-8", "surrogateescape") or chance
    return RoutingKey(model, value, headers.get(HEADER_VERSION, ""), headers.get(HEADER_ALIAS, ""))


def choose(plan: TrafficPlan, key: RoutingKey, ready: frozenset[ServedVersion]) -> Choice | None:
    """Return the version that answers a request.

    A canary that cannot answer here gets no requests here: the champion answers them.

    :param plan: the plan of the model.
    :param key: what decides where the request goes.
    :param ready: the versions that can answer.
    :return: None when no version can answer, or not the one that the caller asks for (``key.is_forced``).
    """
    if key.is_forced:
        asked = _asked_for(plan, key) if plan.forced else None
        return Choice(asked, "forced") if asked is not None and asked in ready else None
    canary, champion, standby = plan.canary, plan.champion, plan.standby
    able = ready - plan.tripped if plan.tripped else ready
    if canary is not None and plan.weight and canary in able and plan.is_on_canary_side(key.value):
        return Choice(canary, "canary")
    if champion is not None and champion in able:
        return Choice(champion, "champion")
    if standby is not None and standby in ready:
        return Choice(standby, "standby")
    return Choice(champion, "champion") if champion is not None and champion in ready else None


def _asked_for(plan: TrafficPlan, key: RoutingKey) -> ServedVersion | None:
    """Return the version that the caller asks for; None when there is no such alias, or the headers disagree."""
    aliases = {
        ALIAS_CHAMPION: plan.champion,
        ALIAS_CHALLENGER: plan.canary,
        ALIAS_PREVIOUS_CHAMPION: plan.standby,
    }
    by_alias = aliases.get(key.alias) if key.alias else None
    if not key.version:
        return by_alias
    by_number = ServedVersion(key.model, key.version)
    return by_number if not key.alias or by_alias == by_number else None


class Split(NamedTuple):
    """What the tags of the champion's version say about the split."""

    document: RolloutDocument | None
    """The document that counts; None when there is no split."""
    error: str = ""
    """Why a document that exists is not followed."""


def read_rollout(tags: Mapping[str, str], source: str) -> tuple[RolloutDocument | None, str]:
    """Return the document on a version, also when it has ended, and why one that exists cannot be read.

    :param tags: tags of the version.
    :param source: what is read, for the message.
    """
    text = tags.get(TAG_ROLLOUT, "")
    try:
        return parse_document(RolloutDocument, text, source) if text else None, ""
    except EvidenceError as error:
        return None, str(error)


def read_split(tags: Mapping[str, str], champion: str, now: datetime) -> Split:
    """Return the split that counts now.

    Without a readable document about this champion there is no split; nothing is guessed.

    :param tags: tags of the version behind the alias ``champion``.
    :param champion: number of that version.
    :param now: present time, with a time zone.
    """
    source = f"tag {TAG_ROLLOUT!r} of version {champion}"
    document, error = read_rollout(tags, source)
    if document is None or not document.counts_for(champion):
        return Split(None, error)
    if document.canary == champion:
        return Split(None, f"{source} names the champion as its own canary")
    if document.on_lost == "hold" or lease_counts(tags.get(TAG_ROLLOUT_LEASE, ""), now):
        return Split(document)
    return Split(document.model_copy(update={"weight": 0.0, "shadow": 0.0}), f"tag {TAG_ROLLOUT_LEASE!r} has run out")


def lease_counts(text: str, now: datetime) -> bool:
    """Return whether a lease has not run out.

    :param text: the tag :data:`TAG_ROLLOUT_LEASE`; anything that is not a time has run out.
    :param now: present time, with a time zone.
    """
    try:
        until = datetime.fromisoformat(text)
    except ValueError:
        return False
    return until.tzinfo is not None and until >= now


def follows(document: RolloutDocument, plan: TrafficPlan) -> bool:
    """Return whether a document replaces the split in force, which an older generation of the same rollout never does.

    :param document: the document that was read.
    :param plan: the plan in force.
    """
    return document.identity != plan.identity or document.generation >= plan.generation
