"""The decision to retrain: facts and policy in, one of four verdicts out, with an explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from airflow_mcp.core.retrain.documents import (
    EXPLANATION_LENGTH,
    RetrainDecision,
    RetrainVerdict,
    WindowAnswer,
    WindowKind,
    words,
)
from airflow_mcp.core.retrain.policy import RetrainPolicy

DAY, WEEK = timedelta(days=1), timedelta(days=7)
_BAD: Mapping[WindowKind, WindowAnswer] = {"drift": "drifted", "quality": "degraded"}
"""The verdict that asks for a training, by the check that gives it."""


@dataclass(frozen=True)
class WindowFact:
    """The verdict on one window of data, and whether it counts."""

    verdict: WindowAnswer
    is_mature: bool = True
    """Whether the verdict was given after its labels had arrived."""
    is_answered: bool = False
    """Whether a judged training has answered it."""


@dataclass(frozen=True)
class DriftJudgement:
    """The judgement on all windows together."""

    answer: Literal["violated", "quiet", "unknown"]
    words: str
    violating: tuple[int, ...] = ()
    """Positions of the windows that make it ``violated``."""


def judge_windows(windows: Sequence[WindowFact], policy: RetrainPolicy, kind: WindowKind = "drift") -> DriftJudgement:
    """Return whether enough of the last windows drifted, or degraded, including the newest.

    :param windows: oldest first; windows that are not mature do not count.
    :param policy: how many of how many windows must have drifted or degraded.
    :param kind: which check has judged them.
    """
    bad = _BAD[kind]
    mature = [position for position, window in enumerate(windows) if window.is_mature]
    if not mature:
        early = f"; {len(windows)} were judged before their labels were in" if windows else ""
        return DriftJudgement("unknown", f"no window has been judged{early}")
    last = mature[-policy.window_count :]
    drifted = tuple(at for at in last if windows[at].verdict == bad and not windows[at].is_answered)
    undecided = [at for at in last if windows[at].verdict == "inconclusive"]
    words = f"{len(drifted)} of the last {len(last)} windows {bad}"
    newest = windows[last[-1]]
    if newest.is_answered or newest.verdict == f"not_{bad}":
        return DriftJudgement("quiet", f"{words}, not the newest")
    if newest.verdict == bad and len(drifted) >= policy.violations:
        return DriftJudgement("violated", words, drifted)
    if len(drifted) + len(undecided) >= policy.violations:
        return DriftJudgement("unknown", f"{words}, and {len(undecided)} are inconclusive")
    return DriftJudgement("quiet", f"{words} (needed: {policy.violations})")


@dataclass(frozen=True)
class RetrainFacts:
    """The facts that a decision depends on."""

    data_version: str
    drift: DriftJudgement
    pending_drift: str = ""
    """Drift or degradation that no training has answered yet, as text."""
    has_champion: bool | None = None
    """None: not known."""
    champion_age: timedelta | None = None
    """Time since it was registered, or since a challenger lost to it; None: not known."""
    since_training: timedelta | None = None
    """Time since the latest training started; None: there was none."""
    started_last_day: int = 0
    started_last_week: int = 0
    rejected_in_a_row: int = 0
    paused: str = ""
    """Who paused retraining and why; empty when it is not paused."""
    in_progress: str = ""
    """The training that is queued or running, as text."""
    data_concluded: str = ""
    """How a training on the same data ended; empty when there was none."""
    new_rows: int | None = None
    new_labels: int | None = None
    """Since the last judged training; None: not known."""


def decide_retrain(facts: RetrainFacts, policy: RetrainPolicy) -> RetrainDecision:
    """Return whether to train a new model now; ``action`` and ``run_id`` are filled in later.

    :param facts: what is known.
    :param policy: the retrain policy.
    """
    reasons, doubts = _reasons(facts, policy)
    objections, missing = _objections(facts, policy)
    if reasons and objections:
        return _decision("not_now", reasons, objections, missing)
    if reasons and not missing:
        return _decision("retrain", reasons)
    if reasons or doubts:
        return _decision("inconclusive", reasons, objections, missing if reasons else [*doubts, *missing])
    return _decision("not_needed", [], objections)


def _decision(
    verdict: RetrainVerdict, reasons: Sequence[str], objections: Sequence[str] = (), unknowns: Sequence[str] = ()
) -> RetrainDecision:
    return RetrainDecision(
        verdict=verdict,
        reasons=tuple(map(words, reasons)),
        objections=tuple(map(words, objections)),
        unknowns=tuple(map(words, unknowns)),
        explanation=words(_explanation(verdict, reasons, objections, unknowns), EXPLANATION_LENGTH),
    )


def _explanation(
    verdict: RetrainVerdict, reasons: Sequence[str], objections: Sequence[str], unknowns: Sequence[str]
) -> str:
    """Return one sentence for logs, XCom, the ledger and the conf of the triggered Dag run."""
    wanted = f" (wanted: {'; '.join(reasons)})" if reasons else ""
    if verdict == "retrain":
        return "retrain: " + "; ".join(reasons)
    if verdict == "not_now":
        return f"not now, because {'; '.join(objections)}{wanted}"
    if verdict == "inconclusive":
        return f"cannot say, because {'; '.join(unknowns)}{wanted}"
    return "not needed: nothing asks for it"


def _reasons(facts: RetrainFacts, policy: RetrainPolicy) -> tuple[list[str], list[str]]:
    """Return the reasons to retrain, and the unknown facts that might be reasons."""
    reasons, doubts = [], []
    if policy.kinds and facts.pending_drift:
        reasons.append(facts.pending_drift)
    elif policy.kinds and facts.drift.answer == "unknown":
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
    """Return the objections to a retrain, and the unknown facts that might be objections."""
    objections = [each for each in (facts.paused, facts.in_progress) if each]
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
    """Return a duration as text in a suitable unit.

    :param time: a duration; below zero counts as zero.
    """
    seconds = max(0, int(time.total_seconds()))
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
