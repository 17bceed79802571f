"""The state of a model in one word, with what to do next: the worst thing that is known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from airflow_mcp.core.registry.standing import ConcernKind, Standing

Tone = Literal["good", "bad", "unsure", "broken", "wait", "none"]
"""Each has a colour, a shape and a word of its own, so no colour carries a meaning alone."""
StateKind = Literal[
    "champion_deleted",
    "champion_unusable",
    "champion_missing",
    "verdict_taken_back",
    "moved_outside",
    "interrupted",
    "approval_late",
    "rollout_failing",
    "waits_for_approval",
    "rolling_out",
    "drifted_stopped",
    "drifted_retraining",
    "drifted",
    "not_judged",
    "no_way_back",
    "retraining_paused",
    "never_promoted",
    "healthy",
]
"""The worst first."""
KINDS: tuple[StateKind, ...] = get_args(StateKind)
_RANKS: Mapping[StateKind, int] = {kind: rank for rank, kind in enumerate(KINDS)}
_NOTHING: Mapping[str, str] = MappingProxyType({})


class _Kind(NamedTuple):
    tone: Tone
    word: str
    next_step: str


_TEXTS: Mapping[StateKind, _Kind] = {
    "champion_deleted": _Kind("bad", "Champion was deleted", "roll back to a version that exists"),
    "champion_unusable": _Kind("bad", "Champion does not load", "roll back, or repair its files and check it again"),
    "champion_missing": _Kind("bad", "No champion any more", "find out who removed it, then promote a version"),
    "verdict_taken_back": _Kind("bad", "Gate verdict taken back", "read the gate's report, then roll back"),
    "moved_outside": _Kind("broken", "Moved outside", "find out who moved it; no gate or load check is recorded"),
    "interrupted": _Kind("broken", "Move not finished", "wait for it, or clear its task: a retry completes it"),
    "approval_late": _Kind("bad", "Approval is late", "answer it: version {version}"),
    "rollout_failing": _Kind("bad", "Rollout in trouble", "version {canary}: look at its measurements, or abort it"),
    "waits_for_approval": _Kind("wait", "Waits for approval", "version {version} waits for an answer"),
    "rolling_out": _Kind("wait", "Rolling out {weight} %", "version {canary} replaces version {stable} step by step"),
    "drifted_stopped": _Kind("bad", "Drifted, retraining stopped", "look at the rejected challengers, then resume"),
    "drifted_retraining": _Kind("wait", "Drifted, retraining", "wait for the training in progress"),
    "drifted": _Kind("bad", "Drifted", "look at the drift report; no version was promoted since"),
    "not_judged": _Kind("unsure", "Not judged", "run the gate or the drift check again"),
    "no_way_back": _Kind("unsure", "No way back", "check an earlier version, so that a rollback is possible"),
    "retraining_paused": _Kind("none", "Retraining paused", "resume it when the reason is gone"),
    "never_promoted": _Kind("none", "Never in production", "promote a first version"),
    "healthy": _Kind("good", "Healthy", ""),
}
_OF_CONCERN: Mapping[ConcernKind, StateKind] = {
    "champion_deleted": "champion_deleted",
    "champion_unusable": "champion_unusable",
    "champion_missing": "champion_missing",
    "verdict_taken_back": "verdict_taken_back",
    "moved_outside": "moved_outside",
    "interrupted": "interrupted",
    "verdict_unknown": "not_judged",
    "no_way_back": "no_way_back",
    "way_back_not_ready": "no_way_back",
    "drift_unknown": "not_judged",
    "never_promoted": "never_promoted",
}
"""``drifted`` depends on the retraining as well."""


@dataclass(frozen=True)
class ModelState:
    """The state of one model."""

    kind: StateKind
    values: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """What the word and the next step name."""

    @property
    def tone(self) -> Tone:
        """Tone of the word."""
        return _TEXTS[self.kind].tone

    @property
    def word(self) -> str:
        """The word in English, with names of values in braces."""
        return _TEXTS[self.kind].word

    @property
    def next_step(self) -> str:
        """What a person does next, in the same form; empty when nothing has to be done."""
        return _TEXTS[self.kind].next_step

    @property
    def rank(self) -> int:
        """Position among the states, the worst first."""
        return _RANKS[self.kind]

    @property
    def needs_somebody(self) -> bool:
        """Whether a person should look at the model now."""
        return self.tone in ("bad", "broken", "unsure")

    def to_json(self) -> dict[str, str]:
        """Return it as plain JSON values."""
        return {
            "kind": self.kind,
            "tone": self.tone,
            "word": self.word.format_map(self.values),
            "next_step": self.next_step.format_map(self.values),
        }


@dataclass(frozen=True)
class Situation:
    """What the state of a model follows from."""

    standing: Standing
    canary: str = ""
    """Version of an active rollout; empty when there is none."""
    weight: float = 0.0
    """Percent of the requests that the canary answers."""
    rollout_trouble: str = ""
    """Why the rollout is in trouble; empty when it is not."""
    approval: str = ""
    """Version that waits for an approval; empty when none does."""
    approval_is_late: bool = False
    retraining: Mapping[str, Any] | None = None
    """Result of :func:`~airflow_mcp.core.retrain.status.retrain_status`; None: not read, or there is no ledger."""


def assess_state(situation: Situation) -> ModelState:
    """Return the state: the first in the order of :data:`KINDS` that applies.

    :param situation: what is known.
    """
    found = {_of_concern(concern.kind, situation) for concern in situation.standing.concerns}
    found |= {kind for kind, applies in _APPLIES.items() if applies(situation)}
    kind: StateKind = min(found, key=KINDS.index, default="healthy")
    return ModelState(
        kind,
        {
            "version": situation.approval,
            "canary": situation.canary,
            "stable": situation.standing.champion or "",
            "weight": f"{situation.weight:g}",
        },
    )


def _of_concern(kind: ConcernKind, situation: Situation) -> StateKind:
    if kind != "drifted":
        return _OF_CONCERN[kind]
    retraining = situation.retraining or {}
    if retraining.get("stopped"):
        return "drifted_stopped"
    in_progress = any(training["outcome"] is None for training in retraining.get("trainings", ())[-1:])
    return "drifted_retraining" if in_progress else "drifted"


_APPLIES: Mapping[StateKind, Callable[[Situation], bool]] = {
    "approval_late": lambda situation: bool(situation.approval) and situation.approval_is_late,
    "waits_for_approval": lambda situation: bool(situation.approval),
    "rollout_failing": lambda situation: bool(situation.canary and situation.rollout_trouble),
    "rolling_out": lambda situation: bool(situation.canary),
    "retraining_paused": lambda situation: bool((situation.retraining or {}).get("paused")),
}
