"""Rules on a replay: how many logged requests the candidate may answer differently from the champion.

A request that the champion answers and the candidate does not counts as changed. The interval of the share is
Wilson's; the segments of one column share the error probability (Bonferroni).
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from pydantic import Field

from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.evidence import Confidence, EvaluationEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.significance import rows_needed
from airflow_mcp.core.gate.rules.slices import wilson_interval
from airflow_mcp.core.gate.rules.thresholds import in_mode
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict

_METRIC = "flip_rate"
Share = Annotated[float, Field(gt=0, le=1)]


class ReplayRule(Document):
    """Limits on the changed answers of a replay."""

    max_flip_rate: Share
    """Largest share of requests that may be answered differently, or not at all."""
    segments: tuple[str, ...] = ()
    """Columns by which the share is judged per segment as well."""
    max_segment_flip_rate: Share | None = None
    """Limit in a segment; None takes ``max_flip_rate``."""
    min_requests: Annotated[int, Field(ge=1)] = 1_000
    """The rule is inconclusive with fewer usable requests."""
    min_segment_requests: Annotated[int, Field(ge=1)] = 100
    max_left_out: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Largest share of unusable requests: unreadable, undated, or not answered by the champion."""
    confidence: Confidence = 0.95
    mode: RuleMode = "enforce"

    def rules(self) -> tuple[str, ...]:
        """Return every rule with every setting that affects its verdict."""
        return (self.written(), *(self.written(column) for column in self.segments))

    def written(self, column: str = "") -> str:
        """Return the rule about all requests, or about the segments of one column."""
        if column:
            limit, least, where = self.segment_limit, self.min_segment_requests, f" by {column}"
        else:
            limit, least, where = self.max_flip_rate, self.min_requests, ""
        how = f"{self.confidence:.6g} confidence, >= {least} requests, <= {self.max_left_out:.6g} left out"
        return in_mode(self.mode, f"{_METRIC} <= {limit:.12g}{where} ({how})")

    @property
    def segment_limit(self) -> float:
        """Limit in a segment."""
        return self.max_flip_rate if self.max_segment_flip_rate is None else self.max_segment_flip_rate


class _Subject(NamedTuple):
    """What a result is about: all requests, one segment, or all segments of a column."""

    rule: ReplayRule
    column: str = ""
    """Column of segments; empty for all requests."""
    slice: str = ""

    def result(
        self,
        verdict: Verdict | None,
        reason: str,
        numbers: tuple[float, float, float] | None = None,
        requests_needed: int | None = None,
    ) -> RuleResult:
        """Return a result; the numbers are the share and its interval."""
        value, low, high = numbers or (None, None, None)
        return RuleResult(
            rule=self.rule.written(self.column),
            metric=_METRIC,
            kind="replay_segment" if self.column else "replay",
            mode=self.rule.mode,
            slice=self.slice,
            verdict=verdict,
            value=value,
            bound=self.rule.segment_limit if self.column else self.rule.max_flip_rate,
            low=low,
            high=high,
            rows_needed=requests_needed,
            reason=reason,
        )


def judge_replay(
    rule: ReplayRule, evidence: EvaluationEvidence, replay: ReplayEvidence | None, *, same_model: bool
) -> tuple[RuleResult, ...]:
    """Judge all requests, then every segment.

    :param rule: the rule.
    :param evidence: result of the evaluation; names the champion that was compared with.
    :param replay: result of the replay; None when the run holds none.
    :param same_model: whether candidate and champion are the same model.
    """
    undecided = _undecided(rule, evidence, replay, same_model=same_model)
    if undecided is not None or replay is None:
        verdict, reason = undecided or (Verdict.INCONCLUSIVE, "")
        columns = ("", *rule.segments)
        return tuple(_Subject(rule, column, column).result(verdict, reason) for column in columns)
    results = [_judge(_Subject(rule), replay.judged, replay.changed, rule.confidence)]
    for column in rule.segments:
        parts = [part for part in replay.segments if part.column == column]
        if not parts:
            why = f"the replay has no segments by {column!r}; name the column in its segments"
            results.append(_Subject(rule, column, column).result(Verdict.INCONCLUSIVE, why))
        for part in parts:
            confidence = 1 - (1 - rule.confidence) / len(parts)
            subject = _Subject(rule, column, f"{column}={part.value}")
            results.append(_judge(subject, part.judged, part.changed, confidence))
    return tuple(results)


def _undecided(
    rule: ReplayRule, evidence: EvaluationEvidence, replay: ReplayEvidence | None, *, same_model: bool
) -> tuple[Verdict | None, str] | None:
    """Return the verdict and reason when the replay cannot be judged; None when it can."""
    if evidence.champion is None:
        return None, "does not apply: there is no champion yet"
    if same_model:
        return Verdict.INCONCLUSIVE, "the candidate is the champion; there is nothing to compare"
    if replay is None:
        return Verdict.INCONCLUSIVE, "no requests were replayed; run ReplayModelOperator before the gate"
    if others := _about_others(evidence, replay):
        return Verdict.ERROR, others
    asked = replay.requests + replay.undated
    if replay.left_out > rule.max_left_out * asked or not replay.judged:
        return Verdict.INCONCLUSIVE, f"{replay.left_out} of {asked} requests are unusable ({_left_out(replay)})"
    return None


def _judge(subject: _Subject, judged: int, changed: int, confidence: float) -> RuleResult:
    rule = subject.rule
    limit, least = (
        (rule.segment_limit, rule.min_segment_requests) if subject.column else (rule.max_flip_rate, rule.min_requests)
    )
    if judged < least:
        why = f"{judged} requests; at least {least} are needed"
        return subject.result(Verdict.INCONCLUSIVE, why, requests_needed=least)
    share = changed / judged
    low, high = wilson_interval(changed, judged, confidence)
    numbers = share, low, high
    said = f"{changed} of {judged} requests change, {share:.4g}, interval [{low:.4g}, {high:.4g}]"
    if high <= limit:
        return subject.result(Verdict.PASSED, f"{said}: all of it at most {limit:g}", numbers)
    if low > limit:
        return subject.result(Verdict.FAILED, f"{said}: all of it above {limit:g}", numbers)
    needed = rows_needed(judged, math.sqrt(limit * (1 - limit) / judged), share - limit, confidence)
    more = "" if needed is None else f"; about {needed} requests would decide it"
    return subject.result(Verdict.INCONCLUSIVE, f"{said}: {limit:g} is inside{more}", numbers, needed)


def _about_others(evidence: EvaluationEvidence, replay: ReplayEvidence) -> str:
    """Return how the replayed models differ from the evaluated ones; empty when they are the same."""
    champion = evidence.champion
    pairs = [("candidate", evidence.candidate.model_uri, replay.candidate.model_uri)]
    if champion is not None:
        pairs.append(("champion", champion.model_uri, replay.champion.model_uri))
    wrong = [f"{who} {replayed}, evaluated was {judged}" for who, judged, replayed in pairs if judged != replayed]
    if replay.run_id != evidence.run_id:
        wrong.append(f"run {replay.run_id}, evaluated was {evidence.run_id}")
    return f"the replay is about {' and '.join(wrong)}; replay again" if wrong else ""


def _left_out(replay: ReplayEvidence) -> str:
    parts = {
        "unreadable": replay.unreadable,
        "without a time": replay.undated,
        "not answered by the champion": replay.left_out - replay.unreadable - replay.undated,
    }
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "none was taken"
