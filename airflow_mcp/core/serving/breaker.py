"""When a server stops sending requests to a version by itself: counts of the last seconds, and the rule over them.

Nothing here knows the time: every call has the seconds of a clock that does not go back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator

from airflow_mcp.core.document import Document, parse_document
from airflow_mcp.core.serving.traffic import BreakerRule, checked_threshold
from airflow_mcp.exceptions import EvidenceError

TAG_ROLLBACK = "airflow_mcp.rollback"
"""On the champion's version: when servers go back to another version by themselves."""
WINDOW = 30
"""Seconds over which the metric is measured."""
LONGEST_PAUSE = 3.0
"""Seconds between two looks; after a longer pause the time above the threshold begins anew."""
SUDDEN_WINDOW, SUDDEN_REQUESTS, SUDDEN_SHARE = 10, 20, 0.5
"""A canary of which half of 20 requests fail within 10 s does not wait for the rule."""
_SLOW_SHARE = 0.01
"""The 99th percentile is above a latency when more than this share of the requests is slower."""


class RollbackDocument(Document):
    """The tag :data:`TAG_ROLLBACK`: a rule, and the version that answers when it is broken."""

    schema_: Literal["airflow_mcp/rollback/1"] = Field(default="airflow_mcp/rollback/1", alias="schema")
    metric: Literal["http_5xx_rate", "latency_p99_ms"] = "http_5xx_rate"
    threshold: Annotated[float, Field(ge=0)]
    duration: Annotated[float, Field(gt=0)]
    """Seconds."""
    min_requests: Annotated[int, Field(ge=1)] = 20
    stable: Annotated[str, Field(pattern=r"^[1-9]\d*$")]
    """Number of the version that answers when the breaker is open."""
    until: AwareDatetime | None = None
    """When the rule stops to count; None: never."""

    @field_validator("threshold")
    @classmethod
    def _can_decide(cls, value: float, info: ValidationInfo) -> float:
        return checked_threshold(info.data.get("metric"), value)

    @property
    def rule(self) -> BreakerRule:
        """The rule without the version."""
        return BreakerRule(
            metric=self.metric,
            threshold=self.threshold,
            duration=self.duration,
            min_requests=self.min_requests,
        )


class Rollback(NamedTuple):
    """What the tags of the champion's version say about going back."""

    document: RollbackDocument | None
    error: str = ""
    """Why a document that exists is not followed."""


def read_rollback(tags: Mapping[str, str], champion: str, now: datetime) -> Rollback:
    """Return the rule of the champion that counts now.

    :param tags: tags of the version behind the alias ``champion``.
    :param champion: number of that version.
    :param now: present time, with a time zone.
    """
    text = tags.get(TAG_ROLLBACK, "")
    if not text:
        return Rollback(None)
    try:
        document = parse_document(RollbackDocument, text, f"tag {TAG_ROLLBACK!r} of version {champion}")
    except EvidenceError as error:
        return Rollback(None, str(error))
    if document.stable == champion:
        return Rollback(None, f"tag {TAG_ROLLBACK!r} of version {champion} names the champion as its own way back")
    if document.until is not None and document.until < now:
        return Rollback(None)
    return Rollback(document)


class Counts(NamedTuple):
    """Requests of some seconds."""

    requests: int = 0
    failed: int = 0
    """Answers with a status of 500 and above that the model is to blame for."""
    slow: int = 0
    """Answers that took longer than the threshold."""


class RecentCounts:
    """Requests of one version in the last :data:`WINDOW` seconds, second by second.

    :param slow_after: seconds after which an answer counts as slow.
    """

    def __init__(self, slow_after: float = math.inf) -> None:
        self._slow_after = slow_after
        self._second = [-1] * WINDOW
        self._requests = [0] * WINDOW
        self._failed = [0] * WINDOW
        self._slow = [0] * WINDOW

    def add(self, now: float, seconds: float, *, failed: bool) -> None:
        """Count one answer.

        :param now: when it was sent.
        :param seconds: how long it took.
        :param failed: whether the model is to blame for an error.
        """
        second = int(now)
        place = second % WINDOW
        if self._second[place] != second:
            self._second[place] = second
            self._requests[place] = self._failed[place] = self._slow[place] = 0
        self._requests[place] += 1
        self._failed[place] += failed
        self._slow[place] += seconds > self._slow_after

    def last(self, now: float, window: int = WINDOW) -> Counts:
        """Return the sums over the last seconds, the present one included.

        :param now: present time.
        :param window: number of seconds, at most :data:`WINDOW`.
        """
        oldest = int(now) - window
        places = [place for place, second in enumerate(self._second) if oldest < second <= int(now)]
        return Counts(
            sum(self._requests[place] for place in places),
            sum(self._failed[place] for place in places),
            sum(self._slow[place] for place in places),
        )


@dataclass(frozen=True)
class BreakerState:
    """What a breaker remembers from one look to the next."""

    above_since: float | None = None
    """When the metric was first above the threshold, without being below it since."""
    looked_at: float | None = None
    is_open: bool = False
    reason: str = ""
    """Why it opened."""


def after_look(state: BreakerState, rule: BreakerRule, value: float, requests: int, now: float) -> BreakerState:
    """Return the state after a look at the metric. A breaker that is open stays open.

    It opens when the metric was above the threshold at every look for the whole duration. A look that finds too few
    requests, or no number, or that comes too late, starts the time anew: missing data is not evidence.

    :param state: the state after the look before.
    :param rule: the rule.
    :param value: the metric over the window; NaN when there is none.
    :param requests: requests in the window.
    :param now: present time, in seconds.
    """
    if state.is_open:
        return state
    is_above = requests >= rule.min_requests and value > rule.threshold
    if not is_above:
        return replace(state, above_since=None, looked_at=now)
    is_gap = state.looked_at is None or now - state.looked_at > LONGEST_PAUSE
    since = now if state.above_since is None or is_gap else state.above_since
    if now - since < rule.duration:
        return replace(state, above_since=since, looked_at=now)
    reason = f"{rule.metric} was above {rule.threshold:g} for {rule.duration:g} s, {value:g} in the end"
    return BreakerState(since, now, is_open=True, reason=reason)


class Breaker:
    """Counts the answers of one version, and opens once.

    :param rule: when it opens.
    :param is_canary: whether it also opens at once when the version fails suddenly.
    """

    def __init__(self, rule: BreakerRule, *, is_canary: bool = False) -> None:
        self.rule = rule
        self._is_canary = is_canary
        is_latency = rule.metric == "latency_p99_ms"
        self._counts = RecentCounts(rule.threshold / 1000 if is_latency else math.inf)
        self._judged = rule.model_copy(update={"threshold": _SLOW_SHARE}) if is_latency else rule
        self.state = BreakerState()

    @property
    def is_open(self) -> bool:
        """Whether the version gets no more requests."""
        return self.state.is_open

    def add(self, now: float, seconds: float, *, failed: bool) -> None:
        """Count one answer; see :meth:`RecentCounts.add`."""
        self._counts.add(now, seconds, failed=failed)

    def look(self, now: float) -> bool:
        """Look at the counts, and return whether the breaker opens just now.

        :param now: present time, in seconds.
        """
        if self.state.is_open:
            return False
        counts = self._counts.last(now)
        bad = counts.slow if self.rule.metric == "latency_p99_ms" else counts.failed
        share = bad / counts.requests if counts.requests else math.nan
        self.state = after_look(self.state, self._judged, share, counts.requests, now)
        if self.state.is_open:
            self._explain(share)
        elif self._is_canary:
            self._look_for_sudden_failure(now)
        return self.state.is_open

    def _explain(self, share: float) -> None:
        if self.rule.metric == "latency_p99_ms":
            reason = (
                f"more than 1 % of the answers took longer than {self.rule.threshold:g} ms for "
                f"{self.rule.duration:g} s, {share:.1%} in the end"
            )
            self.state = replace(self.state, reason=reason)

    def _look_for_sudden_failure(self, now: float) -> None:
        sudden = self._counts.last(now, SUDDEN_WINDOW)
        if sudden.requests >= SUDDEN_REQUESTS and sudden.failed >= SUDDEN_SHARE * sudden.requests:
            reason = f"{sudden.failed} of {sudden.requests} requests failed within {SUDDEN_WINDOW} s"
            self.state = replace(self.state, is_open=True, reason=reason)
