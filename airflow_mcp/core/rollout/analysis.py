"""What the counts of a step say about the rules: passed, failed, inconclusive or error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold
from airflow_mcp.core.rollout.bounds import CONFIDENCE, Share, difference
from airflow_mcp.core.rollout.plan import LATENCY, PREDICTION_SHIFT, SHARES
from airflow_mcp.core.rollout.samples import Counts, Pair
from airflow_mcp.core.rollout.shift import prediction_shift
from airflow_mcp.core.rollout.state import Queried

Verdict = Literal["passed", "failed", "inconclusive", "error"]
FEWEST_OF_CHAMPION = 100
"""Requests of the champion, below which its latency is not known well enough to compare with."""
FEWEST_BAD = 2
"""Bad requests, below which a rule is never broken: the first request to a cold version may fail by itself."""
CONFIDENCE_OF_RECENT = 1 - 1e-6
"""Confidence of a bound on the recent requests alone: a step may have thousands of looks, and each is another chance to
be wrong."""
LEAST_CHANCE = 1e-6
"""A share of requests less likely than this is not the share that was ordered."""
LOOKS_OF_A_QUERY = 3
"""Looks in a row that decide a rule on a query: its result has no bounds, because nobody knows what it counts."""
_NEAREST_TO_EDGE = 0.001
"""Ordered shares of 0 and 1 count as this far inside: requests in flight still end on the other side."""


class RuleOutcome(Document):
    """One rule after a look."""

    rule: str
    verdict: Verdict
    reason: str
    value: float | None = None
    """What the canary shows: a share, or the share of slow answers."""


class AnalysisOutcome(Document):
    """All rules after a look."""

    verdict: Verdict
    reason: str
    rules: tuple[RuleOutcome, ...] = ()


class _Limited(NamedTuple):
    """A share and what it may be: certainly broken above, certainly met below."""

    broken: bool
    met: bool
    reason: str
    value: float | None


def analyse(
    rules: Sequence[MetricThreshold],
    counts: Pair | None,
    weight: float,
    *,
    recent: Pair | None = None,
    queried: Mapping[str, Queried] = MappingProxyType({}),
    is_sticky: bool = False,
) -> AnalysisOutcome:
    """Judge the counts since the step began.

    A rule is ``failed`` when it is certainly broken and ``passed`` when it is certainly met, by one-sided bounds of
    99 %. A rule on a query is decided by :data:`LOOKS_OF_A_QUERY` looks in a row. Everything between, and everything
    that is missing, is ``inconclusive``.

    The recent requests are judged by themselves too, because many good ones before would hide that a version has begun
    to fail. A rule that they break at :data:`CONFIDENCE_OF_RECENT` is ``failed``, and one that they break at 99 % is
    not ``passed``.

    :param rules: the rules. One in the mode ``warn`` is shown and decides nothing.
    :param counts: requests since the step began; None when counting has not begun.
    :param weight: percent of the requests meant for the canary.
    :param recent: requests of the last minutes of the step; None while these are all.
    :param queried: what the rules on queries have shown, by the rule.
    :param is_sticky: whether callers keep their side, so that few callers can shift the share of requests.
    """
    if counts is None:
        return AnalysisOutcome(verdict="inconclusive", reason="nothing has been counted yet")
    outcomes = tuple(_judge(rule, counts, recent, queried) for rule in rules)
    deciding = [outcome for outcome, rule in zip(outcomes, rules, strict=True) if rule.mode == "enforce"]
    for verdict in ("failed", "error", "inconclusive"):
        reasons = [f"{each.rule}: {each.reason}" for each in deciding if each.verdict == verdict]
        if verdict == "error" and not is_sticky and (problem := _why_not_ordered(counts, weight)):
            reasons.append(problem)
        if reasons:
            return AnalysisOutcome(verdict=verdict, reason="; ".join(reasons), rules=outcomes)
    return AnalysisOutcome(verdict="passed", reason="every rule is met", rules=outcomes)


def _judge(rule: MetricThreshold, counts: Pair, recent: Pair | None, queried: Mapping[str, Queried]) -> RuleOutcome:
    if rule.metric == PREDICTION_SHIFT:
        found = _Limited(*prediction_shift(counts.canary, counts.champion, rule.threshold))
    elif rule.metric in SHARES or LATENCY.fullmatch(rule.metric):
        found = _requests(rule, counts, CONFIDENCE)
        if recent is not None and not found.broken:
            found = _with_recent(rule, found, recent)
    else:
        found = _result(queried.get(str(rule)))
    verdict: Verdict = "failed" if found.broken else "passed" if found.met else "inconclusive"
    return RuleOutcome(rule=str(rule), verdict=verdict, reason=found.reason, value=found.value)


def _requests(rule: MetricThreshold, counts: Pair, confidence: float) -> _Limited:
    if match := LATENCY.fullmatch(rule.metric):
        return _latency(rule, counts, 1 - int(match[1]) / 100, confidence)
    return _share(rule, counts, confidence)


def _with_recent(rule: MetricThreshold, found: _Limited, recent: Pair) -> _Limited:
    """Return what the requests of the step show, unless the recent ones show something else."""
    surely = _requests(rule, recent, CONFIDENCE_OF_RECENT)
    if surely.broken:
        return surely._replace(met=False, reason=f"in the last minutes, {surely.reason}")
    perhaps = _requests(rule, recent, CONFIDENCE)
    if found.met and perhaps.broken:
        return found._replace(met=False, reason=f"{found.reason}; but in the last minutes, {perhaps.reason}")
    return found


def _result(found: Queried | None) -> _Limited:
    if found is None or found.value is None:
        return _Limited(broken=False, met=False, reason="the query has no result that is one number", value=None)
    looks, word = (found.broken, "broken") if found.broken else (found.met, "met")
    reason = f"the query gives {found.value:g}; {word} at {looks} looks in a row, {LOOKS_OF_A_QUERY} decide"
    return _Limited(found.broken >= LOOKS_OF_A_QUERY, found.met >= LOOKS_OF_A_QUERY, reason, found.value)


def _counted(metric: str, counts: Counts) -> Share | None:
    """Return a share; None when a server does not count it."""
    if metric == "http_5xx_rate":
        return Share(counts.failed, counts.answered)
    bad = counts.unfit if metric == "unfit_rate" else counts.refused
    return Share(bad, counts.answered + counts.refused) if bad is not None else None


def _share(rule: MetricThreshold, counts: Pair, confidence: float) -> _Limited:
    canary, champion = _counted(rule.metric, counts.canary), _counted(rule.metric, counts.champion)
    if canary is None or (champion is None and rule.against_champion):
        return _Limited(broken=False, met=False, reason="a replica does not count it; update its image", value=None)
    if canary.value is None:
        return _Limited(broken=False, met=False, reason="the canary has answered nothing", value=None)
    if champion is None or not rule.against_champion:
        return _within(canary, rule.threshold, "requests", confidence)
    factor = rule.factor + rule.percent / 100
    found = difference(canary, champion, factor, confidence)
    if found is None:
        return _Limited(broken=False, met=False, reason="the champion has answered nothing", value=canary.value)
    scaled = "champion's" if factor == 1 else f"champion's times {factor:g}"
    reason = (
        f"{_written(canary)} of the canary, {_written(champion)} of the champion; the difference to the {scaled} is "
        f"between {found.low:.3%} and {found.high:.3%}, allowed are {rule.threshold:.3%}"
    )
    is_broken = canary.bad >= FEWEST_BAD and found.low > rule.threshold
    return _Limited(is_broken, found.high <= rule.threshold, reason, canary.value)


def _within(share: Share, limit: float, what: str, confidence: float) -> _Limited:
    low, high = share.low(confidence), share.high(confidence)
    reason = f"{_written(share)} {what}: between {low:.3%} and {high:.3%}, allowed are {limit:.3%}"
    is_broken = share.bad >= FEWEST_BAD and share.is_above(limit, confidence)
    return _Limited(is_broken, share.is_below(limit, confidence), reason, share.value)


def _latency(rule: MetricThreshold, counts: Pair, slow_share: float, confidence: float) -> _Limited:
    """Judge a quantile as a share: the 99th percentile is within a limit when at most 1 % of the requests are slower.

    The server counts by edges. So the rule is met when it is met at the next lower edge, and broken when it is broken
    at the next higher one.
    """
    canary, champion, edges = counts.canary, counts.champion, _edges(counts.canary)
    if not canary.timed or not edges:
        return _Limited(broken=False, met=False, reason="the canary has answered nothing", value=None)
    limit: float | None = rule.threshold
    if rule.against_champion:
        quantile = _quantile(champion, slow_share)
        if quantile is None:
            reason = f"the champion has {champion.timed:.0f} requests; {FEWEST_OF_CHAMPION} are needed, within an edge"
            return _Limited(broken=False, met=False, reason=reason, value=None)
        limit = rule.bound(quantile)
    if limit is None:
        return _Limited(broken=False, met=False, reason="the limit is not a number", value=None)
    below = max((edge for edge in edges if edge <= limit), default=None)
    above = min((edge for edge in edges if edge >= limit), default=None)
    surely_met, surely_broken = (
        _within(_slower(canary, edge), slow_share, f"requests slower than {edge:g} ms", confidence) if edge else None
        for edge in (below, above)
    )
    shown = surely_met or surely_broken
    reason = f"limit {limit:g} ms; {shown.reason}" if shown else f"the server has no edge near {limit:g} ms"
    return _Limited(
        broken=surely_broken is not None and surely_broken.broken,
        met=surely_met is not None and surely_met.met,
        reason=reason,
        value=shown.value if shown else None,
    )


def _edges(counts: Counts) -> list[float]:
    return sorted(float(edge) for edge in counts.within)


def _slower(counts: Counts, edge: float) -> Share:
    return Share(max(0.0, counts.timed - counts.within.get(f"{edge:g}", 0.0)), counts.timed)


def _quantile(counts: Counts, slow_share: float) -> float | None:
    """Return the edge that a quantile is not above; None when there are too few requests, or it is above all edges."""
    if counts.timed < FEWEST_OF_CHAMPION:
        return None
    return next((edge for edge in _edges(counts) if (_slower(counts, edge).value or 0.0) <= slow_share), None)


def _why_not_ordered(counts: Pair, weight: float) -> str:
    """Return that the share of the requests is not the weight; empty when it may be."""
    shared = Share(counts.canary.answered, counts.canary.answered + counts.champion.answered)
    ordered = weight / 100
    expected = min(1 - _NEAREST_TO_EDGE, max(_NEAREST_TO_EDGE, ordered))
    is_beyond = shared.value is None or min(expected, ordered) <= shared.value <= max(expected, ordered)
    if is_beyond or shared.chance(expected) >= LEAST_CHANCE:
        return ""
    return f"the canary has answered {_written(shared)} requests, which cannot be a weight of {weight:g} %"


def _written(share: Share) -> str:
    return f"{share.bad:.0f} of {share.total:.0f}"
