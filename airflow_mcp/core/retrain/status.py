"""Why a model is or is not retrained, as plain JSON values: the same for the command line and the page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from airflow_mcp.core.retrain.documents import Controls, Ledger, OutcomeReport, Outcomes, Training
from airflow_mcp.core.retrain.ledger import last_policy, state_of
from airflow_mcp.core.retrain.state import take_control


def retrain_status(book: Ledger, outcomes: Outcomes, controls: Controls) -> dict[str, Any]:
    """Return the state of the retraining of one model, with what was reported since the last decision.

    :param book: the decisions.
    :param outcomes: how trainings ended.
    :param controls: pauses and resumes.
    """
    state = state_of(book)
    reports = [each for each in outcomes.entries if each.seq > state.reports_seen]
    state = reduce(take_control, [each for each in controls.entries if each.seq > state.controls_seen], state)
    policy = last_policy(book)
    limit = policy.max_rejections if policy else None
    return {
        "model_name": book.model_name,
        "decisions": book.seq,
        "last_decision": _last_decision(book),
        "paused": state.paused and _plain(state.paused),
        "stopped": limit is not None and state.rejected_in_a_row >= limit,
        "rejected_in_a_row": state.rejected_in_a_row,
        "max_rejections": limit,
        "needed": state.need and _plain(state.need),
        "trainings": [_training(each, reports) for each in state.trainings],
        "windows": [_plain(each) for each in state.windows],
        "reported_since": [_plain(each) for each in reports],
    }


def _last_decision(book: Ledger) -> dict[str, Any] | None:
    if not book.entries:
        return None
    entry = book.entries[-1]
    return {
        "seq": entry.seq,
        "at": entry.observation.at.isoformat(),
        "by": entry.observation.by,
        **_plain(entry.answer),
    }


def _training(training: Training, reports: Sequence[OutcomeReport]) -> dict[str, Any]:
    """Return a training, with the outcome that it has reported since the last decision."""
    reported = [each for each in reports if (each.dag_id, each.run_id) == (training.dag_id, training.run_id)]
    given = _plain(training)
    if reported:
        given |= {"outcome": reported[-1].outcome, "detail": reported[-1].detail}
    return {name: value for name, value in given.items() if name not in ("clock", "seq", "seen")}


def _plain(document: Any) -> dict[str, Any]:
    return dict(document.model_dump(mode="json"))
