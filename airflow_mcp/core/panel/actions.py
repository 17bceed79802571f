"""What a person can do with a model: why it is not possible now, and the Dag run that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from airflow_mcp.core.argument import NO_CHAMPION
from airflow_mcp.core.contract import ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.panel.facts import ModelFacts, VersionFacts
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.registry.history import former_champions

ActionName = Literal[
    "rollback",
    "promote",
    "train",
    "pause-retraining",
    "resume-retraining",
    "pause-rollout",
    "resume-rollout",
    "abort-rollout",
]
ACTIONS: tuple[ActionName, ...] = get_args(ActionName)
STEERS: Mapping[ActionName, str] = MappingProxyType(
    {"pause-rollout": "pause", "resume-rollout": "resume", "abort-rollout": "abort"}
)
"""Actions on a rollout, and what the Dag is asked to do with it."""
REASON_LENGTH = 2000
"""Characters of a reason, as the Dags take them."""


@dataclass(frozen=True)
class ActionKind:
    """One kind of action."""

    title: str
    """Heading of its page; may name ``{champion}`` and ``{version}``."""
    button: str
    steps: tuple[str, ...]
    """What will happen, one sentence each."""
    is_dangerous: bool = False
    chooses: bool = False
    """Whether a version is chosen."""


_CHECKED = "version {version} is loaded and asked its example; if it does not answer, nothing is changed"
_TRIGGERED = "the Dag {dag} is triggered under your name"
_FOLLOWED = "model servers follow the registry at their next look"
KINDS: Mapping[ActionName, ActionKind] = {
    "rollback": ActionKind(
        "Roll back from version {champion}",
        "Roll back",
        (
            _TRIGGERED,
            _CHECKED,
            "the alias champion moves to version {version}, if the champion is still version {champion}",
            "the alias previous_champion is removed, so that a second rollback does not roll forward",
            _FOLLOWED,
        ),
        is_dangerous=True,
        chooses=True,
    ),
    "promote": ActionKind(
        "Promote a version",
        "Promote",
        (
            _TRIGGERED,
            _CHECKED,
            "the alias champion moves to version {version}, if its gate accepted it and {champion} still is champion",
            "the alias previous_champion moves to version {champion}, which is the way back",
            _FOLLOWED,
        ),
        chooses=True,
    ),
    "train": ActionKind(
        "Train now",
        "Train now",
        (_TRIGGERED, "it trains, judges and registers as it does on schedule; nothing is promoted past the gate"),
    ),
    "pause-retraining": ActionKind(
        "Pause retraining",
        "Pause retraining",
        (
            "the pause is written into the model's retrain ledger under your name",
            "no training is triggered until somebody resumes; a training in progress continues",
        ),
    ),
    "resume-retraining": ActionKind(
        "Resume retraining",
        "Resume retraining",
        (
            "the end of the pause is written into the model's retrain ledger under your name",
            "rejected challengers are counted from zero; the next decision may trigger a training",
        ),
    ),
    "pause-rollout": ActionKind(
        "Pause the rollout of version {canary}",
        "Pause rollout",
        (
            _TRIGGERED,
            "version {canary} keeps its {weight} % of the requests until somebody resumes",
            "a broken rule or an open breaker still ends the rollout",
        ),
    ),
    "resume-rollout": ActionKind(
        "Resume the rollout of version {canary}",
        "Resume rollout",
        (_TRIGGERED, "after a pause the next step begins; otherwise the same step begins anew"),
    ),
    "abort-rollout": ActionKind(
        "Abort the rollout of version {canary}",
        "Abort rollout",
        (
            _TRIGGERED,
            "all requests go back to version {champion}, and the rollout ends",
            "version {canary} stays registered, with the reason",
            _FOLLOWED,
        ),
        is_dangerous=True,
    ),
}


BAKE_ABORT = (
    _TRIGGERED,
    "the alias champion moves back from version {canary} to version {stable}, if the policy lets you roll back",
    "version {canary} stays registered, with the reason, and the rollout ends",
    _FOLLOWED,
)
"""Steps of ``abort-rollout`` in the bake time, when the version is the champion already."""


def steps_of(action: ActionName, facts: ModelFacts) -> tuple[str, ...]:
    """Return what an action does, as texts of the catalogue.

    :param action: the action.
    :param facts: what is known of the model.
    """
    is_baking = facts.rollout is not None and facts.rollout.is_baking
    return BAKE_ABORT if action == "abort-rollout" and is_baking else KINDS[action].steps


@dataclass(frozen=True)
class Operation:
    """One action in progress or over: a Dag run, followed by whoever may read it."""

    dag_id: str
    action: str
    key: str
    """Names the Dag run together with the action; equal for the same request."""

    @property
    def run_id(self) -> str:
        """ID of the Dag run."""
        return f"mcp__{self.action}__{self.key}"

    @property
    def id(self) -> str:
        """ID of the operation, for addresses."""
        return f"{self.dag_id}:{self.action}:{self.key}"

    @classmethod
    def parse(cls, text: str) -> Operation | None:
        """Read the ID of an operation; None when it is not one."""
        parts = text.rsplit(":", 2)
        if len(parts) != 3 or not parts[0] or not set(parts[2]) <= set("0123456789abcdef") or len(parts[2]) != 24:
            return None
        is_word = parts[1].replace("-", "").isascii() and parts[1].replace("-", "").isalpha()
        return cls(*parts) if is_word else None


@dataclass(frozen=True)
class Progress:
    """How far an operation is."""

    state: str
    """State of the Dag run, as Airflow names it."""
    tasks: tuple[tuple[str, str], ...] = ()
    """Each task with its state; empty text for one that has not begun."""
    result: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("success", "failed")


def operation_key(user: str, model: str, key: str) -> str:
    """Return what names the Dag run of a request: the same user, model and key name the same run.

    :param user: who asks.
    :param model: the model.
    :param key: idempotency key of the caller.
    """
    return fingerprint([user, model, key])[:24]


def why_not(action: ActionName, facts: ModelFacts) -> Refusal | None:
    """Return why an action is not possible now; None when it is.

    :param action: the action.
    :param facts: what is known of the model.
    """
    return _CHECKS[action](facts)


def choices(action: ActionName, facts: ModelFacts) -> tuple[VersionFacts, ...]:
    """Return the versions that an action may choose, the best first.

    :param action: the action.
    :param facts: what is known of the model.
    """
    if action == "promote":
        newer = [version for version in facts.versions if version.number != facts.standing.champion]
        return tuple(version for version in newer if version.can_be_promoted)
    if action != "rollback":
        return ()
    previous = facts.model.aliases.get(ALIAS_PREVIOUS_CHAMPION)
    numbers = dict.fromkeys([*([previous] if previous else []), *former_champions(facts.model)])
    found = [facts.version(number) for number in numbers]
    return tuple(version for version in found if version is not None and not version.unusable)


def dag_conf(action: ActionName, facts: ModelFacts, *, version: str, reason: str) -> dict[str, Any]:
    """Return the conf of the Dag run that does it.

    :param action: the action.
    :param facts: what is known of the model.
    :param version: the version that was chosen; empty where none is.
    :param reason: why.
    """
    if action == "train":
        return {}
    given: dict[str, Any] = {"model_name": facts.name, "reason": reason}
    if action == "rollback":
        return {**given, "to_version": version, "check_first": True}
    if action == "promote":
        return {**given, "version": version, "expected_champion": facts.standing.champion or NO_CHAMPION}
    if action in STEERS:
        document = facts.rollout.document if facts.rollout else None
        seen = {"rollout": document.identity, "generation": str(document.generation)} if document else {}
        if action != "resume-rollout":  # to abort or to pause is right at every step
            seen.pop("generation", None)
        return {**given, "action": STEERS[action], **seen}
    return given


def _no_rollback(facts: ModelFacts) -> Refusal | None:
    if facts.standing.champion is None:
        return Refusal("There is no champion to go back from.")
    if not choices("rollback", facts):
        return Refusal("No earlier champion can be used.")
    return None


def _no_promotion(facts: ModelFacts) -> Refusal | None:
    return None if choices("promote", facts) else Refusal("No version that a gate accepted waits for a promotion.")


def _no_training(facts: ModelFacts) -> Refusal | None:
    return None if facts.dag_id else Refusal("No version records which Dag trains this model.")


def _no_pause(facts: ModelFacts) -> Refusal | None:
    if facts.retraining is None:
        return Refusal("This model has no retrain ledger.")
    return Refusal("It is paused already.") if facts.retraining["paused"] else None


def _no_resume(facts: ModelFacts) -> Refusal | None:
    if facts.retraining is None:
        return Refusal("This model has no retrain ledger.")
    is_held = facts.retraining["paused"] or facts.retraining["stopped"]
    return None if is_held else Refusal("It is neither paused nor stopped.")


def _no_steering(facts: ModelFacts) -> Refusal | None:
    return None if facts.rollout else Refusal("No rollout is in progress.")


def _no_rollout_pause(facts: ModelFacts) -> Refusal | None:
    refused = _no_steering(facts)
    if refused is None and facts.rollout is not None and facts.rollout.document.phase != "PROGRESSING":
        if facts.rollout.is_baking:
            return Refusal("The version is the champion already, and is watched.")
        return Refusal("It waits for a person already." if facts.rollout.is_waiting else "It cannot be paused now.")
    return refused


def _no_rollout_resume(facts: ModelFacts) -> Refusal | None:
    refused = _no_steering(facts)
    if refused is None and facts.rollout is not None and not facts.rollout.is_waiting:
        return Refusal("It does not wait for a person.")
    return refused


_CHECKS: Mapping[ActionName, Callable[[ModelFacts], Refusal | None]] = {
    "rollback": _no_rollback,
    "promote": _no_promotion,
    "train": _no_training,
    "pause-retraining": _no_pause,
    "resume-retraining": _no_resume,
    "pause-rollout": _no_rollout_pause,
    "resume-rollout": _no_rollout_resume,
    "abort-rollout": _no_steering,
}
