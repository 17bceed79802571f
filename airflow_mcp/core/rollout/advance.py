"""What happens next in a rollout: one pure function that the task, the trigger and the simulation of the tests call."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from airflow_mcp.core.rollout.analysis import AnalysisOutcome, analyse
from airflow_mcp.core.rollout.plan import Analysis, Pause, RolloutPlan, SetWeight, Shadow
from airflow_mcp.core.rollout.samples import Pair
from airflow_mcp.core.rollout.state import (
    RECENT,
    Cause,
    Journal,
    RolloutRecord,
    RolloutState,
    ended_document,
    record_of,
)
from airflow_mcp.core.serving.traffic import RolloutDocument, lease_counts

LONGEST = 3
"""An analysis or a bake time without a conclusion is extended to so many times its length."""
SOON = 1.0
"""Seconds between two looks while replicas begin to follow a new split: counting begins at the look that finds them."""
LEASED = 60.0
"""Seconds between two looks at a split with a lease, which must be renewed before it runs out."""


@dataclass(frozen=True)
class Wait:
    """Nothing is to be written yet."""

    reason: str
    within: float = math.inf
    """Seconds within which the next look is due, if that is sooner than usual."""


@dataclass(frozen=True)
class Write:
    """The next state; the generation is counted by whoever writes."""

    document: RolloutDocument


@dataclass(frozen=True)
class Promote:
    """The canary becomes champion."""

    document: RolloutDocument | None
    """The document that then ends; None when the alias has moved already."""


@dataclass(frozen=True)
class Abort:
    """All requests go back to the champion, and the rollout fails."""

    cause: Cause
    reason: str


@dataclass(frozen=True)
class RollBack:
    """The new champion failed in its bake time: the alias moves back, and the rollout fails."""

    reason: str


@dataclass(frozen=True)
class Finish:
    """The rollout has ended; the record and the report say how."""

    succeeded: bool
    cause: Cause
    reason: str


Action: TypeAlias = Wait | Write | Promote | Abort | RollBack | Finish


def next_action(journal: Journal, state: RolloutState, now: datetime) -> Action:
    """Return what happens next.

    :param journal: the plan, and what was measured so far.
    :param state: what the registry says now.
    :param now: present time, with a time zone.
    :raises EvidenceError: when the record of the rollout cannot be read.
    """
    champion = state.champion
    if champion is not None and champion.version == journal.canary:
        return _after_promotion(journal, record_of(champion, journal.identity), now)
    if champion is None or champion.version != journal.stable:
        there = f"version {champion.version}" if champion is not None else "no version"
        reason = f"the alias champion points at {there}, not at version {journal.stable}"
        return Finish(succeeded=False, cause="superseded", reason=reason)
    document = state.document
    if document is None or document.identity != journal.identity:
        there = f"belongs to rollout {document.identity!r}" if document is not None else f"is gone ({state.error})"
        reason = f"the document of this rollout {there}"
        return Finish(succeeded=False, cause="superseded", reason=reason)
    if not document.is_active:
        return Finish(succeeded=False, cause=_cause_of(document), reason=document.reason)
    action = _of_phase(journal, document, state.lease, now)
    if isinstance(action, Wait) and document.on_lost == "stable":
        return replace(action, within=min(action.within, LEASED))
    return action


def first_document(journal: Journal, *, run_id: str, by: str, now: datetime) -> RolloutDocument:
    """Return the document that a rollout begins with: every replica loads the canary, which is asked nothing yet.

    :param journal: the journal of the new rollout.
    :param run_id: its MLflow run.
    :param by: who begins it.
    :param now: present time, with a time zone.
    """
    plan = journal.plan
    return RolloutDocument(
        identity=journal.identity,
        generation=1,
        phase="INITIALIZING",
        stable=journal.stable,
        canary=journal.canary,
        sticky=plan.sticky,
        step_since=now,
        plan=plan.hash,
        breaker=plan.breaker,
        on_lost=plan.on_lost,
        run_id=run_id,
        by=by,
        reason="every replica loads the canary",
    )


def failed_document(document: RolloutDocument, cause: Cause, reason: str, by: str) -> RolloutDocument:
    """Return the document of a rollout that was aborted: the champion answers alone.

    :param document: the document before.
    :param cause: kind of the reason.
    :param reason: why, for people.
    :param by: who aborts it.
    """
    return ended_document(document, "FAILED", f"{cause}: {reason}", by=by)


def paused_document(document: RolloutDocument, reason: str, by: str, now: datetime) -> RolloutDocument:
    """Return the document of a rollout that waits for a person, with its weight unchanged.

    :param document: the document before.
    :param reason: why.
    :param by: who pauses it.
    :param now: present time, with a time zone.
    """
    return document.model_copy(update={"phase": "WAITING", "reason": reason, "by": by, "step_since": now})


def resumed_document(
    plan: RolloutPlan, document: RolloutDocument, *, reason: str, by: str, now: datetime, skip: bool = False
) -> RolloutDocument:
    """Return the document after a person has resumed: the next step after a pause, otherwise the same step anew.

    :param plan: the plan.
    :param document: the document that waits.
    :param reason: why.
    :param by: who resumes it.
    :param now: present time, with a time zone.
    :param skip: go on to the next step also when the present one is an analysis without a conclusion.
    """
    step = plan.steps[document.step] if document.step < len(plan.steps) else None
    is_pause = isinstance(step, Pause) and step.seconds is None
    after = document.model_copy(update={"by": by})
    if skip or is_pause or step is None:  # without a step left, the promotion is due
        return _entered(plan, after, document.step + 1, now, reason)
    return after.model_copy(update={"phase": "PROGRESSING", "reason": reason, "step_since": now})


def analysis_of(journal: Journal, document: RolloutDocument) -> AnalysisOutcome:
    """Return what the rules say about the requests since the present split came into force.

    :param journal: what was measured.
    :param document: the present split.
    """
    tally = journal.tally
    if tally is not None and tally.generation != document.generation and document.phase != "PROMOTING":
        tally = None
    counts, recent = (tally.total, tally.recent) if tally is not None else (None, None)
    plan = journal.plan
    if document.step < len(plan.steps) and isinstance(plan.steps[document.step], Shadow):
        copies, lately = (
            Pair(canary=pair.shadow, champion=pair.champion) if pair is not None else None for pair in (counts, recent)
        )
        return analyse(plan.shadow_thresholds, copies, document.weight, recent=lately, is_sticky=True)
    queried, is_sticky = journal.queried, bool(document.sticky)
    return analyse(plan.thresholds, counts, document.weight, recent=recent, queried=queried, is_sticky=is_sticky)


def _of_phase(journal: Journal, document: RolloutDocument, lease: str, now: datetime) -> Action:
    if (abort := _always_wrong(journal, now)) is not None:
        return abort
    if document.phase == "PROMOTING":
        return _promoting(journal, document, now)
    if document.phase == "INITIALIZING":
        return _initializing(journal, document, document.step_since or journal.started, now)
    return _of_split(journal, document, lease, now)


def _promoting(journal: Journal, document: RolloutDocument, now: datetime) -> Action:
    """Promote, unless the requests since the last step say otherwise: nobody may have looked for a long time."""
    outcome = analysis_of(journal, document)
    if outcome.verdict == "failed":
        return Abort("analysis", outcome.reason)
    if journal.errors >= journal.plan.error_limit:
        return _undecided(journal.plan, document, _failing(journal), now)
    if journal.looked is None or now - journal.looked > RECENT:
        return Wait("the servers must answer once more before the promotion", SOON if not journal.errors else math.inf)
    return Promote(document)


def _of_split(journal: Journal, document: RolloutDocument, lease: str, now: datetime) -> Action:
    outcome = analysis_of(journal, document)
    if outcome.verdict == "failed":
        return Abort("analysis", outcome.reason)
    if document.on_lost == "stable" and not lease_counts(lease, now):
        reason = "nobody looked after the rollout for a while, so only the champion answered; the step begins anew"
        return Write(document.model_copy(update={"step_since": now, "reason": reason}))
    if document.phase == "WAITING":
        return _waiting(journal, document, now)
    return _progressing(journal, document, outcome, now)


def _waiting(journal: Journal, document: RolloutDocument, now: datetime) -> Action:
    """Wait for a person; a canary that nobody can measure is taken back if the plan says so."""
    problem = _unmeasured(journal, document, document.step_since or journal.started, now)
    if problem and journal.plan.on_inconclusive == "abort":
        return Abort("inconclusive", problem)
    reasons = filter(None, (document.reason, problem))
    return Wait(f"a person must resume it: {'; '.join(reasons)}", _until_followed(journal, document, now))


def _always_wrong(journal: Journal, now: datetime) -> Abort | None:
    plan = journal.plan
    if journal.tripped:
        return Abort("breaker", f"the breaker of the canary is open on {', '.join(journal.tripped)}")
    if plan.max_duration is not None and now - journal.started > timedelta(seconds=plan.max_duration):
        return Abort("timeout", f"the rollout has not ended within {plan.max_duration:g} s")
    return None


def _initializing(journal: Journal, document: RolloutDocument, since: datetime, now: datetime) -> Action:
    is_seen = journal.looked is not None and journal.looked >= since and not journal.errors
    if is_seen and not journal.lagging and not journal.unready:
        return Write(_entered(journal.plan, document, 0, now, "every replica has loaded the canary"))
    if now - since > timedelta(seconds=journal.plan.load_timeout):
        if journal.errors or not is_seen:
            problem = journal.error or "no replica was seen"
        else:
            names = ", ".join(dict.fromkeys((*journal.unready, *journal.lagging)))
            problem = f"the canary cannot answer on {names}"
        return Abort("timeout", f"{problem}, {journal.plan.load_timeout:g} s after the rollout began")
    return Wait("the replicas load the canary")


def _progressing(journal: Journal, document: RolloutDocument, outcome: AnalysisOutcome, now: datetime) -> Action:
    plan = journal.plan
    since = document.step_since or journal.started
    if problem := _unmeasured(journal, document, since, now):
        return _undecided(plan, document, problem, now)
    followed = journal.followed(document.generation)
    if followed is None:
        return Wait("the replicas begin to follow the split", _until_followed(journal, document, now))
    step, passed = plan.steps[document.step], now - max(since, followed)
    if isinstance(step, Analysis | Shadow):
        return _in_analysis(journal, document, outcome, timedelta(seconds=step.seconds), passed, now)
    if isinstance(step, Pause) and step.seconds is not None and passed >= timedelta(seconds=step.seconds):
        return Write(_entered(plan, document, document.step + 1, now, "the pause is over"))
    return Wait("pause")


def _unmeasured(journal: Journal, document: RolloutDocument, since: datetime, now: datetime) -> str:
    """Return why the split cannot be measured; empty when it can, or when it is too early to say."""
    if journal.errors >= journal.plan.error_limit:
        return _failing(journal)
    is_late = now - since > timedelta(seconds=journal.plan.follow_timeout)
    if is_late and journal.lagging and journal.followed(document.generation) is None:
        return f"replicas {', '.join(journal.lagging)} do not follow generation {document.generation}"
    return ""


def _failing(journal: Journal) -> str:
    return f"{journal.errors} looks in a row failed: {journal.error}"


def _until_followed(journal: Journal, document: RolloutDocument, now: datetime) -> float:
    """Return within how many seconds to look again, so that few requests of a new split remain uncounted.

    A look that failed is not repeated soon: ``error_limit`` counts looks, and a replica may need a while to restart.
    """
    is_new = now - (document.step_since or journal.started) <= timedelta(seconds=journal.plan.follow_timeout)
    return SOON if is_new and not journal.errors and journal.followed(document.generation) is None else math.inf


def _in_analysis(
    journal: Journal,
    document: RolloutDocument,
    outcome: AnalysisOutcome,
    shortest: timedelta,
    passed: timedelta,
    now: datetime,
) -> Action:
    plan = journal.plan
    if passed < shortest:
        return Wait(f"analysis: {outcome.verdict} so far")
    if outcome.verdict == "passed" and not journal.errors:
        return Write(_entered(plan, document, document.step + 1, now, f"analysis passed: {outcome.reason}"))
    if outcome.verdict == "error":
        return _undecided(plan, document, outcome.reason, now)
    if passed >= LONGEST * shortest:
        return _undecided(plan, document, f"no conclusion: {outcome.reason}", now)
    return Wait(f"no conclusion yet: {outcome.reason}")


def _undecided(plan: RolloutPlan, document: RolloutDocument, reason: str, now: datetime) -> Action:
    if plan.on_inconclusive == "abort":
        return Abort("inconclusive", reason)
    return Write(paused_document(document, reason, document.by, now))


def _entered(plan: RolloutPlan, document: RolloutDocument, index: int, now: datetime, reason: str) -> RolloutDocument:
    """Return the document at a step, after the weights before it; after the last step the promotion follows."""
    weight = document.weight
    while index < len(plan.steps) and isinstance(step := plan.steps[index], SetWeight):
        weight, index = step.weight, index + 1
    last = plan.steps[index] if index < len(plan.steps) else None
    shadow = last.percent if isinstance(last, Shadow) else 0.0
    changes = {"weight": weight, "shadow": shadow, "step": index, "step_since": now, "reason": reason}
    if last is None:
        return document.model_copy(update={**changes, "phase": "PROMOTING"})
    is_person = isinstance(last, Pause) and last.seconds is None
    return document.model_copy(update={**changes, "phase": "WAITING" if is_person else "PROGRESSING"})


def _after_promotion(journal: Journal, record: RolloutRecord | None, now: datetime) -> Action:
    if record is None:
        return Finish(
            succeeded=False,
            cause="superseded",
            reason=f"version {journal.canary} was made champion by somebody else, without the rest of the steps",
        )
    if record.phase == "PROMOTING":
        return Promote(None)
    if record.phase != "BAKING":
        return Finish(succeeded=record.phase == "SUCCEEDED", cause=record.cause, reason=record.reason)
    return _in_bake_time(journal, record, now)


def _in_bake_time(journal: Journal, record: RolloutRecord, now: datetime) -> Action:
    if journal.tripped:
        return RollBack(f"the breaker of the new champion is open on {', '.join(journal.tripped)}")
    passed = now - record.since
    bake = timedelta(seconds=journal.plan.bake)
    is_seen = not journal.errors and journal.looked is not None and journal.looked >= record.since + bake
    if passed >= bake and is_seen:
        return Finish(succeeded=True, cause="", reason="promoted, and sound for the bake time")
    if passed >= LONGEST * bake:
        problem = f"nobody could look at the servers at the end of the bake time: {journal.error or 'no look'}"
        return Finish(succeeded=False, cause="lost", reason=f"{problem}. Version {journal.canary} stays champion")
    return Wait("the new champion is watched")


def _cause_of(document: RolloutDocument) -> Cause:
    causes: tuple[Cause, ...] = ("analysis", "inconclusive", "breaker", "timeout", "aborted", "refused")
    return next((cause for cause in causes if document.reason.startswith(f"{cause}: ")), "aborted")
