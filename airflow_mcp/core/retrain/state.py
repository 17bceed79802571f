"""How the state of a ledger changes with what is observed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow_mcp.core.retrain.decision import DriftJudgement, WindowFact, judge_windows
from airflow_mcp.core.retrain.documents import (
    CONCLUSIVE,
    Control,
    DriftNeed,
    LedgerState,
    Observation,
    OutcomeReport,
    Training,
    TrainingOutcome,
    Window,
    WindowKind,
    WindowVerdict,
)
from airflow_mcp.core.retrain.policy import MAX_BUDGET, MAX_WINDOWS, RetrainPolicy

KEPT_WINDOWS, KEPT_TRAININGS = MAX_WINDOWS + 5, MAX_BUDGET


def observe(state: LedgerState, seq: int, seen: Observation, policy: RetrainPolicy) -> LedgerState:
    """Return the state after an observation: time, reports, controls, trainings and the window.

    :param state: the state before.
    :param seq: number of the entry.
    :param seen: what is known now.
    :param policy: the retrain policy.
    """
    state = take_in(state, seen, policy)
    state = _settle(state, seen, policy)
    state = _notice_training(state, seen)
    for given in (*([seen.window] if seen.window else []), *seen.quality):
        state = _judge_window(state, seq, seen, given, policy)
    return _ask(state, seen, policy)


def take_in(state: LedgerState, seen: Observation, policy: RetrainPolicy) -> LedgerState:
    """Return the state after time, reports and controls; it shows which training to ask Airflow about.

    :param state: the state before.
    :param seen: what is known now.
    :param policy: the retrain policy.
    """
    state = _tick(state, seen.at.timestamp())
    for report in seen.reports:
        state = _report(state, report, policy)
    for control in seen.controls:  # in the order of their numbers: clocks of people and workers may differ
        state = take_control(state, control)
    return state


def take_control(state: LedgerState, control: Control) -> LedgerState:
    """Return the state after a pause or resume; a resume also ends the stop after rejected challengers.

    :param state: the state before.
    :param control: the pause or resume.
    """
    seen = max(state.controls_seen, control.seq)
    if control.action == "pause":
        return _with(state, paused=control, controls_seen=seen)
    return _with(state, paused=None, rejected_in_a_row=0, controls_seen=seen)


def judged(state: LedgerState, policy: RetrainPolicy) -> DriftJudgement:
    """Return the judgement on all windows together.

    :param state: the state.
    :param policy: how many of how many windows must have drifted, and when a verdict counts.
    """
    found = [_judged(kind, state, policy) for kind in policy.kinds]
    for answer in ("violated", "unknown", "quiet"):
        alike = [each for each in found if each.answer == answer]
        if alike:
            violating = tuple(at for each in alike for at in each.violating)
            return DriftJudgement(answer, "; ".join(each.words for each in alike), violating)
    return DriftJudgement("quiet", "no check is a reason to retrain")


def _judged(kind: WindowKind, state: LedgerState, policy: RetrainPolicy) -> DriftJudgement:
    """Return the judgement on the windows of one kind; its positions are those among all windows."""
    at = [position for position, each in enumerate(state.windows) if each.kind == kind]
    windows = [state.windows[position] for position in at]
    facts = [
        WindowFact(each.verdict, _is_mature(kind, each.end, each.judged_at, policy), each.answered) for each in windows
    ]
    found = judge_windows(facts, policy, kind)
    return replace(found, violating=tuple(at[position] for position in found.violating))


def _is_mature(kind: WindowKind, end: datetime, judged_at: datetime, policy: RetrainPolicy) -> bool:
    """Return whether a verdict was given after the window's labels had arrived; a quality check waits by itself."""
    return kind == "quality" or not policy.label_delay or judged_at - end >= policy.label_delay


def _tick(state: LedgerState, wall: float) -> LedgerState:
    """Advance ledger time with the wall clock; when that was set back, continue from the present ledger time."""
    clock = wall + state.clock_offset
    if clock >= state.clock:
        return _with(state, clock=clock)
    return _with(state, clock_offset=state.clock - wall, windows=_set_back(state.windows, wall))


def _set_back(windows: tuple[Window, ...], wall: float) -> tuple[Window, ...]:
    """Move windows back that were dated by a clock that was ahead; otherwise no later window could be newer."""
    moved = []
    for window in windows:
        ahead = timedelta(seconds=max(0.0, window.judged_at.timestamp() - wall))
        dates = {"judged_at": window.judged_at - ahead, "end": window.end - ahead} if ahead else {}
        moved.append(window.model_copy(update=dates))
    return _in_order(moved)


def _report(state: LedgerState, report: OutcomeReport, policy: RetrainPolicy) -> LedgerState:
    state = _with(state, reports_seen=max(state.reports_seen, report.seq))
    known = [each for each in state.trainings if (each.dag_id, each.run_id) == (report.dag_id, report.run_id)]
    if known and known[0].outcome == report.outcome:
        return state
    return _end(state, known[0] if known else None, report.outcome, report.detail, report.data_hash, policy)


def _settle(state: LedgerState, seen: Observation, policy: RetrainPolicy) -> LedgerState:
    """Return the state after Airflow's answer about the open training."""
    training, run = state.open_training, seen.open_run
    if training is None or run is None or run.run_id != training.run_id:
        return state
    if run.state in ("queued", "running"):
        return _replace(state, training, seen=True)
    if run.state == "missing" and not training.seen and run.outcome is None:
        return _with(state, trainings=state.trainings[:-1])  # the task was killed before it could trigger it
    ended: TrainingOutcome = run.outcome or ("vanished" if run.state == "missing" else "failed")
    return _end(state, training, ended, run.detail, training.data_hash, policy)


def _end(
    state: LedgerState,
    training: Training | None,
    outcome: TrainingOutcome,
    detail: str,
    data_hash: str,
    policy: RetrainPolicy,
) -> LedgerState:
    """Return the state after a training ended, with what it answers."""
    if training is not None:
        state = _replace(state, training, outcome=outcome, detail=detail, seen=True)
    if outcome not in CONCLUSIVE:
        return state
    state = _with(state, concluded_clock=state.clock, rejected_in_a_row=_streak(state, outcome, policy))
    if training is not None:
        state = _with(state, rows=training.rows, labels=training.labels)
    return _answered(state, -1 if training is None else training.seq, data_hash)


def _streak(state: LedgerState, outcome: TrainingOutcome, policy: RetrainPolicy) -> int:
    """Return the number of rejections in a row; once the limit is reached, only a resume resets it."""
    if outcome == "rejected":
        return state.rejected_in_a_row + 1
    is_stopped = policy.max_rejections is not None and state.rejected_in_a_row >= policy.max_rejections
    return state.rejected_in_a_row if is_stopped else 0


def _answered(state: LedgerState, seq: int, data_hash: str) -> LedgerState:
    """Mark the windows that a training answers: all judged before it was triggered, and all on the same data."""
    if data_hash:
        seq = max([seq, *(window.seq for window in state.windows if window.data_hash == data_hash)])
    windows = tuple(
        window.model_copy(update={"answered": True}) if window.seq <= seq else window for window in state.windows
    )
    keeps = state.need is not None and state.need.seq > seq
    return _with(state, windows=windows, need=state.need if keeps else None)


def _notice_training(state: LedgerState, seen: Observation) -> LedgerState:
    """Convert the start of a new latest training, whoever started it, to ledger time."""
    if not seen.latest_training or seen.latest_training == state.noticed:
        return state
    started = seen.latest_training_at
    ago = 0.0 if started is None else max(0.0, (seen.at - started).total_seconds())
    return _with(state, noticed=seen.latest_training, noticed_clock=state.clock - ago)


def _judge_window(
    state: LedgerState, seq: int, seen: Observation, given: WindowVerdict, policy: RetrainPolicy
) -> LedgerState:
    """Add the verdict on a window; the same verdict again changes nothing."""
    before = next((window for window in state.windows if window.name == given.name), None)
    end = given.end or (before.end if before else seen.at)
    if before is not None:
        was_mature = _is_mature(given.kind, before.end, before.judged_at, policy)
        if was_mature and (before.verdict == given.verdict or not _is_mature(given.kind, end, seen.at, policy)):
            return state
    window = Window(
        name=given.name,
        kind=given.kind,
        verdict=given.verdict,
        end=end,
        judged_at=seen.at,
        data_hash=seen.data_hash,
        seq=seq,
    )
    alike = [each for each in state.windows if each.kind == given.kind and each.name != given.name]
    others = [each for each in state.windows if each.kind != given.kind]
    return _with(state, windows=_in_order([*others, *_in_order([*alike, window])[-KEPT_WINDOWS:]]))


def _in_order(windows: list[Window]) -> tuple[Window, ...]:
    return tuple(sorted(windows, key=lambda each: (each.end, each.seq)))


def _ask(state: LedgerState, seen: Observation, policy: RetrainPolicy) -> LedgerState:
    """Remember drift or degradation until a training has answered it; a repeated verdict does not ask again."""
    judgement = judged(state, policy)
    if judgement.answer != "violated":
        return state
    seq = max(state.windows[at].seq for at in judgement.violating)
    need = state.need
    if need is not None and seq <= need.seq:
        return state
    asked = DriftNeed(
        kind=need.kind if need else state.windows[judgement.violating[0]].kind,
        since=need.since if need else seen.at,
        seq=seq,
        times=need.times + 1 if need else 1,
        data_version=seen.data_version,
        data_hash=seen.data_hash,
    )
    return _with(state, need=asked)


def _replace(state: LedgerState, training: Training, **changes: Any) -> LedgerState:
    changed = training.model_copy(update=changes)
    return _with(state, trainings=tuple(changed if each is training else each for each in state.trainings))


def _with(state: LedgerState, **changes: Any) -> LedgerState:
    return state.model_copy(update=changes)
