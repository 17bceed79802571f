"""The decision itself: facts and policy in, one of four answers out, explained in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from airflow_mcp.core.drift.result import DriftVerdict
from airflow_mcp.core.retrain.policy import RetrainPolicy

RetrainVerdict = Literal["retrain", "not_now", "not_needed", "inconclusive"]
"""``not_now``: needed, but something stands against it. ``inconclusive``: something that decides is not known."""
DAY, WEEK = timedelta(days=1), timedelta(days=7)


@dataclass(frozen=True)
class WindowFact:
    """What is known about one window of data."""

    verdict: DriftVerdict
    is_mature: bool = True
    """Whether its verdict was given when its labels were in."""
    is_answered: bool = False
    """Whether a training that was judged has taken it into account."""


@dataclass(frozen=True)
class DriftJudgement:
    """What the windows say together."""

    answer: Literal["violated", "quiet", "unknown"]
    words: str
    violating: tuple[int, ...] = ()
    """Positions of the windows that make it ``violated``."""


def judge_windows(windows: Sequence[WindowFact], policy: RetrainPolicy) -> DriftJudgement:
    """Decide whether enough of the last windows drifted, the newest among them.

    :param windows: oldest first; windows that are not mature do not count.
    :param policy: says how many of how many.
    """
    mature = [position for position, window in enumerate(windows) if window.is_mature]
    if not mature:
        early = f"; {len(windows)} were judged before their labels were in" if windows else ""
        return DriftJudgement("unknown", f"no window has been judged{early}")
    last = mature[-policy.windows :]
    drifted = tuple(at for at in last if windows[at].verdict == "drifted" and not windows[at].is_answered)
    undecided = [at for at in last if windows[at].verdict == "inconclusive"]
    words = f"{len(drifted)} of the last {len(last)} windows drifted"
    newest = windows[last[-1]]
    if newest.is_answered or newest.verdict == "not_drifted":
        return DriftJudgement("quiet", f"{words}, not the newest")
    if newest.verdict == "drifted" and len(drifted) >= policy.violations:
        return DriftJudgement("violated", words, drifted)
    if len(drifted) + len(undecided) >= policy.violations:
        return DriftJudgement("unknown", f"{words}, and {len(undecided)} are inconclusive")
    return DriftJudgement("quiet", f"{words} (needed: {policy.violations})")


@dataclass(frozen=True)
class RetrainFacts:
    """What is known when the decision is made."""

    data_version: str
    drift: DriftJudgement
    pending_drift: str = ""
    """Drift that no training has answered yet, in words."""
    has_champion: bool | None = None
    """None: not known."""
    champion_age: timedelta | None = None
    """Since it was registered, or since a challenger lost against it; None: not known."""
    since_training: timedelta | None = None
    """Since the latest training started; None: there was none."""
    started_last_day: int = 0
    started_last_week: int = 0
    rejected_in_a_row: int = 0
    paused: str = ""
    """Who paused it and why; empty when it is not paused."""
    under_way: str = ""
    """The training that is queued or running, in words."""
    data_concluded: str = ""
    """What came of the training on this very data; empty when there was none."""
    new_rows: int | None = None
    new_labels: int | None = None
    """Since the last training; None: not known."""


@dataclass(frozen=True)
class RetrainDecision:
    """The answer, explained in words."""

    verdict: RetrainVerdict
    reasons: tuple[str, ...] = ()
    """What speaks for retraining."""
    objections: tuple[str, ...] = ()
    """What speaks against it; one is enough."""
    unknowns: tuple[str, ...] = ()
    """What would have to be known."""

    @property
    def retrain(self) -> bool:
        """Whether to train now."""
        return self.verdict == "retrain"

    @property
    def explanation(self) -> str:
        """One sentence for logs, XCom, the ledger and the conf of the triggered Dag run."""
        wish = f" (wanted: {'; '.join(self.reasons)})" if self.reasons else ""
        if self.verdict == "retrain":
            return "retrain: " + "; ".join(self.reasons)
        if self.verdict == "not_now":
            return f"not now, because {'; '.join(self.objections)}{wish}"
        if self.verdict == "inconclusive":
            return f"cannot say, because {'; '.join(self.unknowns)}{wish}"
        return "not needed: nothing asks for it"


def decide_retrain(facts: RetrainFacts, policy: RetrainPolicy) -> RetrainDecision:
    """Decide whether to train a new model now.

    :param facts: what is known.
    :param policy: what counts.
    """
    reasons, doubts = _reasons(facts, policy)
    objections, missing = _objections(facts, policy)
    if reasons and objections:
        return RetrainDecision("not_now", tuple(reasons), tuple(objections), tuple(missing))
    if reasons and not missing:
        return RetrainDecision("retrain", tuple(reasons))
    if reasons or doubts:
        return RetrainDecision(
            "inconclusive", tuple(reasons), tuple(objections), tuple(missing if reasons else [*doubts, *missing])
        )
    return RetrainDecision("not_needed", (), tuple(objections))


def _reasons(facts: RetrainFacts, policy: RetrainPolicy) -> tuple[list[str], list[str]]:
    """Give what asks for a retrain, and what might if it were known."""
    reasons, doubts = [], []
    if policy.on_drift and facts.pending_drift:
        reasons.append(facts.pending_drift)
    elif policy.on_drift and facts.drift.answer == "unknown":
        doubts.append(facts.drift.words)
    if facts.has_champion is None:
        doubts.append("whether there is a champion is not known")
    elif not facts.has_champion:
        reasons.append("there is no champion")
    elif policy.max_model_age is not None and facts.champion_age is None:
        doubts.append("the champion's age is not known")
    elif policy.max_model_age is not None and facts.champion_age and facts.champion_age > policy.max_model_age:
        reasons.append(f"the champion is {words_of(facts.champion_age)} old (limit {words_of(policy.max_model_age)})")
    if policy.retrain_every is not None and _is_over(facts.since_training, policy.retrain_every):
        seen = "never" if facts.since_training is None else f"{words_of(facts.since_training)} ago"
        reasons.append(f"the latest training was {seen} (schedule: every {words_of(policy.retrain_every)})")
    return reasons, doubts


def _objections(facts: RetrainFacts, policy: RetrainPolicy) -> tuple[list[str], list[str]]:
    """Give what stands against a retrain, and what might if it were known."""
    objections = [each for each in (facts.paused, facts.under_way) if each]
    if policy.max_rejections is not None and facts.rejected_in_a_row >= policy.max_rejections:
        objections.append(
            f"{facts.rejected_in_a_row} challengers in a row were rejected (limit {policy.max_rejections}); a person "
            "has to resume"
        )
    if facts.since_training is not None and facts.since_training < policy.cooldown:
        objections.append(
            f"a training started {words_of(facts.since_training)} ago (cooldown {words_of(policy.cooldown)})"
        )
    for started, budget, span in (
        (facts.started_last_day, policy.daily_budget, "24 hours"),
        (facts.started_last_week, policy.weekly_budget, "7 days"),
    ):
        if budget is not None and started >= budget:
            objections.append(f"{started} retrains were triggered within {span} (budget {budget})")
    if facts.data_concluded:
        objections.append(f"data version {facts.data_version} has been trained on already ({facts.data_concluded})")
    missing: list[str] = []
    for got, least, what in (
        (facts.new_rows, policy.min_new_rows, "rows"),
        (facts.new_labels, policy.min_new_labels, "labels"),
    ):
        if least is not None and got is None:
            missing.append(f"how many new {what} there are is not known (needed: {least})")
        elif least is not None and got is not None and got < least:
            objections.append(f"there are {got} new {what} since the last training (needed: {least})")
    return objections, missing


def _is_over(elapsed: timedelta | None, limit: timedelta) -> bool:
    return elapsed is None or elapsed > limit


def words_of(time: timedelta) -> str:
    """Write a time in the unit that people would take.

    :param time: a time; below zero counts as zero.
    """
    seconds = max(0, int(time.total_seconds()))
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
